"""The whole job: ingest -> first frame -> recaption -> rules -> judge -> select -> write.

One pass on Ray Data reads frames and, with the embedded engines, does everything. Language models
work in phases of their own after it, one model in memory at a time. Selection and shards follow
from committed rows alone, so any order of work, any number of kills and any number of machines give
the same bytes.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colibri.core.config import from_table, to_table
from colibri.core.errors import UserError
from colibri.core.hashing import hash_text
from colibri.core.shards import write_json_whole
from colibri.curate.config import RunConfig
from colibri.curate.ingest import ingest, with_embedded_sample
from colibri.curate.llm.phases import PhaseSet
from colibri.curate.outputs import write_outputs
from colibri.curate.store import DoneRows, exclusive
from colibri.curate.work import pending_rows, work


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a run ended with."""

    out: Path
    manifest: dict[str, Any] | None
    """None where --stop-after ended it before the last phase."""
    report: Path | None
    done_now: int
    """Rows that this call worked on; the others were committed before."""


def run(config: RunConfig) -> RunSummary:
    """Curate `config.sources` into `config.out`; goes on where an earlier run stopped."""
    with exclusive(config.out):
        state = config.out / "state"
        state.mkdir(exist_ok=True)  # before the phases, whose models' commits are noted there
        phases = PhaseSet(config)
        config = _with_data_root(config, state)
        write_json_whole(state / "run.json", to_table(_absolute(config)))
        assert config.data_root is not None
        ingested = ingest(config, config.data_root, state / "ingested")
        done = DoneRows(state / "rows")
        keys, pending = pending_rows(ingested, done, state / "pending", config.batch_rows)
        if pending:
            work(config, done, state, pending)
        worked = max(pending, phases.work(done, keys))
        if not phases.finished:
            return RunSummary(out=config.out, manifest=None, report=None, done_now=worked)
        (config.out / "manifest.json").unlink(missing_ok=True)
        manifest = write_outputs(
            config,
            ingested,
            lambda columns: phases.rows(done, keys, columns),
            identity=hash_text(*sorted(keys), *phases.hashes),
            state=state,
            judge_checks=phases.judge_checks(done, keys),
        )
        report = _report(config)
        shutil.rmtree(state / "pending", ignore_errors=True)
        shutil.rmtree(state / "attempts", ignore_errors=True)
    return RunSummary(out=config.out, manifest=manifest, report=report, done_now=worked)


def retry(out: Path, reasons: tuple[str, ...]) -> RunSummary:
    """Do again the rows of a finished or stopped run that were refused for one of `reasons`."""
    config = saved_config(out)
    with exclusive(out):
        dropped = DoneRows(out / "state" / "rows").forget(reasons)
        dropped += PhaseSet(config).forget(reasons)
    if not dropped:
        raise UserError(
            f"no row of {out} was refused for {', '.join(reasons)}",
            hint=f"reasons there: {', '.join(_reasons(out)) or 'none'}",
        )
    return run(config)


def saved_config(out: Path) -> RunConfig:
    """The config with which `out` was made on this machine; `out` may have been moved since."""
    path = out / "state" / "run.json"
    if not path.exists():
        raise UserError(f"{out} is not the output of curate run", hint="check the folder's name")
    table = json.loads(path.read_text(encoding="utf-8"))
    return replace(from_table(RunConfig, _without_none(table), where=str(path)), out=out)


def _with_data_root(config: RunConfig, state: Path) -> RunConfig:
    if config.data_root is not None:
        if not config.data_root.is_dir():
            raise UserError(
                f"--data-root {config.data_root} is not a folder",
                hint="pass the folder that holds MagicData, OpenVid-1M and HumanVid",
            )
        return config
    from colibri.curate.sample import write_sample

    sample = config.out / "sample"
    marker = state / "sample.json"
    if not marker.exists():
        shutil.rmtree(sample, ignore_errors=True)
        write_sample(sample)
        write_json_whole(marker, {"sample": "embedded"})
    return with_embedded_sample(config, sample)


def _absolute(config: RunConfig) -> RunConfig:
    assert config.data_root is not None
    config = replace(config, data_root=config.data_root.resolve(), out=config.out.resolve())
    if config.humanvid.captions:
        captions = str(Path(config.humanvid.captions).resolve())
        config = replace(config, humanvid=replace(config.humanvid, captions=captions))
    return config


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def _reasons(out: Path) -> list[str]:
    manifest = out / "manifest.json"
    if not manifest.exists():
        return []
    by_source = json.loads(manifest.read_text(encoding="utf-8"))["counts"]["by_source"]
    return sorted({r for e in by_source.values() for r in (*e["rejected"], *e["quarantined"])})


def _report(config: RunConfig) -> Path | None:
    if not config.report:
        return None
    from colibri.curate.report import write_report

    return write_report(config.out)
