"""What is said to a server in tests, and a planner that thinks as long as it is told to."""

import threading
import time
import urllib.error
import urllib.request

import numpy as np

from bridgeact_jax.planning.protocol import Plan, PlannedPose, PlanningError
from bridgeact_jax.serving.settings import Settings

DOWN = np.float32([0, 1, 0, 0])
HOME = np.float32([0.5, 0.0, 0.3])
POSE = np.float32([*HOME, *DOWN, 1])
PLAN = {
    "position": np.float32([[0.5, 0.05, 0.2], [0.5, 0.1, 0.1]]),
    "rotation": np.tile(DOWN, (2, 1)),
    "gripper": np.float32([1, 0]),
}
OBSERVATION = {
    "position": HOME,
    "rotation": DOWN,
    "gripper_width": 0.9,
    "cloud": np.random.default_rng(0).normal(HOME, 0.1, (1024, 3)).astype(np.float32),
}
SEEN = {
    **{key: OBSERVATION[key] for key in ("position", "rotation", "gripper_width")},
    "depth": np.full((20, 30), 0.5, np.float32),
    "image": np.zeros((20, 30, 3), np.uint8),
    "intrinsics": np.array([[30, 0, 14.5], [0, 30, 9.5], [0, 0, 1.0]]),
    "camera_pose": np.array([[1, 0, 0, 0.5], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1.0]]),
}
PATIENT = Settings(port=0, deadline=20.0)


def address(server):
    return f"ws://127.0.0.1:{server.port}"


def page(server, path, token=None):
    headers = {} if token is None else {"Authorization": f"Api-Key {token}"}
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    return urllib.request.urlopen(asked, timeout=10).read().decode()


def wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Thinker:
    """Answers a prompt's plan once it may; the prompt "impossible" has none."""

    def __init__(self):
        self.may, self.asked = threading.Event(), []

    def plan(self, request):
        self.asked.append(request)
        assert self.may.wait(20)
        if request.instruction == "impossible":
            raise PlanningError("there is no way")
        return Plan((), PlannedPose((0.0, 0.0, 0.4), 0.0, (1.0, 0.0, 0.0, 0.0)))
