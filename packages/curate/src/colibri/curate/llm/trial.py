"""Conversations outside a run: a few rows asked anew, for a plan's calibration or for a replay."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from colibri.core.errors import RowError
from colibri.curate.cluster import ray_session
from colibri.curate.config import RunConfig
from colibri.curate.llm.ask import Asker, Traffic
from colibri.curate.llm.cache import RequestCache
from colibri.curate.llm.engines import open_backend
from colibri.curate.llm.phases import CONVERSATIONS, EMBEDDED, Phase, Retries

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What came of asking: results by row id, seconds of each chunk, and the traffic."""

    results: dict[str, Row]
    chunk_s: tuple[float, ...]
    load_s: float
    """Until the first answer, loading the model included."""
    traffic: Traffic


def try_phase(config: RunConfig, phase: Phase, rows: Sequence[Row], *, chunks: int = 1) -> Trial:
    """Ask a phase's model about `rows`, in `chunks` one after the other; nothing is cached.

    One extra row goes first, so that loading and warming up are not counted.
    """
    with contextlib.ExitStack() as stack:
        if phase.kind == "vllm":
            stack.enter_context(ray_session(config.ray_address, config.cpus))
        return asyncio.run(_try(phase, rows, chunks, Retries(config.out)))


async def _try(phase: Phase, rows: Sequence[Row], chunks: int, retries: Retries) -> Trial:
    began = time.perf_counter()
    backend = None
    if phase.kind != "rules":
        backend = open_backend(phase.kind, phase.model.name, phase.engine)
    talk = CONVERSATIONS[phase.name] if phase.kind != "rules" else EMBEDDED[phase.name]
    results: dict[str, Row] = {}
    cache = RequestCache(None)

    async def one(row: Row, ask: Asker) -> None:
        try:
            results[row["id"]] = await talk(row, ask, retries.model(phase, row["id"]))
        except RowError as error:
            results[row["id"]] = {"reason": error.reason, "error": error.message}

    try:
        if rows and chunks > 1:
            await one(rows[0], Asker(backend, RequestCache(None)))
        load_s = time.perf_counter() - began
        ask, seconds = Asker(backend, cache), []
        for index in range(chunks):
            start = time.perf_counter()
            limit = asyncio.Semaphore(phase.engine.in_flight)

            async def limited(row: Row, limit: asyncio.Semaphore = limit) -> None:
                async with limit:
                    await one(row, ask)

            await asyncio.gather(*map(limited, rows[index::chunks]))
            seconds.append(time.perf_counter() - start)
    finally:
        if backend is not None:
            await backend.close()
        cache.close()
    return Trial(results=results, chunk_s=tuple(seconds), load_s=load_s, traffic=ask.traffic)
