"""The pass over rows on Ray Data: first frames, and the embedded engines where they are used."""

import errno
import math
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from colibri.core.errors import RowError, UserError
from colibri.core.progress import Progress
from colibri.core.shards import chunked
from colibri.curate import stages
from colibri.curate.cluster import ray_session
from colibri.curate.config import RunConfig, fused_stages
from colibri.curate.ingest import Ingested, ingested_rows
from colibri.curate.store import DONE_SCHEMA, Attempts, DoneRows

FILE_BATCHES = 64
"""Batches in a file of pending rows: whoever reads one reads the footer of all."""


def pending_rows(
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
    for index, batches in enumerate(chunked(chunked(waiting(), batch_rows), FILE_BATCHES)):
        with pq.ParquetWriter(_pending(folder, index), DONE_SCHEMA, compression="zstd") as writer:
            for batch in batches:
                count += len(batch)
                writer.write_table(pa.Table.from_pylist(batch, schema=DONE_SCHEMA))
    return keys, count


def _pending(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.parquet"


def work(config: RunConfig, done: DoneRows, state: Path, pending: int) -> None:
    """Take every pending row through its stages on Ray and commit it.

    UserError when the work stops early; committed rows are kept.
    """
    folder = (state / "pending").resolve()
    batches = math.ceil(pending / config.batch_rows)
    committed = DoneRows(done.folder.resolve())
    attempts = Attempts(state.resolve() / "attempts")
    shutil.rmtree(state / "attempts", ignore_errors=True)

    with ray_session(config.ray_address, config.cpus):
        import ray

        rows = ray.data.range(batches, override_num_blocks=batches).map_batches(
            partial(_load, folder=folder), batch_size=1, batch_format="pyarrow"
        )
        for name, stage in stage_chain(config, attempts):
            rows = rows.map_batches(
                partial(_stage, name=name, stage=stage), batch_size=None, batch_format="pyarrow"
            )
        rows = rows.map_batches(
            partial(_commit, done=committed), batch_size=None, batch_format="pyarrow"
        )
        progress = Progress("frames", pending, log=config.out / "run.log.jsonl")
        try:
            for count in rows.iter_rows():
                progress.add(count["rows"], refused=count["refused"])
        except Exception as error:
            raise _stopped(error) from error
        finally:
            progress.close()


def stage_chain(
    config: RunConfig, attempts: Attempts | None = None
) -> list[tuple[str, stages.Stage]]:
    """The named stages of the pass; with `attempts`, a video that ends its worker is given up."""
    assert config.data_root is not None
    frame: stages.Stage = partial(
        stages.frame, root=config.data_root.resolve(), config=config.frame
    )
    if attempts is not None:
        frame = partial(_guarded, stage=frame, attempts=attempts)
    chain = [("frame", frame)]
    if fused_stages(config) > 0:
        chain += [("recaption", stages.recaption), ("rules", stages.apply_rules)]
    if fused_stages(config) > 1:
        chain += [("judge", stages.apply_judge)]
    return chain


def _load(batch: pa.Table, *, folder: Path) -> pa.Table:
    parts = []
    for number in batch["id"].to_pylist():
        index, group = divmod(number, FILE_BATCHES)
        with pq.ParquetFile(_pending(folder, index)) as file:
            parts.append(file.read_row_group(group))
    return pa.concat_tables(parts)


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
