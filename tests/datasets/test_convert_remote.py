"""The same store from and to URLs, and made by Beam."""

import json
import pathlib
import shutil
import sys
import uuid

import fsspec
import pytest

from bridgeact_jax.datasets.convert import convert_dataset
from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.datasets.store import open_store
from bridgeact_jax.errors import UsageError, UserError
from tests.datasets.conftest import content


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A URL of fsspec's own that nothing else uses, and a cache of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(url):
        filesystem.rm(url, recursive=True)


def put(folder, url):
    fsspec.filesystem("memory").put(f"{folder}/", url, recursive=True)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_remote_in_and_out(many, bucket, tmp_path, file_format):
    directory, card = many
    if file_format == "array_record":
        directory = as_array_record(directory, tmp_path / "array_record")
    convert_dataset(directory, tmp_path / "local", card=card)
    put(directory, f"{bucket}/rlds")
    convert_dataset(f"{bucket}/rlds/", f"{bucket}/store", card=card)
    filesystem = fsspec.filesystem("memory")
    names = [entry.rsplit("/", 1)[-1] for entry in filesystem.ls(f"{bucket}/store", detail=False)]
    wanted = content(tmp_path / "local")
    assert {name: filesystem.cat_file(f"{bucket}/store/{name}") for name in names} == wanted
    assert not list((tmp_path / "cache").rglob("*.npy"))

    store = open_store(f"{bucket}/store")
    assert store.num_episodes == 18 and store.path.is_relative_to(tmp_path / "cache")
    filesystem.rm(f"{bucket}/store/position.npy")
    assert open_store(f"{bucket}/store").num_episodes == 18  # from the cache

    with pytest.raises(UserError, match=f"{bucket}/store exists: choose another path, or overw"):
        convert_dataset(directory, f"{bucket}/store", card=card)
    convert_dataset(directory, f"{bucket}/store", card=card, overwrite=True)
    assert filesystem.exists(f"{bucket}/store/position.npy")


def as_array_record(directory, target):
    from array_record.python.array_record_module import ArrayRecordWriter

    target.mkdir()
    dataset = open_rlds(directory)
    for shard, (file, length) in enumerate(
        zip(dataset.split("train").files, dataset.split("train").lengths, strict=True)
    ):
        name = pathlib.Path(file).name.replace("tfrecord", "array_record")
        writer = ArrayRecordWriter(str(target / name), "group_size:1")
        for record in dataset.records("train", shard, 0, length):
            writer.write(record)
        writer.close()
    shutil.copy(directory / "features.json", target)
    info = json.loads((directory / "dataset_info.json").read_text())
    (target / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "array_record"}))
    return target


def test_a_damaged_remote_store_is_not_opened(many, bucket):
    directory, card = many
    convert_dataset(directory, f"{bucket}/store", card=card)
    filesystem = fsspec.filesystem("memory")
    column = bytearray(filesystem.cat_file(f"{bucket}/store/position.npy"))
    column[-1] ^= 1
    filesystem.pipe_file(f"{bucket}/store/position.npy", bytes(column))
    with pytest.raises(UserError, match="position.npy differs from the checksum"):
        open_store(f"{bucket}/store")
    with pytest.raises(UserError, match="is no trajectory store"):
        open_store(f"{bucket}/absent")


def test_remote_places_that_do_not_work(many, bucket, tmp_path):
    directory, card = many
    with pytest.raises(UserError, match=f"{bucket}/absent: no RLDS dataset"):
        convert_dataset(f"{bucket}/absent", tmp_path / "store", card=card)
    with pytest.raises(UsageError, match="unknown protocol 'gss': did you mean 'gs'"):
        convert_dataset("gss://bucket/rlds", tmp_path / "store", card=card)
    put(directory, f"{bucket}/rlds")
    shard = f"{bucket}/rlds/toy-train.tfrecord-00003-of-00005"
    whole = fsspec.filesystem("memory").cat_file(shard)
    fsspec.filesystem("memory").pipe_file(shard, whole[:-5])
    with pytest.raises(UserError, match=f"{shard}: record 3 at byte [0-9]+ is cut off"):
        convert_dataset(f"{bucket}/rlds", tmp_path / "store", card=card)


@pytest.mark.parametrize("protocol", ["gs", "s3"])
def test_a_protocol_that_is_not_installed_says_what_to_install(protocol, tmp_path, monkeypatch):
    module = {"gs": "gcsfs", "s3": "s3fs"}[protocol]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'bridgeact_jax\[cloud\]'"):
        convert_dataset(f"{protocol}://bucket/rlds", tmp_path / "store", card="bridge")


def test_beam_gives_the_same_bytes(many, tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed")
    directory, card = many
    convert_dataset(directory, tmp_path / "local", card=card)
    beam = {"runner": "beam", "beam_options": ["--runner=DirectRunner"]}
    convert_dataset(directory, tmp_path / "beam", card=card, **beam)
    assert content(tmp_path / "beam") == content(tmp_path / "local")


def test_beam_through_urls(many, bucket, tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed")
    directory, card = many
    convert_dataset(directory, tmp_path / "local", card=card)
    convert_dataset(directory, f"file://{tmp_path}/beam", card=card, runner="beam")
    assert content(tmp_path / "beam") == content(tmp_path / "local")
    assert not (tmp_path / "beam.partial").exists()
    shard = directory / "toy-train.tfrecord-00003-of-00005"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(UserError, match="pipeline failed: .*00003-of-00005: record 3 at byte"):
        convert_dataset(directory, tmp_path / "damaged", card=card, runner="beam")


def test_beam_that_is_not_installed_says_what_to_install(many, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UsageError, match=r"pip install 'bridgeact_jax\[beam\]'"):
        convert_dataset(many[0], tmp_path / "store", card=many[1], runner="beam")
