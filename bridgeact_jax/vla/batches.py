"""Batches of both kinds of samples, each a pure function of (seed, step); NumPy only.

Texts are tokenised once, when a run starts. Samples are numbered through: image-text first, then
the robot's frames that have a next one.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.models.observation import PAST
from bridgeact_jax.vla.folders import ImageText, RobotEpisodes
from bridgeact_jax.vla.sizes import VlaConfig
from bridgeact_jax.vla.tokenizer import PAD, sample_tokens

TRAINING = "train"  # the split of robot episodes that is learned from
KEPT = "knowledge"  # the kind of image-text that is never learned from
POSE = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)  # of an image-text sample, which has none


class Samples(NamedTuple):
    """A batch. pictures (B, H, W, 3) uint8; tokens (B, T), prompt_length and length (B,) int32;
    robot (B,) bool, of which kind a sample is.

    Of robot samples, base frame: past (B, PAST + 1, 7) poses, oldest first, the current one last;
    command (B,) last sent and gripper_width (B,) now, NaN where not measured; future (B, H, 8) the
    following poses, 0.1 s apart, each with the command sent on the way there; future_mask (B, H):
    False past the end of the episode, where the last pose repeats.
    """

    pictures: np.ndarray
    tokens: np.ndarray
    prompt_length: np.ndarray
    length: np.ndarray
    robot: np.ndarray
    past: np.ndarray
    command: np.ndarray
    gripper_width: np.ndarray
    future: np.ndarray
    future_mask: np.ndarray


class _Texts(NamedTuple):
    tokens: np.ndarray
    prompt_length: np.ndarray
    length: np.ndarray


class Sampler:
    """Draws and gathers samples.

    Args:
      imagetext, robot: folders; of robot episodes those of the split `TRAINING`. At least one of
        the kinds that `robot_share` asks for.
      robot_share: of each batch; its rows are spread evenly.

    Raises UserError for pictures of another size than the model's, and for text that is too long or
    not in the vocabulary.
    """

    def __init__(
        self,
        imagetext: Sequence[ImageText],
        robot: Sequence[RobotEpisodes],
        model: VlaConfig,
        robot_share: float,
    ):
        for folder in (*imagetext, *robot):
            if folder.pictures.shape[1:3] != tuple(model.picture):
                raise UserError(
                    f"{folder.path}: pictures of {folder.pictures.shape[1:3]}: the model takes "
                    f"config.model.picture = {tuple(model.picture)}"
                )
            if folder.manifest.get("options", {}).get("kind") == KEPT:
                raise UserError(f"{folder.path}: the {KEPT} test, which no training may see")
        self._model, self._share = model, robot_share
        self._folders = (*imagetext, *robot)
        self._names = [folder.path.name for folder in self._folders]
        pairs = [
            (folder.path, question, answer)
            for folder in imagetext
            for question, answer in zip(folder.questions, folder.answers, strict=True)
        ]
        episodes = [
            (number, episode)
            for number, folder in enumerate(robot)
            for episode in folder.episodes
            if episode["split"] == TRAINING and episode["length"] > 1
        ]
        self._images = len(pairs)
        pairs += [(robot[n].path, e["instruction"], e["reasoning"]) for n, e in episodes]
        self._texts = _tokenised(pairs, model.text_length)
        self._picture_ends = np.cumsum([len(folder.pictures) for folder in self._folders])
        self._load_motion(robot, episodes)
        if robot_share < 1 and not self._images:
            raise UserError("there are no image-text samples to learn from")
        if robot_share > 0 and not len(self._frame):
            raise UserError(
                f"there are no robot episodes of the split '{TRAINING}' and of two frames or more "
                "to learn from"
            )
        self._draw(np.ones(len(pairs), bool))

    def _load_motion(
        self, robot: Sequence[RobotEpisodes], episodes: Sequence[tuple[int, dict]]
    ) -> None:
        """Columns of all robot folders in turn, and of each sample its frame and episode."""
        poses = [np.concatenate([f.position, f.rotation], axis=1) for f in robot]
        self._pose = _joined(poses, 7)
        self._gripper = _joined([folder.gripper for folder in robot])
        self._width = _joined([folder.gripper_width for folder in robot])
        offset = np.cumsum([0, *(len(pose) for pose in poses)])
        self._first = np.array([offset[n] + e["first"] for n, e in episodes], np.int64)
        lengths = np.array([e["length"] for _, e in episodes], np.int64)
        self._last = self._first + lengths - 1
        self._episode = np.repeat(np.arange(len(episodes)), lengths - 1)
        before = np.cumsum(lengths - 1) - (lengths - 1)  # samples of earlier episodes
        self._frame = np.arange(len(self._episode)) + (self._first - before)[self._episode]

    def _draw(self, texts: np.ndarray) -> None:
        """Draw from the samples of some texts alone, (N,) bool: questions, and then episodes."""
        images, episodes = np.split(texts, [self._images])
        self._pools = np.flatnonzero(images), self._images + np.flatnonzero(episodes[self._episode])

    def split(self, share: float, seed: int) -> tuple["Sampler", "Sampler | None"]:
        """One that draws from most questions and episodes, and one from the held-out rest.

        Of each kind the nearest whole number to `share`, but at least one and never all, drawn by
        `seed`; with a share of zero none, and nothing in its place.
        """
        kept = np.zeros(len(self._texts.length), bool)
        if share == 0:
            return self, None
        for kind, part in enumerate(np.split(np.arange(len(kept)), [self._images])):
            count = min(max(round(share * len(part)), 1), len(part) - 1)
            kept[np.random.default_rng((seed, kind)).permutation(part)[: max(count, 0)]] = True
        if not kept.any():
            return self, None
        training, held_out = copy.copy(self), copy.copy(self)
        training._draw(~kept)
        held_out._draw(kept)
        return training, held_out

    def __str__(self) -> str:
        images, frames = (len(pool) for pool in self._pools)
        return f"{images:,} image-text samples and {frames:,} robot frames"

    def rows(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """(batch_size,) samples drawn for a step, with replacement."""
        uniform = np.random.default_rng((seed, step)).random(batch_size)
        images, frames = self._pools
        share = self._share if len(images) and len(frames) else float(len(frames) > 0)
        robot = np.diff(np.floor(np.arange(batch_size + 1) * share + 1e-9)) > 0
        drawn = np.empty(batch_size, np.int64)
        for pool, here in ((images, ~robot), (frames, robot)):
            if here.any():
                drawn[here] = pool[(uniform[here] * len(pool)).astype(np.int64)]
        return drawn

    def locate(self, rows: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Folder, its picture or frame, and 0, of each of `rows` (B,)."""
        picture = self._picture(rows)
        folder = np.searchsorted(self._picture_ends, picture, side="right")
        starts = np.concatenate([[0], self._picture_ends])[folder]
        return [self._names[n] for n in folder], picture - starts, np.zeros(len(rows), np.int64)

    def gather(self, rows: np.ndarray) -> Samples:
        """The samples `rows` (B,)."""
        robot = rows >= self._images
        text = rows.copy()
        which = rows[robot] - self._images
        episode, frame = self._episode[which], self._frame[which]
        text[robot] = self._images + episode
        first, last = self._first[episode][:, None], self._last[episode][:, None]

        horizon = self._model.horizon
        batch = len(rows)
        past = np.tile(np.float32(POSE), (batch, PAST + 1, 1))
        future = np.tile(np.float32((*POSE, 1.0)), (batch, horizon, 1))
        mask = np.zeros((batch, horizon), bool)
        command, width = np.ones(batch, np.float32), np.full(batch, np.nan, np.float32)
        before = np.maximum(frame[:, None] + np.arange(-PAST, 1), first)
        past[robot] = self._pose[before]
        command[robot] = self._gripper[np.maximum(frame - 1, first[:, 0])]
        width[robot] = self._width[frame]
        ahead = frame[:, None] + 1 + np.arange(horizon)
        future[robot, :, :7] = self._pose[np.minimum(ahead, last)]
        future[robot, :, 7] = self._gripper[np.minimum(ahead - 1, last)]
        mask[robot] = ahead <= last
        return Samples(
            self._gather_pictures(rows),
            *(column[text] for column in self._texts),
            robot, past, command, width, future, mask,
        )  # fmt: skip

    def _picture(self, rows: np.ndarray) -> np.ndarray:
        """(B,) the picture of each sample, counted through all folders."""
        picture = rows.copy()
        robot = rows >= self._images
        picture[robot] = self._images + self._frame[rows[robot] - self._images]
        return picture

    def _gather_pictures(self, rows: np.ndarray) -> np.ndarray:
        picture = self._picture(rows)
        folder = np.searchsorted(self._picture_ends, picture, side="right")
        pictures = np.empty((len(rows), *self._model.picture, 3), np.uint8)
        for number in np.unique(folder):
            here = folder == number
            start = self._picture_ends[number] - len(self._folders[number].pictures)
            pictures[here] = self._folders[number].pictures[picture[here] - start]
        return pictures


def _joined(columns: Sequence[np.ndarray], *shape: int) -> np.ndarray:
    """The columns of all folders in turn, float32 (N, *shape), also where there are none."""
    return np.concatenate([np.zeros((0, *shape), np.float32), *columns], dtype=np.float32)


def finite_samples(samples: Samples) -> np.ndarray:
    """(B,) bool: whether a sample's numbers are finite. An unmeasured gripper width is NaN."""
    columns = samples.past, samples.future, samples.command[:, None]
    finite = [np.isfinite(column.reshape(len(column), -1)).all(axis=1) for column in columns]
    return np.logical_and.reduce(finite)


def _tokenised(texts: Sequence[tuple], limit: int) -> _Texts:
    """The tokens of (folder, prompt, answer), each padded to `limit`."""
    tokens = np.full((len(texts), limit), PAD, np.int32)
    prompt_length, length = np.zeros((2, len(texts)), np.int32)
    for number, (path, prompt, answer) in enumerate(texts):
        try:
            ids, prompt_length[number] = sample_tokens(prompt, answer, limit)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        tokens[number, : len(ids)], length[number] = ids, len(ids)
    return _Texts(tokens, prompt_length, length)
