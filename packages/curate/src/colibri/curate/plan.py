"""What `curate run` would do: rows, tokens, memory, hours, bytes; measured on a few rows."""

import math
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Annotated, Any

import tyro

from colibri.core.archive import members
from colibri.core.captions import prompts
from colibri.core.captions.language import tokenize
from colibri.core.clip import Clip
from colibri.core.errors import UserError
from colibri.core.hashing import hash_text
from colibri.curate import stages
from colibri.curate.config import RunConfig
from colibri.curate.ingest import bearable, find_sources, is_excluded
from colibri.curate.llm.engines import EngineConfig
from colibri.curate.llm.phases import Phase, PhaseSet
from colibri.curate.llm.trial import try_phase
from colibri.curate.work import stage_chain

CHUNKS = 6
"""Parts of a calibration; how much they differ gives the interval."""

STUDENT_95 = 2.571
"""Two-sided 95 % quantile of Student's t with CHUNKS - 1 degrees of freedom."""

BYTES_A_WEIGHT = {None: 2.0, "fp8": 1.0, "awq": 0.56, "gptq": 0.56, "int8": 1.0, "int4": 0.56}
"""Bytes of one weight by quantisation; 4 bit with scales and zeros of groups of 128."""

TOKENS_A_WORD = 1.4
"""Of English captions with a byte-level BPE; only where nothing was measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig(RunConfig):
    """Everything that `curate run` takes, and how much to measure."""

    calibrate: int = 48
    """Rows to try on this machine, frames and models included. 0 measures nothing."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON."""

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)  # super() does not work under slots
        if self.calibrate < 0:
            raise UserError(f"--calibrate has to be 0 or more, not {self.calibrate}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One phase of the run. Hours for all rows, with a 95 % interval from the calibration."""

    name: str
    engine: str
    rows: int
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    weights_gb: float | None = None
    """Memory for the weights alone, over all GPUs of one engine; the cache comes on top."""
    hours: float | None = None
    hours_low: float | None = None
    hours_high: float | None = None
    refused_share: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run would do."""

    rows: int
    usable: int
    by_source: dict[str, int]
    problems: dict[str, int]
    facts: tuple[str, ...]
    steps: tuple[Step, ...]
    videos_missing: int
    missing_gb: float | None
    """Bytes to fetch for rows whose video is not here, at the mean size of those that are."""
    out_gb: float | None
    calibrated_rows: int
    notes: tuple[str, ...] = field(default=())

    def table(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """The page that a person reads."""
        lines = [f"rows       {self.rows:,}, of which {self.usable:,} can be used"]
        lines += [f"           {count:,} in {name}" for name, count in self.by_source.items()]
        lines += [f"           {count:,} {reason}" for reason, count in self.problems.items()]
        lines += [f"           {fact}" for fact in self.facts]
        for step in self.steps:
            lines.append(f"{step.name:<11}{step.rows:,} rows by {step.engine}")
            if step.prompt_tokens is not None:
                lines.append(
                    f"           {step.prompt_tokens:,} tokens in, {step.output_tokens:,} out"
                )
            if step.weights_gb is not None:
                lines.append(f"           {step.weights_gb:.0f} GB of weights, and the cache")
            if step.hours is not None:
                low, high = step.hours_low or 0.0, step.hours_high or 0.0
                lines.append(
                    f"           {_duration(step.hours)} on this machine "
                    f"({_duration(low)} to {_duration(high)})"
                )
            if step.refused_share:
                lines.append(f"           about {step.refused_share:.0%} of the rows refused")
        if self.videos_missing:
            size = f", about {self.missing_gb:,.0f} GB" if self.missing_gb else ""
            lines.append(f"fetch      {self.videos_missing:,} videos are not here{size}")
        if self.out_gb is not None:
            lines.append(f"disk       about {self.out_gb:,.2f} GB in OUT")
        measured = (
            f"measured on {self.calibrated_rows} rows" if self.calibrated_rows else "estimated"
        )
        lines.append(f"           {measured}")
        lines += list(self.notes)
        return "\n".join(lines)


def plan(config: RunConfig, *, calibrate: int = 0) -> Plan:
    """Look at all tables and, on `calibrate` seeded rows, at this machine. UserError as `run`."""
    phases = PhaseSet(config).phases
    with tempfile.TemporaryDirectory(prefix="colibri-plan-") as folder:
        notes = []
        if config.data_root is None:
            from colibri.curate.ingest import with_embedded_sample
            from colibri.curate.sample import write_sample

            notes.append("the data is the embedded sample")
            sample = Path(folder) / "sample"
            write_sample(sample)
            config = with_embedded_sample(config, sample)
        elif not config.data_root.is_dir():
            raise UserError(f"--data-root {config.data_root} is not a folder")
        return _plan(config, phases, calibrate, tuple(notes))


def _plan(
    config: RunConfig, phases: Sequence[Phase], calibrate: int, notes: tuple[str, ...]
) -> Plan:
    assert config.data_root is not None
    by_source: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    facts: list[str] = []
    chosen: list[tuple[str, str, Clip]] = []
    sizes = _Sizes(config.data_root)
    words = usable = missing = 0
    for source, layout, settings in find_sources(config, config.data_root):
        facts += [f"{source.name}: {fact}" for fact in layout.facts]
        excluded = is_excluded(config, source)
        for clip in source.clips(layout, settings):
            by_source[source.name] += 1
            row = _begun(config, clip, excluded)
            if clip.problem and not excluded:
                missing += clip.problem[0] in stages.NO_VIDEO
            if row["reason"]:
                problems[row["reason"]] += 1
                continue
            usable += 1
            words += len((clip.caption or "").split())
            sizes.look(clip)
            rank = hash_text("plan", str(config.seed), clip.id)
            _offer(chosen, (_inverse(rank), clip.id, clip), calibrate)
    clips = [clip for _, _, clip in sorted(chosen, key=lambda entry: entry[1])]
    measured, frame_step, bytes_a_row = _try_frames(config, clips, usable)
    steps = [frame_step]
    for phase in phases:
        steps.append(_step(config, phase, measured, usable, words / max(1, usable)))
        measured = [row for row in measured if not row.get("reason")]
    return Plan(
        rows=sum(by_source.values()),
        usable=usable,
        by_source=dict(by_source),
        problems=dict(problems.most_common()),
        facts=tuple(facts),
        steps=tuple(steps),
        videos_missing=missing,
        missing_gb=missing * sizes.mean() / 1e9 if missing and sizes.mean() else None,
        out_gb=None if bytes_a_row is None else bytes_a_row * usable / 1e9,
        calibrated_rows=len(clips),
        notes=notes,
    )


def _try_frames(
    config: RunConfig, clips: Sequence[Clip], usable: int
) -> tuple[list[dict[str, Any]], Step, float | None]:
    """Read the frames of a few clips on one core; the rows for the models, and bytes a row."""
    assert config.data_root is not None
    engine = "no reader" if config.frame.reader == "none" else config.frame.reader
    cores = config.cpus or os.cpu_count() or 1
    rows, seconds, chain = [], [], stage_chain(config)
    tokenize("A word list is read at the first use.")
    for clip in clips:
        row = _begun(config, clip, excluded=False)
        start = time.perf_counter()
        for name, stage in chain:
            row = stages.advance(row, stage, name)
        seconds.append(time.perf_counter() - start)
        rows.append(row)
    good = [row for row in rows if not row["reason"]]
    if not clips:
        return [], Step(name="frames", engine=f"{engine}, {cores} cores", rows=usable), None
    low, mean, high = _interval([seconds[index::CHUNKS] for index in range(CHUNKS)])
    images = [len(row["image"]["bytes"]) for row in good if row.get("image")]
    text = [len(row["caption_original"] or "") * 3 + 1500 for row in good]
    # Committed rows and shards hold each image once more.
    size = 2 * (sum(images) + sum(text)) / max(1, len(good))
    return (
        good,
        Step(
            name="frames",
            engine=f"{engine}, {cores} cores",
            rows=usable,
            hours=mean * usable / cores / 3600,
            hours_low=low * usable / cores / 3600,
            hours_high=high * usable / cores / 3600,
            refused_share=1 - len(good) / len(rows),
        ),
        size,
    )


def _begun(config: RunConfig, clip: Clip, excluded: bool) -> dict[str, Any]:
    row = stages.begin(clip, key=clip.id, exclude_licence=excluded, bearable=bearable(config))
    return {"reason": None} | row


def _step(
    config: RunConfig, phase: Phase, rows: list[dict[str, Any]], usable: int, words: float
) -> Step:
    engine = f"{phase.model.name} ({phase.kind})"
    weights = None if phase.kind in ("rules", "openai") else weights_gb(phase)
    if not rows:
        fixed = len(prompts.JUDGE if phase.name == "judge" else prompts.REWRITE) / 4
        per_row = fixed + TOKENS_A_WORD * words * (2 if phase.name == "judge" else 1)
        said = 110 if phase.name == "judge" else 60
        known = phase.kind != "rules"
        return Step(
            name=phase.name,
            engine=engine,
            rows=usable,
            prompt_tokens=round(per_row * usable) if known else None,
            output_tokens=said * usable if known else None,
            weights_gb=weights,
        )
    trial = try_phase(config, phase, rows, chunks=min(CHUNKS, len(rows)))
    for row in rows:
        row |= trial.results[row["id"]]
    counts = [len(rows[index :: len(trial.chunk_s)]) for index in range(len(trial.chunk_s))]
    low, mean, high = _interval(
        [[seconds / count] for seconds, count in zip(trial.chunk_s, counts, strict=True)]
    )
    load = trial.load_s / 3600
    refused = sum(bool(row.get("reason")) for row in rows)
    scale = usable / len(rows)
    known = phase.kind != "rules"
    return Step(
        name=phase.name,
        engine=engine,
        rows=usable,
        prompt_tokens=round(trial.traffic.prompt_tokens * scale) if known else None,
        output_tokens=round(trial.traffic.output_tokens * scale) if known else None,
        weights_gb=weights,
        hours=load + mean * usable / 3600,
        hours_low=load + low * usable / 3600,
        hours_high=load + high * usable / 3600,
        refused_share=refused / len(rows),
    )


def weights_gb(phase: Phase) -> float | None:
    """GB of a model's weights: of its files where they are here, else from its name (`14B`)."""
    folder = Path(phase.model.name)
    if folder.is_dir():
        return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9
    return _weights_of_name(phase.model.name, phase.engine)


def _weights_of_name(name: str, engine: EngineConfig) -> float | None:
    match = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)B(?![a-z])", name, re.IGNORECASE)
    if match is None:
        return None
    kind = engine.quantization
    for known in ("awq", "gptq", "fp8", "int8", "int4"):
        if kind is None and known in name.lower():
            kind = known
    return float(match[1]) * BYTES_A_WEIGHT.get(kind, 2.0)


