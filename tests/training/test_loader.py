"""The training stream against a naive loop over episodes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from bridgeact_jax.datasets.episode import Episode
from bridgeact_jax.datasets.loader import WindowSampler
from bridgeact_jax.datasets.store import StoreWriter, open_store
from bridgeact_jax.datasets.trajectories import Trajectories, resample
from bridgeact_jax.errors import UserError
from bridgeact_jax.training.stream import stream

OPTIONS = {
    "horizon": 4, "history": 6, "waypoints": 6, "contact_weight": 3.0, "with_cloud": False
}  # fmt: skip


def random_trajectories(seed: int, lengths=(9, 23, 14)) -> Trajectories:
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    offsets = np.r_[0, np.cumsum(lengths)]
    rotation = Rotation.random(total, random_state=seed).as_quat(scalar_first=True)
    keyframes = [
        np.unique(np.r_[0, rng.integers(1, n - 1, 4), n - 1]) + start
        for n, start in zip(lengths, offsets, strict=False)
    ]
    return Trajectories(
        offsets=offsets,
        position=rng.normal(size=(total, 3)).astype(np.float32),
        rotation=rotation.astype(np.float32),
        gripper=(rng.random(total) < 0.5).astype(np.float32),
        gripper_width=rng.random(total).astype(np.float32),
        keyframe_offsets=np.r_[0, np.cumsum([len(k) for k in keyframes])],
        keyframe_row=np.concatenate(keyframes),
        cloud=rng.normal(size=(total, 5, 3)).astype(np.float16),
        cloud_row=np.arange(total),
    )


def rows_of(data, rows, command):
    return np.concatenate([data.position[rows], data.rotation[rows], command[:, None]], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_gather_agrees_with_a_naive_loop(seed):
    data = random_trajectories(seed)
    sampler = WindowSampler(data, **{**OPTIONS, "with_cloud": True})
    rows = sampler.rows(seed, 0, 64)
    batch = sampler.gather(rows)
    for b, row in enumerate(rows):
        episode = np.searchsorted(data.offsets, row, side="right") - 1
        first, end = data.offsets[episode], data.offsets[episode + 1]
        start = max(first, row - 5)
        while np.sum((data.keyframe_row > start) & (data.keyframe_row <= row)) > 1:
            start = data.keyframe_row[data.keyframe_row > start][0]
        past = list(range(start, row + 1))
        assert batch.steps[b] == len(past)
        before = [max(p - 1, first) for p in past]
        np.testing.assert_array_equal(
            batch.history[b, : len(past)], rows_of(data, past, data.gripper[before])
        )
        for h in range(4):
            target = row + h + 1
            assert batch.future_mask[b, h] == (target < end)
            sent = data.gripper[[min(target - 1, end - 1)]]
            np.testing.assert_array_equal(
                batch.future[b, [h]], rows_of(data, [min(target, end - 1)], sent)
            )
        own = data.keyframe_row[(data.keyframe_row > start) & (data.keyframe_row < end)][:5]
        plan = [start, *own]
        assert batch.waypoint_count[b] == len(plan)
        np.testing.assert_array_equal(
            batch.plan[b, : len(plan)], rows_of(data, plan, data.gripper[plan])
        )
        np.testing.assert_array_equal(batch.cloud[b], data.cloud[row])


def test_last_frames_are_never_drawn_and_contact_is_drawn_more_often():
    data = random_trajectories(0, lengths=(200,))
    gripper = np.ones(200, np.float32)
    gripper[100:] = 0
    data = Trajectories(**{**vars(data), "gripper": gripper})
    sampler = WindowSampler(data, **OPTIONS)
    assert data.num_windows == 199
    rows = sampler.rows(0, 0, 200_000)
    assert rows.max() == 198
    near = np.abs(rows - 99) <= 10
    expected = 21 * 3 / (21 * 3 + 178)
    np.testing.assert_allclose(near.mean(), expected, rtol=0.02)


def test_a_batch_is_a_function_of_seed_and_step_and_hosts_share_it():
    sampler = WindowSampler(random_trajectories(1), **OPTIONS)
    whole = stream(sampler, seed=3, batch_size=8, first_step=5)
    halves = [
        stream(sampler, seed=3, batch_size=8, first_step=5, shard=i, num_shards=2) for i in (0, 1)
    ]
    resumed = stream(sampler, seed=3, batch_size=8, first_step=6)
    first, second = next(whole), next(whole)
    a, b = (next(half) for half in halves)
    np.testing.assert_array_equal(
        first.future, np.concatenate([a.future, b.future])
    )
    np.testing.assert_array_equal(next(resumed).future, second.future)
    assert not np.array_equal(first.future, second.future)


def write_store(path, period: float, with_gaps=False, **facts):
    rng = np.random.default_rng(0)
    time = np.arange(12) * period
    if with_gaps:
        time += np.r_[0, rng.uniform(0, period / 2, 11)]
    rotation = Rotation.random(12, random_state=1).as_quat(scalar_first=True).astype(np.float32)
    for i in range(1, 12):
        if rotation[i] @ rotation[i - 1] < 0:
            rotation[i] *= -1
    episode = Episode(
        time=time,
        position=rng.normal(size=(12, 3)).astype(np.float32),
        rotation=rotation,
        gripper=np.r_[np.ones(5), np.zeros(7)].astype(np.float32),
        gripper_width=np.full(12, np.nan, np.float32),
    )
    with StoreWriter(path, with_cloud=False) as writer:
        writer.append(episode, np.array([0, 5, 8, 11]))
        writer.finish(card="test", **facts)
    return episode


@pytest.mark.parametrize(("period", "with_gaps"), [(0.2, False), (1 / 30, False), (0.2, True)])
def test_resampling_to_10_hz_agrees_with_scipy(tmp_path, period, with_gaps):
    episode = write_store(tmp_path / "store", period, with_gaps)
    data = resample(open_store(tmp_path / "store"))
    grid = np.arange(len(data.position)) / 10
    assert grid[-1] <= episode.time[-1] + 1e-3 and grid[-1] + 0.1 > episode.time[-1]
    clock = np.clip(grid, 0, episode.time[-1])
    expected = np.stack([np.interp(clock, episode.time, p) for p in episode.position.T], axis=1)
    np.testing.assert_allclose(data.position, expected, atol=1e-5)
    reference = Slerp(episode.time, Rotation.from_quat(episode.rotation, scalar_first=True))(clock)
    dot = np.abs(np.sum(data.rotation * reference.as_quat(scalar_first=True), axis=1))
    np.testing.assert_allclose(dot, 1, atol=1e-5)
    held = np.searchsorted(episode.time, clock + 1e-4, side="right") - 1
    np.testing.assert_array_equal(data.gripper, episode.gripper[held])
    flip = np.flatnonzero(np.diff(data.gripper))[0] + 1
    assert data.keyframe_row[0] == 0 and data.keyframe_row[-1] == len(grid) - 1
    assert flip in data.keyframe_row


def test_a_10_hz_store_passes_unchanged(tmp_path):
    episode = write_store(tmp_path / "store", 0.1)
    data = resample(open_store(tmp_path / "store"))
    np.testing.assert_array_equal(data.position, episode.position)
    np.testing.assert_allclose(data.rotation, episode.rotation, atol=1e-6)
    np.testing.assert_array_equal(data.keyframe_row, [0, 5, 8, 11])


def test_clouds_are_asked_for_where_there_are_none(tmp_path):
    write_store(tmp_path / "store", 0.1)
    data = resample(open_store(tmp_path / "store"))
    with pytest.raises(UserError, match="no cloud column"):
        WindowSampler(data, **{**OPTIONS, "with_cloud": True})


def meaningful(windows):
    """The columns but for the store, with zeros for rows that mean nothing."""
    columns = windows._asdict()
    del columns["dataset"]
    for name, count in (("history", windows.steps), ("plan", windows.waypoint_count)):
        inside = np.arange(columns[name].shape[1]) < count[:, None]
        columns[name] = np.where(inside[..., None], columns[name], 0)
    return columns


PROBABILITY = (0.62, 0.05, 0.33)


def three_stores():
    """Stores of 46, 300 and 12 frames, of which one records no rotation and one no gripper."""
    one, many, few = (
        random_trajectories(seed, lengths)
        for seed, lengths in ((0, (9, 23, 14)), (1, (60,) * 5), (2, (12,)))
    )
    return one, replace(many, recorded=(False, True)), replace(few, recorded=(True, False))


def mixed(stores, probability=PROBABILITY, **options):
    return WindowSampler(*stores, probability=probability, **{**OPTIONS, **options})


def test_stores_are_drawn_by_their_probability_and_frames_evenly_within():
    stores = three_stores()
    sampler = mixed(stores, contact_weight=1.0)
    rows = np.concatenate([sampler.rows(0, step, 10_000) for step in range(40)])
    counts = np.bincount(rows, minlength=sum(len(store.position) for store in stores))
    first, chosen, expected = 0, [], []
    for store, probability in zip(stores, PROBABILITY, strict=True):
        own = counts[first : first + len(store.position)]
        first += len(store.position)
        drawable = np.ones(len(own), bool)
        drawable[store.offsets[1:] - 1] = False
        assert not own[~drawable].any() and drawable.sum() == store.num_windows
        even = np.full(store.num_windows, len(rows) * probability / store.num_windows)
        chosen.append(own[drawable])
        expected.append(even)
    totals = np.array([part.sum() for part in chosen]), len(rows) * np.array(PROBABILITY)
    for seen, wanted in (totals, (np.concatenate(chosen), np.concatenate(expected))):
        square = np.sum((seen - wanted) ** 2 / wanted)
        freedom = len(seen) - 1
        assert square < freedom + 5 * np.sqrt(2 * freedom)


def test_a_window_of_a_mixture_is_that_of_its_store():
    stores = three_stores()
    sampler = mixed(stores, with_cloud=True)
    rows = sampler.rows(0, 0, 64)
    batch = sampler.gather(rows)
    first = 0
    for store in stores:
        here = np.flatnonzero((rows >= first) & (rows < first + len(store.position)))
        own = WindowSampler(store, **{**OPTIONS, "with_cloud": True}).gather(rows[here] - first)
        for name, values in meaningful(own).items():
            np.testing.assert_array_equal(meaningful(batch)[name][here], values, err_msg=name)
        assert (batch.recorded[here] == store.recorded).all()
        first += len(store.position)


def test_a_mixture_of_one_store_draws_what_the_store_alone_does():
    store = random_trajectories(0)
    alone, mixture = WindowSampler(store, **OPTIONS), mixed([store], [1.0])
    for step in range(5):
        np.testing.assert_array_equal(mixture.rows(3, step, 64), alone.rows(3, step, 64))


def test_four_hosts_share_the_batches_of_one():
    whole = stream(mixed(three_stores()), seed=3, batch_size=16, first_step=0)
    parts = [
        stream(mixed(three_stores()), seed=3, batch_size=16, first_step=0, shard=i, num_shards=4)
        for i in range(4)
    ]
    for _ in range(3):
        pieces = [next(part) for part in parts]
        for name, values in next(whole)._asdict().items():
            if values is not None:
                joined = np.concatenate([getattr(piece, name) for piece in pieces])
                np.testing.assert_array_equal(joined, values, err_msg=name)


def test_stores_without_clouds_or_windows_are_named():
    one, many, few = three_stores()
    few = replace(few, cloud=None, name="stores/few")
    with pytest.raises(UserError, match="no cloud column in stores/few,"):
        mixed((one, many, few), with_cloud=True)
    still = replace(random_trajectories(0, (4, 4)), offsets=np.arange(9), name="stores/still")
    with pytest.raises(UserError, match="two frames at 10 Hz in stores/still$"):
        mixed((one, still), (0.5, 0.5))


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (None, (True, True)),
        ({"rotation": "full", "gripper": False}, (True, False)),
        ({"rotation": "yaw", "gripper": True}, (True, True)),
        ({"rotation": "none", "gripper": True}, (False, True)),
    ],
)
def test_what_is_recorded_comes_from_the_manifest(tmp_path, recorded, expected):
    write_store(tmp_path / "store", 0.1, **({} if recorded is None else {"recorded": recorded}))
    data = resample(open_store(tmp_path / "store"))
    assert data.recorded == expected
    batch = WindowSampler(data, **OPTIONS).gather(np.arange(3))
    assert batch.recorded.tolist() == [list(expected)] * 3
