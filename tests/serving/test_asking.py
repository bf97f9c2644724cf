"""A planner behind the server: when it is asked, and what the arm does meanwhile."""

import numpy as np
import pytest

from bridgeact_jax.serving.asking import AT_ONCE
from bridgeact_jax.serving.client import Client, ServerError
from bridgeact_jax.serving.server import serving
from tests.serving.talk import (
    HOME,
    OBSERVATION,
    PATIENT,
    PLAN,
    POSE,
    SEEN,
    Thinker,
    address,
    wait_for,
)


def test_the_planner_is_asked_when_the_prompt_changes_and_the_arm_waits(engine):
    thinker = Thinker()
    with serving(engine, PATIENT, thinker) as server, Client(address(server)) as client:
        assert client.metadata["plans"]
        for _ in range(3):
            answer = client.infer({**SEEN, "prompt": "lift"})
            assert answer["status"] == "planning"
            assert answer["actions"] == pytest.approx(np.tile(POSE, (8, 1)))
        thinker.may.set()
        wait_for(lambda: client.infer({**SEEN, "prompt": "lift"})["status"] == "ok")
        assert client.infer({**SEEN, "prompt": "lift"})["length"] == pytest.approx(
            np.linalg.norm(HOME - [0.5, 0, 0.1]) + 0.02, abs=2e-3
        )
        assert len(thinker.asked) == 1
        thinker.may.clear()
        assert client.infer({**SEEN, "prompt": "impossible"})["status"] == "planning"
        thinker.may.set()
        wait_for(lambda: client.infer({**SEEN, "prompt": "impossible"})["status"] == "no_plan")
        answer = client.infer({**SEEN, "prompt": "impossible"})
        assert answer["message"] == "there is no way" and len(answer["actions"]) == 8
        assert len(thinker.asked) == 2
        with pytest.raises(ServerError, match="no plan: there is no way"):
            client.plan({**SEEN, "prompt": "impossible"})
        plan = client.plan({**SEEN, "prompt": "lift"})
        assert plan["position"] == pytest.approx(np.float32([[0.5, 0, 0.1]]))


def test_what_the_planner_needs_is_asked_for(engine):
    with serving(engine, PATIENT, Thinker()) as server, Client(address(server)) as client:
        with pytest.raises(ServerError, match="no 'image'"):
            client.infer({**{k: v for k, v in SEEN.items() if k != "image"}, "prompt": "lift"})
        with pytest.raises(ServerError, match="no 'depth'"):
            client.infer({**OBSERVATION, "prompt": "lift"})


def test_a_plan_request_that_fails_does_not_count_as_asked(engine):
    blind = {key: value for key, value in SEEN.items() if key != "image"}
    with serving(engine, PATIENT, Thinker()) as server, Client(address(server)) as client:
        with pytest.raises(ServerError, match="no 'image'"):
            client.plan({**blind, "prompt": "lift"})
        assert client.infer({**SEEN, "prompt": "lift"})["status"] == "planning"


def test_the_prompt_of_a_plan_that_was_sent_is_not_asked_again(engine):
    thinker = Thinker()
    with serving(engine, PATIENT, thinker) as server, Client(address(server)) as client:
        assert client.infer({**SEEN, "plan": PLAN, "prompt": "lift"})["status"] == "ok"
        assert client.infer({**SEEN, "prompt": "lift"})["status"] == "ok"
        assert not thinker.asked


def test_prompt_after_prompt_does_not_start_thread_after_thread(engine):
    thinker = Thinker()
    with serving(engine, PATIENT, thinker) as server, Client(address(server)) as client:
        for number in range(3 * AT_ONCE):
            client.infer({**SEEN, "prompt": f"lift {number}"})
        wait_for(lambda: len(thinker.asked) == AT_ONCE)
        thinker.may.set()
        wait_for(lambda: client.infer({**SEEN, "prompt": f"lift {number}"})["status"] == "ok")
        assert len(thinker.asked) <= AT_ONCE + 1
