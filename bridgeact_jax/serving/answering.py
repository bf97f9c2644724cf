"""Requests of several sessions answered in one computation."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from bridgeact_jax.errors import UserError
from bridgeact_jax.serving.engine import Engine, key_data
from bridgeact_jax.serving.metrics import Stopwatch
from bridgeact_jax.serving.observations import Request
from bridgeact_jax.serving.sessions import Session, Stale, Step

NO_PLAN = (
    "no plan: send 'plan', or 'prompt' to a server that was started with --planner=remote or file"
)


class Job(NamedTuple):
    """A request to a session: to act, or to reset.

    heard: whether the last answer reached the client. standing: whether to stand still, without a
    plan. oldest: as `Session.check_time` has it.
    """

    session: Session
    request: Request
    watch: Stopwatch
    heard: bool = True
    standing: bool = False
    oldest: float = np.inf


def answer(engine: Engine, jobs: Sequence[Job]) -> list[Step | Exception | None]:
    """What each job comes to, in order; the chunks that are due are sampled together.

    What is wrong with one job is its result (`Stale`, `UserError`) and touches no other.
    """
    results: list[Step | Exception | None] = [None] * len(jobs)
    acting, inputs = [], {}
    for i, (session, request, watch, heard, standing, oldest) in enumerate(jobs):
        if request.kind == "reset":
            session.reset(None if request.seed is None else key_data(request.seed))
            continue
        try:
            session.check_time(request, oldest)
            with watch.part("track"):
                if standing:
                    session.drop_plan()
                session.observe(request, heard=heard)
            if not (standing or session.planned):
                raise UserError(NO_PLAN)
            if session.due:
                with watch.part("crop"):
                    inputs[i] = session.inputs(request)
            acting.append(i)
        except (Stale, UserError) as error:
            results[i] = error.with_traceback(None)  # which knows the messages of all
        except Exception as error:  # whatever one client sends, the others get their answers
            results[i] = error
    if inputs:
        with ExitStack() as stack:
            for i in inputs:
                stack.enter_context(jobs[i].watch.part("sample"))
            chunks = engine.act(list(inputs.values()))
        for i, chunk in zip(inputs, chunks, strict=True):
            jobs[i].session.accept(chunk)
    for i in acting:
        try:
            with jobs[i].watch.part("limit"):
                results[i] = jobs[i].session.answer(jobs[i].request)
        except Exception as error:
            results[i] = error
    return results
