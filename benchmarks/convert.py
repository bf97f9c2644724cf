"""How fast `bridgeact convert` is, how it scales from one process to two, and its peak memory.

    python benchmarks/convert.py --sample=DIR [--work=DIR] [--episodes=2000,20000]

DIR is a small TFRecord RLDS dataset that a card lists (such as bridge_dataset/1.0.0). Its records
are repeated, checksums and all, to each number of episodes, over shards of 125 episodes; then each
such dataset is converted in a process of its own with 1 and with 2 workers, after being read once,
so that the disk's cache is warm for all. One line of JSON each:

    seconds            of the whole command, with start-up and compilation
    episodes_per_s     episodes / seconds
    steady_per_s       episodes per second since the first part was there
    cpu_s              processor time of all its processes
    peak_mb            largest resident memory of any of its processes
    peak_sum_mb        of all its processes together (shared pages counted in each)

benchmarks/convert_tensorflow.py reads the same datasets with TensorFlow.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

EPISODES_PER_SHARD = 125


def repeat(sample: pathlib.Path, episodes: int, target: pathlib.Path) -> pathlib.Path:
    """The dataset `sample` with its train records repeated to `episodes`, at `target`."""
    if (target / "dataset_info.json").is_file():
        return target
    from bridgeact_jax.datasets.records import frame_tfrecord
    from bridgeact_jax.datasets.rlds_reader import open_rlds

    dataset = open_rlds(sample)
    train = dataset.split("train")
    records = [
        frame_tfrecord(record)
        for shard, length in enumerate(train.lengths)
        for record in dataset.records("train", shard, 0, length)
    ]
    target.mkdir(parents=True)
    shards = -(-episodes // EPISODES_PER_SHARD)
    lengths = [min(EPISODES_PER_SHARD, episodes - i * EPISODES_PER_SHARD) for i in range(shards)]
    for shard, length in enumerate(lengths):
        name = f"{dataset.name}-train.tfrecord-{shard:05d}-of-{shards:05d}"
        with open(target / name, "wb") as file:
            for number in range(length):
                file.write(records[(shard * EPISODES_PER_SHARD + number) % len(records)])
    info = json.loads((sample / "dataset_info.json").read_text())
    split = next(split for split in info["splits"] if split["name"] == "train")
    info["splits"] = [split | {"shardLengths": [str(length) for length in lengths]}]
    shutil.copy(sample / "features.json", target)
    (target / "dataset_info.json").write_text(json.dumps(info))
    return target


def read_once(directory: pathlib.Path) -> int:
    """Reads every file, so that the disk's cache is warm; returns the bytes."""
    total = 0
    for path in directory.iterdir():
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                total += len(block)
    return total


def convert(rlds: pathlib.Path, out: pathlib.Path, workers: int) -> dict[str, float]:
    """Times one conversion in a process of its own, and its memory."""
    command = [sys.executable, "-m", "bridgeact_jax.cli", "convert", f"--rlds={rlds}",
               f"--out={out}", f"--workers={workers}"]
    start, used = time.monotonic(), _cpu_seconds()
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    memory = _Memory(process.pid)
    log = process.stderr.read()
    if process.wait():
        sys.exit(log)
    seconds = time.monotonic() - start
    cpu = _cpu_seconds() - used
    rate = re.findall(r"([\d,.]+)/s", log)[-1]
    steady = float(rate.replace(",", ""))
    return {"seconds": seconds, "steady_per_s": steady, "cpu_s": cpu} | memory.stop()


def _cpu_seconds() -> float:
    """Of the children that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Memory:
    """Watches the resident memory of a process and its descendants."""

    def __init__(self, root: int):
        self._root, self._single, self._sum, self._end = root, 0, 0, False
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        self._end = True
        self._thread.join()
        return {"peak_mb": self._single, "peak_sum_mb": self._sum}

    def _watch(self) -> None:
        while not self._end:
            sizes = [_resident_mb(pid) for pid in _descendants(self._root)]
            self._single = max([self._single, *sizes])
            self._sum = max(self._sum, sum(sizes))
            time.sleep(0.05)


def _descendants(root: int) -> list[int]:
    found = [root]
    for pid in found:
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            continue
        found += map(int, children)
    return found


def _resident_mb(pid: int) -> float:
    try:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=pathlib.Path, required=True)
    parser.add_argument("--work", type=pathlib.Path, default=None)
    parser.add_argument("--episodes", default="2000,20000")
    parser.add_argument("--workers", default="1,2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        for episodes in map(int, options.episodes.split(",")):
            rlds = repeat(options.sample, episodes, work / f"rlds_{episodes}")
            size = read_once(rlds)
            for workers in map(int, options.workers.split(",")):
                out = pathlib.Path(scratch, f"store_{episodes}_{workers}")
                figures = convert(rlds, out, workers)
                shutil.rmtree(out)
                figures |= {
                    "episodes_per_s": episodes / figures["seconds"],
                    "mb_per_s": size / 1e6 / figures["seconds"],
                }
                line = {"episodes": episodes, "workers": workers}
                print(json.dumps(line | {key: round(figures[key], 2) for key in sorted(figures)}),
                      flush=True)


if __name__ == "__main__":
    main()
