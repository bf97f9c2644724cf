"""What can be made harder in the world and its sensors, one number for each axis."""

from dataclasses import dataclass, field, fields

from bridgeact_jax.errors import UsageError


def _axis(help_text: str, sweep: tuple, *, sensing: bool = False):
    """A field whose first sweep value, zero, is its default and tells its type."""
    metadata = {"help": help_text, "sweep": sweep, "sensing": sensing}
    return field(default=sweep[0], metadata=metadata)


@dataclass(frozen=True)
class Disturbance:
    """How an episode departs from the calm world; zero turns an axis off.

    An axis draws from streams of its own, so that an episode's layout stays as it is when it is
    turned on. Raises UsageError for values that make no sense. A field's metadata holds its `help`
    text, the values of its `sweep`, and whether it is `sensing` alone: such an axis changes the
    cloud and nothing else.
    """

    sensor_noise: float = _axis(
        "standard deviation of the cloud's points along their camera's ray, m",
        (0.0, 0.002, 0.005, 0.01, 0.02), sensing=True,
    )
    stereo_noise: float = _axis(
        "standard deviation, at one metre, of depth that stereo measures; it grows with the square "
        "of the depth and is shared by neighbouring points, m",
        (0.0, 0.005, 0.01, 0.02, 0.05), sensing=True,
    )
    monocular_error: float = _axis(
        "relative error of depth as of a network that sees one picture: a factor for each camera "
        "that lasts an episode and varies slowly over the picture, root mean square",
        (0.0, 0.01, 0.02, 0.05, 0.1), sensing=True,
    )
    holes: float = _axis(
        "share of each camera's points that is lost, in patches of the picture",
        (0.0, 0.2, 0.4, 0.6, 0.8), sensing=True,
    )
    quantisation: float = _axis(
        "step of the measured depth, m", (0.0, 0.002, 0.005, 0.01, 0.02), sensing=True
    )
    points: int = _axis(
        "number of distinct points in a cloud; 0: all", (0, 1024, 256, 64, 16), sensing=True
    )
    camera_turn: float = _axis(
        "turn of both cameras about the middle of the table, rad",
        (0.0, -0.4, -0.2, 0.2, 0.4), sensing=True,
    )
    camera_shift: float = _axis(
        "sideways shift of both cameras, m", (0.0, -0.1, -0.05, 0.05, 0.1), sensing=True
    )
    target_speed: float = _axis(
        "speed of the target until the robot touches it, m/s", (0.0, 0.005, 0.01, 0.02, 0.03)
    )
    obstacle: int = _axis("1: a post rises on the path while the arm is on its way", (0, 1))
    distractors: int = _axis("number of additional objects on the table", (0, 1, 2, 3, 4))
    latency: int = _axis(
        "control steps of 0.1 s between a command and its effect", (0, 1, 2, 3, 5)
    )

    def __post_init__(self) -> None:
        for axis in fields(self):
            value, most = getattr(self, axis.name), _MAXIMUM[axis.name]
            whole = isinstance(axis.default, int)
            least = -most if axis.name.startswith("camera_") else 0
            if not isinstance(value, int if whole else int | float) or not least <= value <= most:
                kind = "a whole number" if whole else "a number"
                raise UsageError(f"{axis.name}={value}: must be {kind} from {least:g} to {most:g}")

    @property
    def eventful(self) -> bool:
        """Whether something happens or lies in the world that the task did not put there."""
        return bool(self.target_speed or self.obstacle or self.distractors)


_MAXIMUM = {
    "sensor_noise": 0.1, "stereo_noise": 0.1, "monocular_error": 0.3, "holes": 0.95,
    "quantisation": 0.1, "points": 2048, "camera_turn": 0.8, "camera_shift": 0.3,
    "target_speed": 0.1, "obstacle": 1, "distractors": 4, "latency": 10,
}
CALM = Disturbance()