def _interval(groups: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Low, mean and high of the time a row takes, from the means of the groups (Student's t)."""
    means = [statistics.fmean(group) for group in groups if group]
    mean = statistics.fmean(means)
    if len(means) < 2:
        return 0.0, mean, 2 * mean
    half = STUDENT_95 * statistics.stdev(means) / math.sqrt(len(means))
    return max(0.0, mean - half), mean, mean + half


class _Sizes:
    """Mean size of the clips that are here."""

    def __init__(self, root: Path) -> None:
        self._root, self._count, self._bytes = root, 0, 0

    def look(self, clip: Clip) -> None:
        if self._count >= 1000 or clip.problem:
            return
        path = self._root / clip.ref.video
        if clip.ref.member is None:
            self._bytes += path.stat().st_size
        else:
            self._bytes += members(path)[clip.ref.member].size
        self._count += 1

    def mean(self) -> float:
        return self._bytes / self._count if self._count else 0.0


def _offer(heap: list[tuple[str, str, Clip]], entry: tuple[str, str, Clip], limit: int) -> None:
    """Keep the `limit` entries with the highest first item."""
    if len(heap) < limit:
        heappush(heap, entry)
    elif limit and entry[0] > heap[0][0]:
        heappushpop(heap, entry)


def _inverse(rank: str) -> str:
    return "".join(f"{15 - int(digit, 16):x}" for digit in rank)


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
