"""Asking: from the cache where it was answered before, else from the engine, each question once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from colibri.core.captions.chat import Answer, Backend, Request
from colibri.core.errors import UserError
from colibri.curate.llm.cache import RequestCache

Row = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Traffic:
    """What went to the engine since the start, and how long it had nothing to do."""

    asked: int = 0
    from_cache: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    outstanding: int = 0
    idle_s: float = 0.0
    first_ask: float | None = None
    last_change: float = 0.0

    def note(self, now: float, step: int) -> None:
        """`step` more questions are at the engine, from `now` on."""
        if self.first_ask is None:
            self.first_ask = self.last_change = now
        if self.outstanding == 0:
            self.idle_s += now - self.last_change
        self.outstanding += step
        self.last_change = now

    def line(self, now: float) -> dict[str, float]:
        """For the progress line: rates per second and the share of time without a question."""
        elapsed = max(1e-9, now - (self.first_ask or now))
        idle = self.idle_s + (now - self.last_change if not self.outstanding else 0.0)
        return {
            "output_tokens_per_s": round(self.output_tokens / elapsed, 1),
            "in_flight": self.outstanding,
            "engine_idle": round(min(1.0, idle / elapsed), 4),
            "from_cache": self.from_cache,
        }


class Asker:
    """The one door to a model: cache, questions in common, traffic."""

    def __init__(self, backend: Backend | None, cache: RequestCache) -> None:
        self._backend, self._cache = backend, cache
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self.traffic = Traffic()

    async def __call__(self, request: Request) -> Answer:
        """The answer to `request`. RowError where it cannot be had, UserError where none can."""
        key = request.key()
        known = self._cache.get(key)
        if known is not None:
            self.traffic.from_cache += 1
            return known
        if key in self._waiting:
            return await asyncio.shield(self._waiting[key])
        if self._backend is None:
            raise UserError(
                "a request is not in the cache, and --from-cache starts no model",
                hint="run without --from-cache, or with the --request-cache of the finished run",
            )
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        self.traffic.note(time.monotonic(), +1)
        self.traffic.asked += 1
        try:
            answer = await self._backend.answer(request)
            self._cache.put(key, answer)
            self.traffic.prompt_tokens += answer.prompt_tokens
            self.traffic.output_tokens += answer.output_tokens
            future.set_result(answer)
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # seen, also where nobody else waited
            raise
        finally:
            self.traffic.note(time.monotonic(), -1)
            del self._waiting[key]
        return answer


async def converse(
    rows: Iterator[Row], work: Callable[[Row], Awaitable[Row]], *, in_flight: int
) -> AsyncIterator[Row]:
    """`work` on every row, results as they come; an error cancels the rest.

    A few more rows are under way than the `in_flight` questions that the engine takes at once:
    while one row's answer is checked, another's question is at the engine.
    """
    rows_at_once = in_flight + in_flight // 2 + 1
    tasks: set[asyncio.Task[Row]] = set()
    done: set[asyncio.Task[Row]] = set()
    try:
        exhausted = False
        while tasks or not exhausted:
            while not exhausted and len(tasks) < rows_at_once:
                row = next(rows, None)
                if row is None:
                    exhausted = True
                else:
                    tasks.add(asyncio.ensure_future(_run(work, row)))
            if not tasks:
                break
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, *done, return_exceptions=True)


async def _run(work: Callable[[Row], Awaitable[Row]], row: Row) -> Row:
    return await work(row)
