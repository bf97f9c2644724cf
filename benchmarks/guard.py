"""How many wrong plans the guard catches, how many good ones it refuses, and what that costs.

    JAX_PLATFORMS=cpu python benchmarks/guard.py [--episodes=20] [--arm=panda] [--sensor_noise=0.0]

For each of the twelve tasks and each episode: the exact plan, the plan with 2 cm and 3 cm of noise
on every waypoint and axis, one plan of each wrong kind, off_object with all waypoints over that
place moved along, and the exact plan for the wrong object where the task has a twin, which geometry
alone cannot tell. One JSON line per kind of plan: plans,
refused, share, by which objections (the first of each plan), by task. The last line holds the
milliseconds of a judgement.
"""

import argparse
import json
import time
from collections import Counter, defaultdict

import jax
import numpy as np

from bridgeact_jax.geometry.guidance import Waypoints
from bridgeact_jax.planning.guard import Guard, Limits
from bridgeact_jax.planning.oracle import EXACT, KINDS, PlannerErrors, oracle_plan
from bridgeact_jax.sim import kinematics
from bridgeact_jax.sim.disturbances import Disturbance
from bridgeact_jax.sim.environment import SAFE_HIGH, SAFE_LOW, Environment
from bridgeact_jax.sim.follower import pad
from bridgeact_jax.sim.tasks import TASKS

PLANS = {
    "exact": EXACT,
    "noise 2 cm": PlannerErrors(waypoint_noise=0.02),
    "noise 3 cm": PlannerErrors(waypoint_noise=0.03),
} | {kind: PlannerErrors(wrong_waypoint=kind) for kind in KINDS}
OF_THING = 0.015  # metres from a thing's middle, horizontally, of the waypoints that belong to it


def for_twin(env: Environment, plan: Waypoints) -> Waypoints | None:
    """The plan with a thing's twin in the thing's place; None where that changes nothing."""
    position, rotation = plan.position.copy(), plan.rotation.copy()
    for twin, thing in env.task.twins.items():
        here, there = env.layout[thing], env.layout[twin]
        mine = np.linalg.norm(plan.position[:, :2] - here.xy, axis=1) < OF_THING
        position[mine, :2] += (there.xy - here.xy).astype(np.float32)
        half = (there.yaw - here.yaw) / 2
        turn = np.array([np.cos(half), 0.0, 0.0, np.sin(half)], np.float32)
        w, z = turn[0], turn[3]
        a, b, c, d = rotation[mine].T
        rotation[mine] = np.stack([w * a - z * d, w * b - z * c, w * c + z * b, w * d + z * a], 1)
    changed = np.any(position != plan.position)
    return plan._replace(position=position, rotation=rotation) if changed else None


def moved_along(truth: Waypoints, wrong: Waypoints) -> Waypoints:
    """The wrong plan with the waypoints over its misplaced one as far beside as that is."""
    by = wrong.position - truth.position
    worst = np.argmax(np.linalg.norm(by, axis=1))
    aside = np.linalg.norm((truth.position - truth.position[worst])[:, :2], axis=1)
    mine = (aside < OF_THING) & (np.arange(len(aside)) > 0)
    return truth._replace(position=truth.position + np.where(mine[:, None], by[worst], 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--arm", default="panda")
    parser.add_argument("--sensor_noise", type=float, default=0.0)
    options = parser.parse_args()
    refused, why = defaultdict(lambda: defaultdict(list)), defaultdict(Counter)
    taken = []
    for number, task in enumerate(TASKS):
        world = Disturbance(sensor_noise=options.sensor_noise)
        env = Environment(task, arm=options.arm, disturbance=world)
        limits = Limits(SAFE_LOW, SAFE_HIGH, env.arm.max_joint_speed)
        guard = Guard(limits, kinematics.shared(options.arm).follow)
        for episode in range(options.episodes):
            env.reset(0, episode)
            truth, cloud = pad(env.waypoints()), env.cloud()
            key = jax.random.fold_in(jax.random.key(number), episode)
            plans = {
                name: oracle_plan(key, truth, errors, camera=env.cameras[0])
                for name, errors in PLANS.items()
            }
            plans["off_object, moved along"] = moved_along(truth, plans["off_object"])
            plans["wrong object"] = for_twin(env, truth)
            for name, plan in plans.items():
                if plan is None:
                    continue
                start = time.perf_counter()
                verdict = guard.judge(plan, cloud)
                taken.append(1e3 * (time.perf_counter() - start))
                refused[name][task].append(bool(verdict))
                if verdict:
                    why[name][verdict[0].kind] += 1
    for name, tasks in refused.items():
        print(line(name, tasks, why[name]))
    wrong = {task: sum((refused[kind][task] for kind in KINDS), []) for task in TASKS}
    print(line("wrong, all six kinds", wrong, sum((why[kind] for kind in KINDS), Counter())))
    median, slow = np.percentile(taken[5:], [50, 95])
    print(json.dumps({"p50_ms": round(median, 1), "p95_ms": round(slow, 1)}))


def line(name: str, tasks: dict[str, list[bool]], why: Counter) -> str:
    """One row of the result."""
    every = sum(tasks.values(), [])
    return json.dumps({
        "plans": name, "count": len(every), "refused": sum(every),
        "share": round(float(np.mean(every)), 4), "first_objection": dict(why.most_common()),
        "by_task": {task: sum(verdicts) for task, verdicts in tasks.items()},
    })


if __name__ == "__main__":
    main()
