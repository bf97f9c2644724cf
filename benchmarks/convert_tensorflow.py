"""How fast TensorFlow Datasets reads an RLDS dataset: what benchmarks/convert.py compares with.

    python benchmarks/convert_tensorflow.py --rlds=DIR [--state=observation/state] [--action=action]

runs in an environment with tensorflow and tensorflow-datasets, which the project itself never
installs. DIR is a dataset that benchmarks/convert.py made. It reads the whole train split through
`tfds.builder_from_directory(DIR).as_dataset()` and prints one line of JSON for each way:

    steps       every step of every episode, as tensors (what an RLDS tutorial does)
    batches     only state, action and instruction of each episode, gathered into one batch by
                parallel maps inside TensorFlow (the fastest way to get at them that we know)
    episodes    episodes are parsed, their steps never looked at: a lower bound of the time

with pictures left encoded (SkipDecoding), and `steps decoded` with default decoding.
`episodes_per_s` counts from the first episode on, `with_start_per_s` from building the pipeline;
the time to import TensorFlow, `import_s`, enters neither. `cpu_s` is the processor time of the way.
"""

import argparse
import json
import os
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
started = time.monotonic()
import tensorflow as tf  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402

MOST_STEPS = 1000  # a larger batch reserves memory for its size, and is far slower
IMPORT_S = time.monotonic() - started


def skip_pictures(feature: tfds.features.FeatureConnector):
    """The decoders that leave every picture below `feature` encoded."""
    if isinstance(feature, tfds.features.Dataset):
        feature = feature.feature
    if isinstance(feature, tfds.features.Image):
        return tfds.decode.SkipDecoding()
    if isinstance(feature, tfds.features.FeaturesDict):
        found = {name: skip_pictures(feature[name]) for name in feature}
        return {name: decoder for name, decoder in found.items() if decoder} or None
    return None


def pick(step: dict, key: str) -> tf.Tensor:
    for part in key.split("/"):
        step = step[part]
    return step


def gather(episode: dict, keys: list[str]) -> tuple[tf.Tensor, ...]:
    steps = episode["steps"].map(lambda step: tuple(pick(step, key) for key in keys))
    return steps.batch(MOST_STEPS).get_single_element()


def read(
    builder: tfds.core.DatasetBuilder, way: str, keys: list[str], skip: bool, most: int
) -> dict:
    decoders = skip_pictures(builder.info.features) if skip else None
    start, used = time.monotonic(), time.process_time()
    dataset = builder.as_dataset(split="train", decoders=decoders, shuffle_files=False)
    dataset = dataset.take(most)
    if way == "batches":
        parallel = tf.data.AUTOTUNE
        dataset = dataset.map(lambda episode: gather(episode, keys), num_parallel_calls=parallel)
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    episodes, first = 0, None
    for episode in dataset:
        if way == "steps":
            for _ in episode["steps"]:
                pass
        episodes += 1
        first = first or time.monotonic()
    end = time.monotonic()
    return {
        "episodes": episodes,
        "episodes_per_s": round((episodes - 1) / (end - first), 1),
        "with_start_per_s": round(episodes / (end - start), 1),
        "cpu_s": round(time.process_time() - used, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rlds", required=True)
    parser.add_argument("--state", default="observation/state")
    parser.add_argument("--action", default="action")
    parser.add_argument("--instruction", default="language_instruction")
    parser.add_argument("--episodes", type=int, default=-1, help="read so many (default: all)")
    parser.add_argument("--ways", default="batches,episodes,steps,steps decoded")
    options = parser.parse_args()
    keys = [options.state, options.action, options.instruction]
    builder = tfds.builder_from_directory(options.rlds)
    for words in options.ways.split(","):
        way, skip = words.split()[0], "decoded" not in words
        figures = read(builder, way, keys, skip, options.episodes)
        line = {"way": way, "pictures": "encoded" if skip else "decoded"}
        print(json.dumps(line | figures | {"import_s": round(IMPORT_S, 1)}), flush=True)


if __name__ == "__main__":
    main()
