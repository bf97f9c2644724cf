"""ChatVLA-2 in closed loop: it looks, thinks once in words, and acts on what it has thought."""

from collections.abc import Callable, Sequence
from functools import cache

import jax
import numpy as np

from bridgeact_jax.evaluation import closed_loop
from bridgeact_jax.evaluation.policies import ChunkPolicy, measured
from bridgeact_jax.evaluation.thinking import Said
from bridgeact_jax.models.observation import absolute
from bridgeact_jax.sim.environment import Observation
from bridgeact_jax.vla.act import act
from bridgeact_jax.vla.checkpoint import load_vla
from bridgeact_jax.vla.model import Vla
from bridgeact_jax.vla.reasoning import ReasoningError, parse
from bridgeact_jax.vla.speaker import Speaker, said


class ChatVlaPolicy(ChunkPolicy):
    """The model's own action head, which sees the picture of the camera in front of the table.

    What it says at the start stands for the whole episode; every chunk is of a new picture. The
    head follows the features of the words, so that it acts also on words that are no thought.
    """

    def __init__(
        self,
        checkpoint: str,
        instructions: Sequence[str],
        pictures: Sequence[np.ndarray],
        observations: list[Observation],
        keys: jax.Array,
    ):
        """`pictures` (H, W, 3) uint8 of the start; `checkpoint` is a run's workdir."""
        opened = np.ones(len(pictures), np.float32)
        super().__init__(keys, opened)
        self._vla, self._pictures = _loaded(checkpoint), np.stack(pictures)
        speaker = Speaker(self._vla, batch=len(pictures))
        self._texts = speaker.speak(self._pictures, instructions, robot=True)
        position, rotation, width = measured(observations)
        self._arm = closed_loop.at_rest(position, rotation, opened, width)

    def said(self) -> list[Said]:
        """What was said before each arm moved."""
        return [Said(words, int(not _is_thought(words))) for words in said(self._texts)]

    def _track(self, position, rotation, width, command):
        self._arm = closed_loop.moved(self._arm, position, rotation, command, width)

    def _sample(self, fresh: np.ndarray, see: Callable, keys: jax.Array):
        for i in np.flatnonzero(fresh):
            picture = see(i)
            if picture is not None:
                self._pictures[i] = picture
        chunks = act(*self._vla, self._pictures, self._texts, self._arm, keys)
        return _in_base(chunks, self._arm.position[:, -1], self._arm.rotation[:, -1])


@cache
def _loaded(checkpoint: str) -> Vla:
    model, *saved = load_vla(checkpoint)
    # Where everything else of the rollouts is, which need not be where checkpoints are loaded.
    return Vla(model, *jax.tree.map(jax.numpy.asarray, jax.device_get(saved)))


def _is_thought(words: str) -> bool:
    try:
        parse(words)
    except ReasoningError:
        return False
    return True


_in_base = jax.jit(jax.vmap(absolute))
