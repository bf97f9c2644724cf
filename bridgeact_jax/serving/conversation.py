"""One client's requests, one after the other, and what they are answered."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from bridgeact_jax.errors import UserError
from bridgeact_jax.planning.protocol import PlanningError, Unreachable
from bridgeact_jax.serving.answering import NO_PLAN, Job
from bridgeact_jax.serving.asking import Desk
from bridgeact_jax.serving.batching import Batcher, Late
from bridgeact_jax.serving.metrics import Metrics, Stopwatch
from bridgeact_jax.serving.observations import Poses, Request
from bridgeact_jax.serving.sessions import Session, Stale, Step

RESET_TIME = 30.0  # seconds that a reset may wait for the inference thread


class Conversation:
    """Answers one client.

    Args:
      desk: the server's planner, None where there is none.
      deadline: seconds from a message's receipt to its answer.
      oldest: seconds from measuring to sending, by the client's clock.
      note: is told of each observation that was acted on.
    """

    def __init__(
        self,
        session: Session,
        batcher: Batcher,
        desk: Desk | None,
        metrics: Metrics,
        *,
        deadline: float,
        oldest: float,
        note: Callable[[Request, Step], None] | None = None,
    ):
        self._session, self._batcher, self._desk = session, batcher, desk
        self._metrics, self._deadline, self._oldest = metrics, deadline, oldest
        self._note, self._heard = note, True
        self._forget()

    async def answer(
        self, request: Request, watch: Stopwatch, received: float
    ) -> dict[str, Any]:
        """The answer to a request received at `time.monotonic()` = `received`.

        Raises UserError for a request that makes no sense here.
        """
        if request.kind == "reset":
            self._forget()
            self._heard = True
            job = Job(self._session, request, watch)
            await self._batcher.submit(job, time.monotonic() + RESET_TIME)
            return {"status": "reset"}
        if request.kind == "plan":
            return await self._plan(request)
        self._ask_if_new(request)
        status, message = self._standing()
        if self._poses is not None:
            request = request._replace(plan=self._poses)
        answer = await self._act(request, status is not None, watch, received)
        if status is not None and answer["status"] == "ok":
            answer |= {"status": status} | ({"message": message} if message else {})
        return answer

    def close(self) -> None:
        """Wait for no plan any more."""
        self._forget()

    # ---- inside -------------------------------------------------------------------------------

    async def _act(
        self, request: Request, standing: bool, watch: Stopwatch, received: float
    ) -> dict[str, Any]:
        heard, self._heard = self._heard, False
        job = Job(self._session, request, watch, heard, standing, self._oldest)
        start = time.perf_counter()
        try:
            step: Step = await self._batcher.submit(job, received + self._deadline)
        except Late:
            self._metrics.count("late")
            return {"status": "late"}
        except Stale as error:
            self._metrics.count("stale")
            return {"status": "stale", "message": str(error)}
        infer = time.perf_counter() - start
        watch.seconds["wait"] = infer - sum(
            watch.seconds.get(part, 0.0) for part in ("track", "crop", "sample", "limit")
        )
        self._heard = True
        if self._note is not None:
            self._note(request, step)
        self._metrics.count("chunks", "sample" in watch.seconds)
        self._metrics.count("limited", bool(step.limited))
        answer = {"status": "ok", "actions": step.actions, "limited": step.limited}
        if step.progress is not None:
            answer |= {"progress": step.progress, "length": step.length}
        timing = {**watch.milliseconds(), "infer_ms": 1e3 * infer}
        return {**answer, "server_timing": {"infer_ms": 1e3 * infer}, "policy_timing": timing}

    async def _plan(self, request: Request) -> dict[str, Any]:
        """Wait for the plan, whatever time it takes; it is followed from the next observation."""
        if request.plan is None and self._desk is None:
            raise UserError(NO_PLAN)
        question = self._desk.ask(request) if request.plan is None else None
        self._forget()
        self._poses, self._prompt = request.plan, request.prompt
        if question is not None:
            try:
                self._poses = await question
            except (PlanningError, Unreachable) as error:
                self._failure = str(error)
                return {"status": "no_plan", "message": self._failure}
        return {"status": "planned", "plan": self._poses._asdict()}

    def _ask_if_new(self, request: Request) -> None:
        """Begin to plan where the prompt is a new one; an explicit plan ends that."""
        if request.plan is not None:
            self._forget()
            self._prompt = request.prompt
        elif self._desk is not None and request.prompt not in (None, self._prompt):
            question = self._desk.ask(request)
            self._forget()
            self._prompt, self._question = request.prompt, asyncio.ensure_future(question)

    def _standing(self) -> tuple[str | None, str]:
        """Why the arm has to stand still, as status and message; None where it has not."""
        if self._question is not None and self._question.done():
            question, self._question = self._question, None
            try:
                self._poses = question.result()
            except UserError as error:
                self._failure = str(error)
        if self._question is not None:
            return "planning", ""
        return ("no_plan", self._failure) if self._failure else (None, "")

    def _forget(self) -> None:
        question = getattr(self, "_question", None)
        if question is not None:
            question.cancel()
        self._prompt: str | None = None
        self._question: asyncio.Future[Poses] | None = None
        self._poses: Poses | None = None
        self._failure = ""
