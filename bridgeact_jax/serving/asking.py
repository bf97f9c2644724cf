"""The server's planner, asked in threads of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from bridgeact_jax.errors import UserError
from bridgeact_jax.geometry.cameras import Camera
from bridgeact_jax.geometry.guidance import is_open
from bridgeact_jax.geometry.poses import Pose
from bridgeact_jax.planning.protocol import Planner, PlanRequest, View, waypoints_of
from bridgeact_jax.serving.observations import KEYS, Poses, Request

AT_ONCE = 4  # questions


class Desk:
    """Asks a planner what requests want; at most `AT_ONCE` at a time."""

    def __init__(self, planner: Planner):
        self._planner, self._free = planner, asyncio.Semaphore(AT_ONCE)

    def ask(self, request: Request) -> Coroutine[Any, Any, Poses]:
        """The poses to pass from the request's on; awaiting them may raise PlanningError.

        Raises UserError at once if something is missing in the request.
        """
        return self._poses(plan_request(request))

    async def _poses(self, asked: PlanRequest) -> Poses:
        def plan() -> Poses:
            waypoints = waypoints_of(self._planner.plan(asked), asked)
            return Poses(*(np.asarray(column[1:]) for column in waypoints[:3]))

        await self._free.acquire()  # until the thread has ended, whoever still waits for it
        return await _in_thread(plan, self._free.release)


def plan_request(request: Request) -> PlanRequest:
    """What a planner is asked. Raises UserError if something is missing in the request."""
    sight = request.sight
    if request.prompt is None:
        raise UserError(f"no 'prompt': must be {KEYS['prompt']}")
    if sight is None or sight.image is None:
        missing = "depth" if sight is None else "image"
        raise UserError(f"the planner is to be asked, but there is no '{missing}'")
    turn = Rotation.from_matrix(sight.T_base_camera[:3, :3]).as_quat(scalar_first=True)
    pose = Pose(sight.T_base_camera[:3, 3].astype(np.float32), turn.astype(np.float32))
    width = 1.0 if np.isnan(request.gripper_width) else request.gripper_width
    return PlanRequest(
        (View(sight.image, Camera(pose, *sight.intrinsics), sight.depth),),
        request.prompt,
        request.position,
        request.rotation,
        float(is_open(width if request.gripper is None else request.gripper)),
    )


async def _in_thread(call: Callable[[], Any], ended: Callable[[], None]) -> Any:
    """What `call` returns or raises, `ended` called then; a thread that nobody waits for goes on to
    its end, or ends with the process.
    """
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def work() -> None:
        try:
            outcome = call(), None
        except Exception as error:  # raised where it is awaited
            outcome = None, error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    def settle(result: Any, error: Exception | None) -> None:
        ended()
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    threading.Thread(target=work, name="planner", daemon=True).start()
    return await future
