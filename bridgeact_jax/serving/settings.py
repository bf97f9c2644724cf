"""How to serve: limits, deadlines and the door."""

from dataclasses import dataclass, field

from bridgeact_jax.evaluation.policies import EXECUTE
from bridgeact_jax.serving.limiter import Limits
from bridgeact_jax.sim.environment import SAFE_HIGH, SAFE_LOW

LIMITS = Limits(tuple(SAFE_LOW), tuple(SAFE_HIGH), speed=0.6, acceleration=5.0, rotation_rate=2.5)


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
      token: what clients must know; None lets everybody in.
      limits: of all that is answered.
      execute: control steps after which a new chunk is sampled.
      deadline: seconds from a message's receipt to its answer.
      oldest: seconds from measuring to sending, by the client's clock.
      max_clients: at a time.
      max_message: bytes of a message.
      write_timeout: seconds that a client may take to read.
      seed: of the samples of clients that name none.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    limits: Limits = LIMITS
    execute: int = EXECUTE
    deadline: float = 0.2
    oldest: float = 0.5
    max_clients: int = 16
    max_message: int = 8 << 20
    write_timeout: float = 2.0
    seed: int = 0
