"""A planner that looks and reasons: a model that `bridgeact train-vla` trained.

The model thinks in words that end in waypoints, in the base frame. Words that cannot be parsed are
counted in `usage` and asked for once more, then drawn at `SECOND_TEMPERATURE` from a seed that
follows from what is asked, since the likeliest words would be the same again. If those cannot be
parsed either there is no plan, and the arm stays where it is.
"""

import hashlib
import json
import os
import time
from dataclasses import replace

import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning import lines
from bridgeact_jax.planning.protocol import Plan, PlanningError, PlanRequest, plan_of_waypoints
from bridgeact_jax.planning.recorded import request_name
from bridgeact_jax.vla.reasoning import ReasoningError, parse_waypoints
from bridgeact_jax.vla.speaker import Speaker

SECOND_TEMPERATURE = 0.5


class LearnedPlanner:
    """Plans with a model, which looks at the last view; that is of the size of its pictures.

    `transcript` is a file to which all that is said is appended, one JSON line an answer.
    """

    def __init__(self, speaker: Speaker, transcript: str | os.PathLike | None = None):
        self._speaker, self._transcript = speaker, transcript

    def plan(self, request: PlanRequest) -> Plan:
        """The model's plan; `words` are its reasoning, `usage` holds "seconds", "queries" and
        "unparsable".

        Raises PlanningError if it cannot take what is asked, or none of its answers is a plan.
        """
        usage, start = {"seconds": 0.0, "queries": 0, "unparsable": 0}, time.perf_counter()
        name = request_name(request)
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        for temperature in (0.0, SECOND_TEMPERATURE):
            try:
                [words] = self._speaker.say(
                    request.views[-1].picture[None],
                    [request.instruction],
                    robot=True,
                    temperature=temperature,
                    seed=seed,
                )
            except UserError as error:
                raise PlanningError(str(error), usage) from None
            usage["queries"] += 1
            usage["seconds"] = time.perf_counter() - start
            if self._transcript is not None:
                said = {"request": name, "instruction": request.instruction}
                said |= {"temperature": temperature, "seed": seed, "words": words}
                lines.append(self._transcript, json.dumps(said))
            try:
                waypoints = parse_waypoints(words)
            except ReasoningError as error:
                usage["unparsable"] += 1
                complaint = f"{error} ('{words}')"
                continue
            plan = plan_of_waypoints(
                _from_here(waypoints, request), request.views[0].camera, words=words
            )
            return replace(plan, usage=usage)
        raise PlanningError(f"the model gave no plan, asked twice: {complaint}", usage, words)


def _from_here(waypoints: Waypoints, request: PlanRequest) -> Waypoints:
    """The waypoints with the tool's pose before them."""
    first = request.position, request.rotation, request.gripper
    columns = (
        np.concatenate([[here], column]).astype(np.float32)
        for here, column in zip(first, waypoints[:3], strict=True)
    )
    return Waypoints(*columns, np.asarray(int(waypoints.count) + 1))
