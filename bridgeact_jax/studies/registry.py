"""Every study by name, in the order of the document."""

from bridgeact_jax.errors import UsageError, nearest
from bridgeact_jax.studies.plans import PLANNER_NOISE, SAMPLER
from bridgeact_jax.studies.reasoning import CHATVLA2, CHATVLA2_STAGES, PLANNER_SFT
from bridgeact_jax.studies.sensing import CAMERA, DEPTH
from bridgeact_jax.studies.study import Study
from bridgeact_jax.studies.trained import APPF, DATA_SCALE, NOISE
from bridgeact_jax.studies.worlds import CLUTTER, EMBODIMENT, MOVING_TARGET, OBSTACLE

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        APPF, NOISE, PLANNER_NOISE, DEPTH, MOVING_TARGET, OBSTACLE, EMBODIMENT, CAMERA, CLUTTER,
        SAMPLER, DATA_SCALE, CHATVLA2, CHATVLA2_STAGES, PLANNER_SFT,
    )
}


def find_study(name: str) -> Study:
    """The study called `name`. Raises UsageError, with the nearest name, if there is none."""
    if name not in STUDIES:
        raise UsageError(f"experiment: unknown study '{name}': {nearest(name, STUDIES)}")
    return STUDIES[name]
