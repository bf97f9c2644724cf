"""Mutated bytes, by hypothesis: no hang, no other exception, never a wrong episode."""

import pathlib
import tempfile

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridgeact_jax.datasets.cards import load_card
from bridgeact_jax.datasets.episode import RejectedEpisode, check_episode
from bridgeact_jax.datasets.files import join
from bridgeact_jax.datasets.reading import EpisodeReader
from bridgeact_jax.datasets.records import READERS, frame_tfrecord
from bridgeact_jax.datasets.rlds_reader import open_rlds
from bridgeact_jax.datasets.tf_example import MalformedExample, parse_columns
from bridgeact_jax.errors import UserError

WITH_FIXTURES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def edits(draw):
    """A few places to overwrite, cut out or fill in, as shares of the length."""
    place = st.floats(0, 1, exclude_max=True)
    return draw(
        st.lists(
            st.tuples(place, st.integers(0, 12), st.binary(max_size=12)), min_size=1, max_size=4
        )
    )


def mutated(content: bytes, changes) -> bytes:
    """`content` with `removed` bytes at each place replaced by others."""
    for place, removed, put in changes:
        start = int(place * len(content))
        content = content[:start] + put + content[start + removed :]
    return content


def records_of(content: bytes, file_format: str, start: int = 0) -> tuple[list[bytes], bool]:
    """What is read before the end or the error, and whether there was one."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "shard")
        path.write_bytes(content)
        try:
            for record in READERS[file_format](path, start):
                records.append(record)
        except UserError as error:
            assert str(path) in str(error)
            return records, True
    return records, False


DATA = [b"", b"first", bytes(range(256)) * 3, b"\x00" * 40]


@given(edits(), st.integers(0, 3))
def test_a_mutated_tfrecord_gives_only_its_true_records(changes, start):
    content = mutated(b"".join(map(frame_tfrecord, DATA)), changes)
    records, failed = records_of(content, "tfrecord")
    assert all(record in DATA for record in records)
    assert failed or b"".join(map(frame_tfrecord, records)) == content
    later, _ = records_of(content, "tfrecord", start)  # damage to data before `start` is not seen
    assert all(record in DATA[start:] for record in later)
    assert failed or later == records[start:]


@given(edits())
def test_a_mutated_array_record_gives_only_its_true_records(changes):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "shard")
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in DATA:
            writer.write(record)
        writer.close()
        content = path.read_bytes()
    records, failed = records_of(mutated(content, changes), "array_record")
    assert records == (DATA[: len(records)] if failed else DATA)


def test_reading_starts_where_it_is_told(tmp_path):
    writer = ArrayRecordWriter(str(tmp_path / "shard"), "group_size:1")
    for record in DATA:
        writer.write(record)
    writer.close()
    contents = {
        "array_record": (tmp_path / "shard").read_bytes(),
        "tfrecord": b"".join(map(frame_tfrecord, DATA)),
    }
    for file_format, content in contents.items():
        for start in range(6):
            assert records_of(content, file_format, start) == (DATA[start:], False)


@pytest.fixture
def opened(toy):
    """The toy's first record, its dataset and its reader."""
    directory, card, _ = toy
    dataset = open_rlds(directory)
    [record] = list(dataset.records("train", 0, 0, 3))[:1]
    return record, dataset, EpisodeReader(dataset, load_card(card), "train", clouds=False)


@WITH_FIXTURES
@given(changes=edits())
def test_a_mutated_record_has_columns_of_the_declared_kind_or_none(opened, changes):
    record, dataset, _ = opened
    record = mutated(record, changes)
    try:
        for values in parse_columns(record, dataset.columns).values():
            assert isinstance(values, list) or values.dtype in (np.float32, np.int64)
    except MalformedExample:
        pass
    columns = dataset.parse(record, dataset.columns)
    if isinstance(columns, MalformedExample):
        assert str(columns)
        return
    for key, spec in dataset.columns.items():
        if spec.dtype == "text":
            assert all(isinstance(value, bytes) for value in columns[key])
        else:
            assert columns[key].shape[1:] == spec.shape
            assert columns[key].dtype == np.dtype(spec.dtype)


@settings(WITH_FIXTURES, max_examples=150)
@given(changes=edits())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_mutated_record_is_an_episode_or_rejected_with_a_reason(opened, changes):
    """Without checksums: what comes through at least keeps what an episode promises."""
    record, _, reader = opened
    try:
        reading = reader.read(mutated(record, changes), 0)
    except RejectedEpisode as reason:
        assert str(reason) and "\n" not in str(reason)
        return
    check_episode(reading.episode)
    norms = np.linalg.norm(reading.episode.rotation, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    gripper = reading.episode.gripper
    assert gripper.min() >= 0 and gripper.max() <= 1


@WITH_FIXTURES
@given(changes=edits(), name=st.sampled_from(["dataset_info.json", "features.json"]))
def test_a_mutated_description_is_opened_or_refused(toy, changes, name):
    directory = toy[0]
    path = pathlib.Path(join(directory, name))
    whole = path.read_bytes()
    try:
        path.write_bytes(mutated(whole, changes))
        dataset = open_rlds(directory)
        for split in dataset.splits:
            try:
                list(dataset.episodes(split, [key for key in dataset.columns]))
            except UserError as error:
                assert str(directory) in str(error)
    except UserError as error:
        assert str(directory) in str(error)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("length", ["-1", "99999999999", "many"])
def test_impossible_numbers_of_episodes(toy, length):
    path = toy[0] / "dataset_info.json"
    path.write_text(path.read_text().replace('["3"]', f'["{length}"]'))
    with pytest.raises(UserError, match="dataset_info.json is not as TensorFlow Datasets writes"):
        open_rlds(toy[0])
