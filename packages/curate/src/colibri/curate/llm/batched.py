"""Single questions gathered into batches, and answers in any order led back to their questions."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from colibri.core.captions.chat import Answer, Request
from colibri.core.errors import RowError

log = logging.getLogger(__name__)

AnswerBatch = Callable[[Mapping[str, Request]], Awaitable[Sequence[tuple[str, Answer | RowError]]]]
"""Questions by key to (key, answer) pairs: in any order, perhaps twice, perhaps not all."""


class Batched:
    """A backend on top of something that only takes batches."""

    def __init__(
        self, answer_batch: AnswerBatch, *, most: int, linger_s: float = 0.05, tries: int = 3
    ) -> None:
        self._answer_batch, self._most = answer_batch, most
        self._linger_s, self._tries = linger_s, tries
        self._waiting: dict[str, tuple[Request, asyncio.Future[Answer]]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()

    async def answer(self, request: Request) -> Answer:
        """The answer to this very request. RowError: engine_failed where none came."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request.key()] = (request, future)
        self._arrived.set()
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._work())
        return await future

    async def close(self) -> None:
        """Stop gathering."""
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker

    async def _work(self) -> None:
        tried: dict[str, int] = {}
        while True:
            await self._arrived.wait()
            await self._gather()
            keys = list(self._waiting)[: self._most]
            batch = {key: self._waiting[key][0] for key in keys}
            try:
                answers = await self._answer_batch(batch)
            except asyncio.CancelledError:
                raise
            except Exception as failure:
                for key in batch:
                    self._waiting.pop(key)[1].set_exception(failure)
                answers = []
            for key, answer in answers:
                waiting = self._waiting.pop(key, None)
                if waiting is None:
                    log.warning("an answer came twice or unasked: %s", key)
                elif isinstance(answer, RowError):
                    waiting[1].set_exception(answer)
                else:
                    waiting[1].set_result(answer)
            for key in batch:
                if key in self._waiting:
                    tried[key] = tried.get(key, 0) + 1
                    if tried[key] >= self._tries:
                        error = RowError("engine_failed", f"no answer in {self._tries} batches")
                        self._waiting.pop(key)[1].set_exception(error)
            if not self._waiting:
                self._arrived.clear()

    async def _gather(self) -> None:
        """Wait until a batch is full or nothing more comes."""
        before = -1
        while before < len(self._waiting) < self._most:
            before = len(self._waiting)
            await asyncio.sleep(self._linger_s)
