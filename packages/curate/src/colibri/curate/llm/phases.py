"""Phases after the frames: describe, recaption, judge, each with one model, each resumable alone.

A phase takes rows that came through the phases before, asks its model about them, and commits what
it adds. Only one model is loaded at a time.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from colibri.core.captions.chat import Answer, Backend, Request
from colibri.core.errors import RowError, UserError
from colibri.core.hashing import hash_json, hash_text
from colibri.core.progress import Progress
from colibri.core.shards import write_json_whole
from colibri.curate import stages
from colibri.curate.cluster import ray_session
from colibri.curate.config import RunConfig, fused_stages
from colibri.curate.llm import checks, conversations
from colibri.curate.llm.ask import Asker, converse
from colibri.curate.llm.cache import RequestCache
from colibri.curate.llm.conversations import Ask, Model
from colibri.curate.llm.engines import Engine, EngineConfig, check_engine, open_backend
from colibri.curate.llm.revisions import resolved
from colibri.curate.store import DONE_SCHEMA, PHASE_SCHEMA, DoneRows

Row = dict[str, Any]
Conversation = Callable[[Row, Ask, Model], Awaitable[Row]]

COMMIT_ROWS = 256
COMMIT_S = 5.0
"""Finished rows are committed when there are so many, or after so long. Their answers are on disk
before that, in the request cache."""

REPEAT_ALARM = 20
"""One caption for more different originals than this raises an alarm at once."""

FIELDS = {
    "describe": ("caption_original",),
    "recaption": ("caption", "captioner", "findings", "attempts"),
    "judge": ("judge", "score"),
}
"""Columns that each phase adds to a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One model's work on all rows."""

    name: str
    kind: Engine
    model: Model
    engine: EngineConfig
    hash: str
    """Names the settings of this phase and of all before it."""
    store: DoneRows

    def key(self, row: Row) -> str:
        """Names this phase's result for a row."""
        return hash_text(row["key"], self.hash)[:32]


class PhaseSet:
    """The phases that a config asks for, in order. UserError for settings that cannot work."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self.phases = tuple(_phases(config))
        self.hashes = tuple(phase.hash for phase in self.phases)
        self.finished = config.stop_after is None
        if config.describer != "rules" and config.frame.reader == "none":
            raise UserError(
                "--describer needs first frames, and --frame.reader none reads none",
                hint="leave one of the two out",
            )
        if config.second_judge != "rules":
            if config.judge == "rules":
                raise UserError(
                    "--second-judge checks a language model, and the embedded judge is none",
                    hint="leave it out, or pass --judge",
                )
            check_engine(config.second_judge, config.second_judge_llm, "--second-judge-llm")

    def rows(
        self, done: DoneRows, keys: set[str], columns: Sequence[str] | None = None
    ) -> Iterator[Row]:
        """All rows by rising id with what every phase added."""
        return _joined(done, keys, self.phases, columns)

    def work(self, done: DoneRows, keys: set[str]) -> int:
        """Do what is to do in every phase up to --stop-after; the number of rows worked on."""
        worked = 0
        for index, phase in enumerate(self.phases):
            if self._config.stop_after in _BEFORE[phase.name]:
                break
            before = self.phases[:index]
            worked = max(worked, _work(self._config, phase, before, done, keys))
        return worked

    def judge_checks(self, done: DoneRows, keys: set[str]) -> dict[str, Any] | None:
        """What the checks of a judging model said; None for the embedded judge."""
        for phase in self.phases:
            if _is_checked(phase):
                checked = _checked(self._config, phase, self.rows(done, keys, ()))
                found: dict[str, Any] = json.loads(checked.path.read_text(encoding="utf-8"))
                return found
        return None

    def forget(self, reasons: Sequence[str]) -> int:
        """Drop results that were refused for one of `reasons`; they are asked with a new seed."""
        retries = Retries(self._config.out)
        count = 0
        for phase in self.phases:
            again = [
                row["id"]
                for row in phase.store.merged(None, ("reason",))
                if row["reason"] in reasons
            ]
            retries.add(phase.name, again)
            count += phase.store.forget(reasons)
        return count


_BEFORE = {
    "describe": ("frames",),
    "recaption": ("frames", "describe"),
    "judge": ("frames", "describe", "recaption"),
}
"""Values of --stop-after that end a run before a phase."""


def _phases(config: RunConfig) -> Iterator[Phase]:
    fused = fused_stages(config)
    asked: list[tuple[str, Engine, str, EngineConfig, str]] = []
    if config.describer != "rules":
        asked.append(
            (
                "describe",
                config.describer,
                config.describer_model,
                config.describer_llm,
                "--describer-llm",
            )
        )
    if fused < 1:
        asked.append(("recaption", config.captioner, config.model, config.llm, "--llm"))
    if fused < 2:
        asked.append(("judge", config.judge, config.judge_model, config.judge_llm, "--judge-llm"))
    so_far: list[object] = []
    for name, kind, model_name, engine, flag in asked:
        check_engine(kind, engine, flag)
        model = model_of(kind, model_name, engine, config)
        so_far.append({"phase": name, "model": model.record()})
        yield Phase(
            name=name,
            kind=kind,
            model=model,
            engine=engine,
            hash=hash_json(so_far),
            store=DoneRows(config.out / "state" / name, PHASE_SCHEMA),
        )


def model_of(kind: Engine, name: str, engine: EngineConfig, config: RunConfig) -> Model:
    """Who is asked, from a config. The embedded engine names itself."""
    if kind == "rules":
        name, engine = stages.EMBEDDED_CAPTIONER, EngineConfig()
    return Model(
        backend=kind,
        name=name,
        revision=resolved(kind, name, engine.revision, config.out / "state" / "revisions.json"),
        temperature=engine.temperature,
        repair_temperature=engine.repair_temperature,
        max_tokens=engine.max_tokens,
        seed=config.seed,
    )


def _joined(
    done: DoneRows, keys: set[str], phases: Sequence[Phase], columns: Sequence[str] | None
) -> Iterator[Row]:
    """Committed rows and what the phases added, by rising id; a few rows in memory."""
    wanted = None if columns is None else {*columns, "reason", "stage", "error"}
    known = None if wanted is None else sorted(wanted & set(DONE_SCHEMA.names))
    heads = []
    for phase in phases:
        fields = [name for name in FIELDS[phase.name] if wanted is None or name in wanted]
        added = phase.store.merged(None, (*fields, "reason", "stage", "error"))
        heads.append((phase, fields, _Head(added)))
    for row in done.merged(keys, known):
        for phase, fields, head in heads:
            if row["reason"] is not None:
                break
            found = head.at(row["id"], phase.key(row))
            if found is not None:
                row |= {name: found[name] for name in (*fields, "reason", "stage", "error")}
        yield row


class _Head:
    """A stream of rows by rising id, looked up in that order."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def at(self, id_: str, key: str) -> Row | None:
        found = None
        while self._next is not None and self._next["id"] <= id_:
            if self._next["id"] == id_ and self._next["key"] == key:
                found = self._next
            self._next = next(self._rows, None)
        return found


