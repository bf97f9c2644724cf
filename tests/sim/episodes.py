"""Episodes for tests: environments made once, and a plan followed by the clock."""

import functools

from bridgeact_jax.sim.environment import Environment
from bridgeact_jax.sim.follower import guidance_of, time_guidance

SEED = 5


@functools.cache
def environment(task):
    """The task's environment, shared by a module's tests: every test resets it."""
    return Environment(task)


def started(task, episode=0, seed=SEED):
    """The task's environment at the start of an episode."""
    env = environment(task)
    env.reset(seed, episode)
    return env


def follow(env, plan, *, steps=None, speed=0.2):
    """Follow a plan until the episode is done; with `steps`, for so many steps at most."""
    targets = list(zip(*time_guidance(guidance_of(plan), speed=speed), strict=True))
    for i in range(steps or 10_000):
        if env.done:
            break
        env.step(*targets[min(i, len(targets) - 1)])
