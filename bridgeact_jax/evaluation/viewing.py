"""Episodes watched in MuJoCo's viewer, one after the other."""

from collections.abc import Sequence

from bridgeact_jax.evaluation.conditions import Condition
from bridgeact_jax.evaluation.episodes import act, environment
from bridgeact_jax.evaluation.rollouts import jobs_of, run_job
from bridgeact_jax.evaluation.statistics import succeeded
from bridgeact_jax.sim.viewer import watch


def view(condition: Condition, tasks: Sequence[str], episodes: int) -> None:
    """Show `episodes` of each task in real time, until the window is closed.

    An episode is run first, behind the window, and its commands are then sent again. Raises
    UserError without a display.
    """
    for task in tasks:
        env = environment(condition, task)
        for episode in range(episodes):
            (job,) = jobs_of("view", condition, [(task, episode)])
            env.reset(condition.seed, episode)
            with watch(env) as show:
                outcome = run_job(job)
                (record,), (commands,) = outcome.records, outcome.commands
                kind = "success" if succeeded(record) else record["failure_kind"]
                print(f"{task}, episode {episode}: {env.instruction}: {kind}", flush=True)
                for command in commands:
                    act(env, command)
                    if not show():
                        return