# ---- one phase ----


def _work(
    config: RunConfig, phase: Phase, before: Sequence[Phase], done: DoneRows, keys: set[str]
) -> int:
    committed = phase.store.keys()
    columns = ["caption_original", "image"] if phase.name == "describe" else list(_TEXT)

    def waiting(names: Sequence[str]) -> Iterator[Row]:
        for row in _joined(done, keys, before, names):
            if row["reason"] is None and phase.key(row) not in committed:
                yield row

    pending = sum(1 for _ in waiting(()))
    everything = partial(_joined, done, keys, (*before, phase), list(_TEXT))
    if not pending and not (
        _is_checked(phase) and not _checked(config, phase, everything()).path.exists()
    ):
        return 0
    kinds = {phase.kind, config.second_judge if _is_checked(phase) else "rules"}
    with contextlib.ExitStack() as stack:
        if "vllm" in kinds and not config.from_cache:
            stack.enter_context(ray_session(config.ray_address, config.cpus))
        asyncio.run(_converse(config, phase, waiting(columns), pending, everything))
    return pending


_TEXT = ("caption_original", "caption", "findings")


async def _converse(
    config: RunConfig,
    phase: Phase,
    rows: Iterator[Row],
    pending: int,
    everything: Callable[[], Iterator[Row]],
) -> None:
    cache = RequestCache(config.request_cache or config.out / "state" / "requests.sqlite")
    backend: Backend | None = None
    if phase.kind != "rules" and not config.from_cache:
        start = partial(open_backend, phase.kind, phase.model.name, phase.engine)
        backend = start() if pending else _Late(start)
    ask = Asker(backend, cache)
    retries = Retries(config.out)
    talk = CONVERSATIONS[phase.name] if phase.kind != "rules" else EMBEDDED[phase.name]
    in_flight = phase.engine.in_flight
    if phase.engine.through == "ray-data":  # its passes want many rows, but pictures are large
        in_flight = max(in_flight, 2_000 if phase.name == "describe" else 100_000)

    async def advance(row: Row) -> Row:
        model = retries.model(phase, row["id"])
        return await _advance(row, talk, ask, model, phase)

    progress = Progress(phase.name, pending, log=config.out / "run.log.jsonl")
    try:
        finished = converse(rows, advance, in_flight=in_flight)
        await _commit(phase, finished, progress, ask)
        if _is_checked(phase):
            await _check(config, phase, ask, everything, cache, backend)
            backend = None
    finally:
        progress.close()
        if backend is not None:
            await backend.close()
        cache.close()


async def _advance(row: Row, talk: Conversation, ask: Ask, model: Model, phase: Phase) -> Row:
    """What the phase says of one row; its reason where it stops here."""
    result: Row = {"id": row["id"], "key": phase.key(row)}
    try:
        result |= await talk(row, ask, model)
    except RowError as error:
        result |= {"reason": error.reason, "error": error.message}
    if result.get("reason"):
        result["stage"] = phase.name
    return result


