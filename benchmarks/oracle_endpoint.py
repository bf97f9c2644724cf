"""A chat endpoint that answers as a perfect planner, in text: what language costs, and no more.

    python -m benchmarks.oracle_endpoint --suite=all --episodes=10 [--seed=0] [--port=8765]
    bridgeact evaluate --policy=spline --suite=all --episodes=10 --planner=remote \\
      --planner_url=http://127.0.0.1:8765/v1 --planner_model=oracle --out=runs/remote

It knows the evaluation's episodes by their instruction and the tool's pose at the start, as the
prompt says them, and answers both questions with the true waypoints, to three decimals.
"""

import argparse
import threading

import numpy as np

from bridgeact_jax.evaluation.evaluate import suite_tasks
from bridgeact_jax.evaluation.planners import PICTURE
from bridgeact_jax.planning.anchors import anchors_of
from bridgeact_jax.planning.answers import write_anchors, write_plan
from bridgeact_jax.planning.prompts import anchors_text
from bridgeact_jax.planning.protocol import PlanRequest, View, plan_of_waypoints
from bridgeact_jax.sim import rendering
from bridgeact_jax.sim.environment import Environment
from tests.planning.endpoint import Endpoint, asks_for_plan, text_of


class Oracle:
    """Answers messages of `planning.prompts` for the beginnings of these episodes.

    Args:
      episodes: (task, number) of each.
      seed: the evaluation's.
      size: pixels a side of the pictures that it is shown.
    """

    def __init__(self, episodes: list[tuple[str, int]], seed: int = 0, size: int = PICTURE):
        self._answers: dict[str, tuple[str, str]] = {}
        envs = {task: Environment(task) for task, _ in episodes}
        blank = np.zeros((size, size, 3), np.uint8)
        for task, episode in episodes:
            env = envs[task]
            env.reset(seed, episode)
            waypoints = env.waypoints()
            view = View(blank, rendering.camera(env.cameras[0], size))
            request = PlanRequest(
                (view,), env.instruction, waypoints.position[0], waypoints.rotation[0], 1.0
            )
            anchors, _ = anchors_of(waypoints, view)
            plan = plan_of_waypoints(waypoints, view.camera)
            self._answers[_known(anchors_text(request))] = write_anchors(anchors), write_plan(plan)

    def __call__(self, messages: list[dict]) -> str:
        """The answer to the last question. Raises KeyError for an episode it does not know."""
        asked = next(message for message in messages if message["role"] == "user")
        return self._answers[_known(text_of(asked))][asks_for_plan(messages)]


def _known(text: str) -> str:
    """The lines of a first question that tell the episode: what to do, and where the tool is."""
    lines = text.split("\n")
    return "\n".join(line for line in lines if line.startswith(("Task:", "The tool is")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--suite", default="all")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8765)
    args = parser.parse_args()
    tasks = suite_tasks(args.suite)
    oracle = Oracle([(t, e) for t in tasks for e in range(args.episodes)], args.seed)
    with Endpoint(oracle, port=args.port) as endpoint:
        print(f"answering at {endpoint.base_url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
