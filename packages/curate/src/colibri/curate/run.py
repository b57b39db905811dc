"""The whole job: ingest -> first frame -> recaption -> rules -> judge -> select -> write.

Ray Data carries rows through the stages and each finished batch is committed to disk. Selection and
shards then follow from the committed rows alone, so any order of work, any number of kills and any
number of machines give the same bytes.
"""

import errno
import itertools
import json
import logging
import platform
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from colibri.core.config import from_table, to_table
from colibri.core.errors import RowError, UserError
from colibri.core.hashing import hash_json, hash_text
from colibri.core.progress import Progress
from colibri.core.shards import (
    QUARANTINE_SCHEMA,
    REJECTED_SCHEMA,
    SHARD_SCHEMA,
    ShardFile,
    chunked,
    write_json_whole,
    write_shard,
    write_text_whole,
)
from colibri.curate import stages
from colibri.curate.card import data_card
from colibri.curate.config import RunConfig, recorded_settings
from colibri.curate.ingest import Ingested, ingest, ingested_rows, with_embedded_sample
from colibri.curate.select import Candidate, Selection, select
from colibri.curate.store import DONE_SCHEMA, Attempts, DoneRows, WrittenShards, exclusive

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a run ended with."""

    out: Path
    manifest: dict[str, Any]
    report: Path | None
    done_now: int
    """Rows that this call worked on; the others were committed before."""


def run(config: RunConfig) -> RunSummary:
    """Curate `config.sources` into `config.out`; goes on where an earlier run stopped."""
    with exclusive(config.out):
        state = config.out / "state"
        config = _with_data_root(config, state)
        write_json_whole(state / "run.json", to_table(_absolute(config)))
        assert config.data_root is not None
        ingested = ingest(config, config.data_root, state / "ingested")
        done = DoneRows(state / "rows")
        keys, pending = _pending(ingested, done, state / "pending", config.batch_rows)
        if pending:
            _work(config, done, state, pending)
        (config.out / "manifest.json").unlink(missing_ok=True)
        manifest = _write_outputs(config, ingested, done, keys, state)
        report = _report(config)
        shutil.rmtree(state / "pending", ignore_errors=True)
        shutil.rmtree(state / "attempts", ignore_errors=True)
    return RunSummary(out=config.out, manifest=manifest, report=report, done_now=pending)


def retry(out: Path, reasons: tuple[str, ...]) -> RunSummary:
    """Do again the rows of a finished or stopped run that were refused for one of `reasons`."""
    config = saved_config(out)
    with exclusive(out):
        dropped = DoneRows(out / "state" / "rows").forget(reasons)
    if not dropped:
        raise UserError(
            f"no row of {out} was refused for {', '.join(reasons)}",
            hint=f"reasons there: {', '.join(_reasons(out)) or 'none'}",
        )
    return run(config)


def saved_config(out: Path) -> RunConfig:
    """The config with which `out` was made on this machine."""
    path = out / "state" / "run.json"
    if not path.exists():
        raise UserError(f"{out} is not the output of curate run", hint="check the folder's name")
    table = json.loads(path.read_text(encoding="utf-8"))
    return from_table(RunConfig, _without_none(table), where=str(path))


# ---- the work on rows ----


def _pending(
    ingested: Ingested, done: DoneRows, folder: Path, batch_rows: int
) -> tuple[set[str], int]:
    """Keys of all rows, and how many are to do; those lie in `folder`, a row group a batch."""
    committed = done.keys()
    keys: set[str] = set()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def waiting() -> Iterator[dict[str, Any]]:
        for row in ingested_rows(ingested.folder):
            keys.add(row["key"])
            if row["key"] not in committed:
                yield row

    count = 0
    with pq.ParquetWriter(folder / "rows.parquet", DONE_SCHEMA, compression="zstd") as writer:
        for batch in chunked(waiting(), batch_rows):
            count += len(batch)
            writer.write_table(pa.Table.from_pylist(batch, schema=DONE_SCHEMA))
    return keys, count


def _work(config: RunConfig, done: DoneRows, state: Path, pending: int) -> None:
    """Take every pending row through the stages on Ray and commit it."""
    import ray

    assert config.data_root is not None
    root = config.data_root.resolve()
    path = (state / "pending" / "rows.parquet").resolve()
    batches = pq.ParquetFile(path).num_row_groups
    committed = DoneRows(done.folder.resolve())
    attempts = Attempts(state.resolve() / "attempts")
    shutil.rmtree(state / "attempts", ignore_errors=True)

    with _ray(config):
        rows = (
            ray.data.range(batches, override_num_blocks=batches)
            .map_batches(partial(_load, path=path), batch_size=1, batch_format="pyarrow")
            .map_batches(
                partial(
                    _stage,
                    name="frame",
                    stage=partial(
                        _guarded,
                        stage=partial(stages.frame, root=root, config=config.frame),
                        attempts=attempts,
                    ),
                ),
                batch_size=None,
                batch_format="pyarrow",
            )
            .map_batches(
                partial(_stage, name="recaption", stage=stages.recaption),
                batch_size=None,
                batch_format="pyarrow",
            )
            .map_batches(
                partial(_stage, name="rules", stage=stages.apply_rules),
                batch_size=None,
                batch_format="pyarrow",
            )
            .map_batches(
                partial(_stage, name="judge", stage=stages.apply_judge),
                batch_size=None,
                batch_format="pyarrow",
            )
            .map_batches(partial(_commit, done=committed), batch_size=None, batch_format="pyarrow")
        )
        progress = Progress("curate", pending, log=config.out / "run.log.jsonl")
        try:
            for count in rows.iter_rows():
                progress.add(count["rows"], refused=count["refused"])
        except Exception as error:
            raise _stopped(error) from error
        finally:
            progress.close()


class _ray:
    """A local Ray for the time of the run, or the cluster that the config names."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._ours = False

    def __enter__(self) -> None:
        import ray

        if not ray.is_initialized():
            self._ours = True
            try:
                ray.init(
                    address=self._config.ray_address or "local",
                    num_cpus=None if self._config.ray_address else self._config.cpus,
                    include_dashboard=False if not self._config.ray_address else None,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            except ConnectionError as error:
                raise UserError(
                    f"no Ray cluster answers at {self._config.ray_address}: {error}",
                    hint="start one with `ray start --head`, or leave --ray-address out",
                ) from None
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.verbose_progress = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        import ray

        if self._ours:
            ray.shutdown()


def _load(batch: pa.Table, *, path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return pa.concat_tables([file.read_row_group(group) for group in batch["id"].to_pylist()])


def _stage(batch: pa.Table, *, stage: stages.Stage, name: str) -> pa.Table:
    rows = [stages.advance(row, stage, name) for row in batch.to_pylist()]
    return pa.Table.from_pylist(rows, schema=DONE_SCHEMA)


def _guarded(row: stages.Row, *, stage: stages.Stage, attempts: Attempts) -> stages.Row:
    """`stage`, unless this row has brought its worker down too often in this run."""
    if not attempts.begin(row["key"]):
        raise RowError("decoder_crash", "decoding this video ended its worker three times")
    result: stages.Row
    try:
        result = stage(row)
    finally:
        attempts.end(row["key"])
    return result


def _commit(batch: pa.Table, *, done: DoneRows) -> pa.Table:
    rows = batch.to_pylist()
    done.commit(rows)
    refused = sum(row["reason"] is not None for row in rows)
    return pa.table({"rows": [len(rows)], "refused": [refused]})


def _stopped(error: BaseException) -> UserError:
    """Why the work ended early, in one sentence."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return _disk_full()
        cause = getattr(cause, "cause", None) or cause.__cause__
    if "No space left on device" in str(error):  # Ray keeps the words, not the number
        return _disk_full()
    text = str(error).strip().splitlines()
    return UserError(
        f"the work on rows stopped: {text[-1] if text else type(error).__name__}",
        hint="finished rows are kept; run the same command again to go on",
    )


def _disk_full() -> UserError:
    return UserError(
        "the disk is full", hint="free some space and run the same command again to go on"
    )


# ---- from committed rows to outputs ----


def _write_outputs(
    config: RunConfig, ingested: Ingested, done: DoneRows, keys: set[str], state: Path
) -> dict[str, Any]:
    """Select, write shards, card and manifest; the manifest last."""
    selection = select(
        _candidates(config, done, keys),
        keep=config.keep,
        seed=config.seed,
        group_cap=config.group_cap,
        near_duplicate=config.near_duplicate if config.near_duplicate < 1 else None,
    )
    kept = set(selection.kept)
    fate = partial(_fate, config=config, selection=selection, kept=kept)
    counts = _Counts(ingested.by_source)
    identity = hash_json(
        {"settings": recorded_settings(config), "rows": hash_text(*sorted(keys))}
        | {"kept": hash_text(*sorted(kept))}
    )
    written = WrittenShards(state / "shards.jsonl", selection=identity)

    plans = (
        ("data", SHARD_SCHEMA, _kept_rows),
        ("rejected", REJECTED_SCHEMA, _rejected_rows),
        ("quarantine", QUARANTINE_SCHEMA, _quarantined_rows),
    )
    files: dict[str, list[ShardFile]] = {}
    for name, schema, choose in plans:
        rows = choose(done.merged(keys), fate, counts, config)
        files[name] = _write_shards(config, name, schema, rows, written)
    _remove_strays(config.out, files)

    manifest = {
        "format": 1,
        "made_by": versions(),
        "config": recorded_settings(config),
        "inputs": ingested.inputs,
        "captioner": {"name": stages.EMBEDDED_CAPTIONER, "is_embedded": True},
        "judge": {"name": stages.EMBEDDED_CAPTIONER, "is_embedded": True},
        "counts": counts.table(),
        "shards": [_entry(shard) for shard in files["data"]],
        "rejected": [_entry(shard) for shard in files["rejected"]],
        "quarantine": [_entry(shard) for shard in files["quarantine"]],
        "facts": list(ingested.facts),
        "alarms": list(selection.alarms),
    }
    write_text_whole(config.out / "README.md", data_card(manifest))
    write_json_whole(config.out / "manifest.json", manifest)
    return manifest


def _candidates(config: RunConfig, done: DoneRows, keys: set[str]) -> Iterator[Candidate]:
    columns = ("source", "group", "caption", "score", "labels", "reason", "caption_original")
    for row in done.merged(keys, columns):
        if row["reason"] is None and row["score"] >= config.min_score:
            labels = json.loads(row["labels"])
            motion = labels.get("motion score")
            yield Candidate(
                id=row["id"],
                source=row["source"],
                group=row["group"],
                caption=row["caption"],
                score=row["score"],
                motion=float(motion) if isinstance(motion, int | float) else None,
                words=len(row["caption"].split()),
                people=count_people(row["caption"]),
            )


def count_people(caption: str) -> int:
    """People named in a caption: 0, 1 or 2 for several; a rough stratum, not a count of heads."""
    from colibri.core.captions.language import tokenize

    singular = {"man", "woman", "boy", "girl", "person", "child", "player", "dancer", "worker"}
    several = {"people", "crowd", "couple", "group", "men", "women", "children", "boys", "girls"}
    words = [token.lower for token in tokenize(caption)]
    if any(word in several for word in words):
        return 2
    return min(2, sum(word in singular for word in words))


def _fate(
    row: Mapping[str, Any], *, config: RunConfig, selection: Selection, kept: set[str]
) -> tuple[str, str | None]:
    """Where a row goes, and the reason."""
    reason = row["reason"]
    if reason is not None:
        return ("rejected" if reason in stages.REJECTIONS else "quarantine"), reason
    if row["score"] < config.min_score:
        return "rejected", "below_score"
    if row["id"] in kept:
        return "data", None
    return "rejected", selection.rejected[row["id"]]


def _kept_rows(
    rows: Iterable[dict[str, Any]], fate: Any, counts: "_Counts", config: RunConfig
) -> Iterator[dict[str, Any]]:
    for row in rows:
        if fate(row)[0] == "data":
            counts.add(row["source"], "kept", None)
            yield row | {"split": split_of(row["group"], config.seed, config.heldout)}


def _rejected_rows(
    rows: Iterable[dict[str, Any]], fate: Any, counts: "_Counts", config: RunConfig
) -> Iterator[dict[str, Any]]:
    for row in rows:
        where, reason = fate(row)
        if where == "rejected":
            counts.add(row["source"], "rejected", reason)
            yield row | {"reason": reason}


def _quarantined_rows(
    rows: Iterable[dict[str, Any]], fate: Any, counts: "_Counts", config: RunConfig
) -> Iterator[dict[str, Any]]:
    for row in rows:
        where, reason = fate(row)
        if where == "quarantine":
            counts.add(row["source"], "quarantined", reason)
            yield row


def split_of(group: str, seed: int, heldout: float) -> str:
    """train or heldout, by source video, so that clips of one video never face each other."""
    position = int(hash_text(str(seed), group)[:13], 16) / 16**13
    return "heldout" if position < heldout else "train"


def _write_shards(
    config: RunConfig,
    name: str,
    schema: pa.Schema,
    rows: Iterator[dict[str, Any]],
    written: WrittenShards,
) -> list[ShardFile]:
    files: list[ShardFile] = []
    for index in itertools.count():
        first = next(rows, None)
        if first is None:
            break
        chunk = itertools.chain([first], itertools.islice(rows, config.shard_rows - 1))
        path = f"{name}/{name if name != 'data' else 'shard'}-{index:05d}.parquet"
        shard = written.get(path)
        if shard is None or not (config.out / path).exists():
            shard = write_shard(config.out / path, (_only(row, schema) for row in chunk), schema)
            written.add(shard)
        else:
            deque(chunk, maxlen=0)  # the rows are counted all the same
        files.append(shard)
    if not files and name == "data":
        # An empty shard still opens, with the right columns.
        files.append(write_shard(config.out / "data" / "shard-00000.parquet", [], schema))
    return files


def _only(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    return {name: row.get(name) for name in schema.names}


def _remove_strays(out: Path, files: dict[str, list[ShardFile]]) -> None:
    """Delete shards of an earlier selection and what a kill left half-written."""
    for name, shards in files.items():
        current = {out / shard.path for shard in shards}
        for path in (out / name).glob("*"):
            if path not in current:
                path.unlink()
        for path in (out / name).glob(".*.part"):
            path.unlink()


class _Counts:
    """In = kept + rejected + quarantined, per source and reason."""

    def __init__(self, by_source: dict[str, int]) -> None:
        self._in = by_source
        self._by: dict[str, Counter[tuple[str, str | None]]] = {
            source: Counter() for source in by_source
        }

    def add(self, source: str, what: str, reason: str | None) -> None:
        self._by[source][(what, reason)] += 1

    def table(self) -> dict[str, Any]:
        by_source: dict[str, Any] = {}
        for source, counter in self._by.items():
            by_source[source] = {
                "in": self._in[source],
                "kept": counter[("kept", None)],
                "rejected": _by_reason(counter, "rejected"),
                "quarantined": _by_reason(counter, "quarantined"),
            }
        totals = {
            "in": sum(self._in.values()),
            "kept": sum(entry["kept"] for entry in by_source.values()),
            "rejected": sum(sum(entry["rejected"].values()) for entry in by_source.values()),
            "quarantined": sum(sum(e["quarantined"].values()) for e in by_source.values()),
        }
        assert totals["in"] == totals["kept"] + totals["rejected"] + totals["quarantined"], totals
        return totals | {"by_source": by_source}


def _by_reason(counter: Counter[tuple[str, str | None]], what: str) -> dict[str, int]:
    return {reason or "": count for (kind, reason), count in counter.items() if kind == what}


def versions() -> dict[str, str]:
    """Versions of what the shards' bytes depend on."""
    names = ("colibri-core", "colibri-curate", "av", "decord", "numpy", "pillow", "pyarrow", "ray")
    found = {"python": platform.python_version()}
    for name in (*names, "datasketch", "lemminflect"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# ---- small things ----


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


def _entry(shard: ShardFile) -> dict[str, Any]:
    return {"path": shard.path, "sha256": shard.sha256, "rows": shard.rows}


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