async def _commit(
    phase: Phase, finished: AsyncIterator[Row], progress: Progress, ask: Asker
) -> None:
    """Commit rows as they come, and watch for an engine that repeats itself."""
    waiting: list[Row] = []
    last = time.monotonic()
    seen: Counter[str] = Counter()
    try:
        async for row in finished:
            waiting.append(row)
            now = time.monotonic()
            if len(waiting) >= COMMIT_ROWS or now - last > COMMIT_S:
                phase.store.commit(waiting)
                waiting, last = [], now
            facts = ask.traffic.line(now) if phase.kind != "rules" else None
            progress.add(refused=bool(row.get("reason")), facts=facts)
            if row.get("caption") and len(seen) < 200_000:
                seen[row["caption"]] += 1
                if seen[row["caption"]] == REPEAT_ALARM + 1:
                    text = row["caption"][:80]
                    print(
                        f"\nalarm: {REPEAT_ALARM + 1} rows were answered with {text!r}; "
                        "look whether the engine repeats itself",
                        file=sys.stderr,
                    )
    finally:
        if waiting:
            phase.store.commit(waiting)


async def _check(
    config: RunConfig,
    phase: Phase,
    ask: Asker,
    everything: Callable[[], Iterator[Row]],
    cache: RequestCache,
    backend: Backend | None,
) -> None:
    """Anchors, swapped order and a second judge; written beside the rows, read by the manifest."""
    checked = _checked(config, phase, everything())
    try:
        if checked.path.exists():
            return
        anchors = await checks.anchors(ask, phase.model)
        judged = await checks.verdicts(checked.rows, ask, phase.model)
        swapped = await checks.verdicts(checked.rows, ask, phase.model, swapped=True)
    finally:
        if backend is not None:
            await backend.close()
    result = {"anchors": anchors, "order_swap": checks.agreement(judged, swapped, config.min_score)}
    second = checked.second
    if second is not None:
        other = None
        if not config.from_cache:
            other = _Late(
                partial(open_backend, config.second_judge, second.name, config.second_judge_llm)
            )
        try:
            seconds = await checks.verdicts(checked.rows, Asker(other, cache), second)
        finally:
            if other is not None:
                await other.close()
        result["second_judge"] = {
            "model": second.record(),
            **checks.agreement(judged, seconds, config.min_score),
        }
    write_json_whole(checked.path, result)


def _is_checked(phase: Phase) -> bool:
    return phase.name == "judge" and phase.kind != "rules"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checked:
    """The rows that are judged twice, the second judge, and the file that tells what they said."""

    rows: list[Row]
    second: Model | None
    path: Path


def _checked(config: RunConfig, phase: Phase, rows: Iterator[Row]) -> _Checked:
    sample = [row for row in rows if checks.is_checked(row, config)]
    second = None
    if config.second_judge != "rules":
        second = model_of(
            config.second_judge, config.second_judge_model, config.second_judge_llm, config
        )
    path = checks.path(config, phase.hash, second, sample)
    return _Checked(rows=sample, second=second, path=path)


class _Late:
    """A backend that starts with the first question that the cache cannot answer."""

    def __init__(self, start: Callable[[], Backend]) -> None:
        self._start = start
        self._backend: Backend | None = None

    async def answer(self, request: Request) -> Answer:
        if self._backend is None:
            self._backend = self._start()
        return await self._backend.answer(request)

    async def close(self) -> None:
        if self._backend is not None:
            await self._backend.close()


# ---- what is said ----


async def _embedded_recaption(row: Row, ask: Ask, model: Model) -> Row:
    rewritten = stages.recaption(row)
    return rewritten | stages.apply_rules(row | rewritten)


async def _embedded_judge(row: Row, ask: Ask, model: Model) -> Row:
    return stages.apply_judge(row)


async def _describe(row: Row, ask: Ask, model: Model) -> Row:
    if (row["caption_original"] or "").strip():
        return {"caption_original": row["caption_original"]}
    return await conversations.describe(row, ask, model)


CONVERSATIONS: dict[str, Conversation] = {
    "describe": _describe,
    "recaption": conversations.rewrite,
    "judge": conversations.judge,
}
EMBEDDED: dict[str, Conversation] = {
    "recaption": _embedded_recaption,
    "judge": _embedded_judge,
}


class Retries:
    """How often a person asked for a row to be done again: each time with other seeds."""

    def __init__(self, out: Path) -> None:
        self._path = out / "state" / "retries.json"
        self.counts: dict[str, dict[str, int]] = {}
        if self._path.exists():
            self.counts = json.loads(self._path.read_text(encoding="utf-8"))

    def add(self, phase: str, ids: Sequence[str]) -> None:
        """Note that these rows are to be done again."""
        counts = self.counts.setdefault(phase, {})
        for id_ in ids:
            counts[id_] = counts.get(id_, 0) + 1
        if ids:
            write_json_whole(self._path, self.counts)

    def model(self, phase: Phase, id_: str) -> Model:
        """Who is asked about a row."""
        again = self.counts.get(phase.name, {}).get(id_, 0)
        return phase.model.again(again) if again else phase.model
