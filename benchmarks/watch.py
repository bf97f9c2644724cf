"""What the watch notices while exact plans are followed to the letter, and what alarms falsely.

    JAX_PLATFORMS=cpu python benchmarks/watch.py [--episodes=5] [--every=2]

Twelve tasks in four worlds: calm, with 5 mm of sensor noise, with a target that drifts at 2 cm/s,
with a post that rises on the way. The arm does not react; a cloud is taken every so many control
steps. One JSON line per world: episodes in which the thing happens, first alarms by kind, and for
the drift how far the target had gone (median, m), for the post how many episodes gave the alarm
before it was struck, and how many struck it without. Last the milliseconds of a step with a cloud.
"""

import argparse
import json
import time
from collections import Counter

import jax
import numpy as np

from bridgeact_jax.geometry.projection import advance
from bridgeact_jax.planning.watch import Alarm, Seen, Watch
from bridgeact_jax.sim.disturbances import CALM, Disturbance
from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import guidance_of, time_guidance
from bridgeact_jax.sim.tasks import TASKS

WORLDS = {
    "calm": CALM,
    "sensor_noise=0.005": Disturbance(sensor_noise=0.005),
    "target_speed=0.02": Disturbance(target_speed=0.02),
    "obstacle=1": Disturbance(obstacle=1),
}
LINGER = 10  # control steps at the end of the curve
_advance = jax.jit(advance)


def first_alarm(env: Environment, episode: int, every: int, taken: list) -> Alarm | None:
    """Follow the exact plan of an episode until the first alarm, its end or the curve's."""
    seen, plan = env.reset(0, episode), env.waypoints()
    guidance = guidance_of(plan)
    targets = list(zip(*time_guidance(guidance), strict=True))
    watch = Watch(plan, env.cloud())
    state, progress = watch.start(), 0.0
    for step in range(len(targets) + LINGER):
        position, rotation, gripper = targets[min(step, len(targets) - 1)]
        seen = env.step(position, rotation, gripper)
        if env.done:
            return None
        opened = float(gripper > 0.5)
        progress = float(_advance(guidance, progress, seen.position, seen.rotation, opened))
        cloud = env.cloud() if (step + 1) % every == 0 else None
        start = time.perf_counter()
        state, alarms = watch.step(state, Seen(*seen[1:], opened, progress, cloud))
        if cloud is not None:
            taken.append(1e3 * (time.perf_counter() - start))
        if alarms:
            return alarms[0]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--every", type=int, default=2)
    options = parser.parse_args()
    taken: list[float] = []
    for name, world in WORLDS.items():
        alarms, gone, count, struck = Counter(), [], 0, 0
        for task in TASKS:
            env = Environment(task, disturbance=world)
            for episode in range(options.episodes):
                alarm = first_alarm(env, episode, options.every, taken)
                drift = env.events and env.events.drift
                obstacle = env.events and env.events.obstacle
                if world.target_speed and not drift:
                    continue
                if world.obstacle and obstacle.spot is None:
                    continue
                count += 1
                alarms[alarm.kind if alarm else "none"] += 1
                if alarm and drift:
                    gone.append(env.time * world.target_speed)
                struck += alarm is None and env.failure_kind == "unsafe"
        print(json.dumps({
            "world": name, "episodes": count, "first_alarm": dict(alarms.most_common()),
            "gone_m": round(float(np.median(gone)), 3) if gone else None,
            "struck_without_alarm": struck,
        }), flush=True)
    median, slow = np.percentile(taken, [50, 95])
    print(json.dumps({"p50_ms": round(median, 1), "p95_ms": round(slow, 1)}))


if __name__ == "__main__":
    main()
