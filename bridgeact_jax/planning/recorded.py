"""Plans that are kept, and the planner that repeats them.

A file of plans has one JSON line for each: {"schema_version", "request": its name, "instruction",
"plan"}. A request's name is its key and how many answers to it were refused before; a request
without key is named by a digest of all that it asks, pictures and depth included.
"""

import hashlib
import json
import os

from bridgeact_jax.errors import UserError, nearest
from bridgeact_jax.planning import lines
from bridgeact_jax.planning.protocol import Plan, PlanningError, PlanRequest
from bridgeact_jax.planning.schemas import SCHEMA_VERSION
from bridgeact_jax.planning.wire import plan_from_json, plan_to_json, request_to_json


def request_name(request: PlanRequest) -> str:
    """What a plan is filed under, e.g. "lift/0/3/0" or, after two refusals, "lift/0/3/0#2"."""
    if not request.key:
        asked = json.dumps(request_to_json(request), sort_keys=True)
        return hashlib.sha256(asked.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{request.key}#{len(request.refused)}" if request.refused else request.key


def line(request: PlanRequest, plan: Plan) -> str:
    """The line of a file of plans, without its end."""
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "request": request_name(request),
            "instruction": request.instruction,
            "plan": plan_to_json(plan),
        }
    )


def read_plans(path: str | os.PathLike) -> dict[str, Plan]:
    """{request's name: plan}; of several for one request the last. Raises UserError."""
    plans = {}
    for number, row in lines.read(path):
        if not isinstance(row, dict) or not isinstance(row.get("request"), str):
            raise UserError(f"{path}: line {number} is no recorded plan")
        try:
            plans[row["request"]] = plan_from_json(row.get("plan"))
        except PlanningError as error:
            raise UserError(f"{path}: line {number}: {error}") from None
    return plans


class FilePlanner:
    """Repeats the plans of a file. Raises UserError if there is no such file."""

    def __init__(self, path: str | os.PathLike):
        self._path, self._plans = path, read_plans(path)

    def plan(self, request: PlanRequest) -> Plan:
        """The plan recorded for the request. Raises PlanningError if there is none."""
        name = request_name(request)
        if name not in self._plans:
            raise PlanningError(
                f"{self._path} has {len(self._plans)} plans but none for '{name}' "
                f"('{request.instruction}'): {nearest(name, self._plans)}"
            )
        return self._plans[name]
