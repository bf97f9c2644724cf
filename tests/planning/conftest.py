"""A request whose geometry is known in closed form."""

import numpy as np
import pytest

from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.poses import Pose
from bridgeact_jax.planning.protocol import PlanRequest, View

WIDTH, HEIGHT = 60, 40
DEPTH = 0.8  # metres of the plane that the camera looks at squarely
DOWN = (0.0, 1.0, 0.0, 0.0)  # of a camera above the table, x as the base's


@pytest.fixture(scope="session")
def camera() -> Camera:
    """0.8 m above the table, looking straight down."""
    pose = Pose(np.array([0.5, 0.1, DEPTH], np.float32), np.array(DOWN, np.float32))
    return Camera(pose, 50.0, 52.0, 29.5, 19.5)


@pytest.fixture(scope="session")
def view(camera) -> View:
    """A bare table."""
    picture = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    return View(picture, camera, np.full((HEIGHT, WIDTH), DEPTH, np.float32))


@pytest.fixture(scope="session")
def request_(view) -> PlanRequest:
    """The tool points down, 0.3 m above the table."""
    rotation = np.array([0.0, np.cos(0.3), np.sin(0.3), 0.0])
    return PlanRequest((view,), "lift the cube", np.array([0.45, 0.05, 0.3]), rotation, 1.0)
