"""Shards of curated clips: their columns, and files that appear whole or not at all.

Knows the schema and how to write a file so that a kill at any moment leaves either the old file or
the new one. Knows nothing of where the rows come from.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from colibri.core.hashing import hash_file

T = TypeVar("T")

FINDING = pa.struct(
    [
        ("rule", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("text", pa.string()),
        ("message", pa.string()),
        ("ambiguous", pa.bool_()),
    ]
)
RULE_VERDICT = pa.struct(
    [("rule", pa.string()), ("verdict", pa.string()), ("evidence", pa.string())]
)
JUDGE = pa.struct(
    [
        *(
            (name, pa.float64())
            for name in ("score", "fluency", "faithfulness", "coverage", "band")
        ),
        ("by", pa.string()),
        ("rules", pa.list_(RULE_VERDICT)),
    ]
)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

SHARD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("video", pa.string()),
        ("member", pa.string()),
        ("start_s", pa.float64()),
        ("image", IMAGE),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("num_frames", pa.int32()),
        ("caption_original", pa.string()),
        ("caption", pa.string()),
        ("captioner", pa.string()),
        ("findings", pa.list_(FINDING)),
        ("judge", JUDGE),
        ("score", pa.float64()),
        ("licence", pa.string()),
        ("split", pa.string()),
        ("provenance", pa.string()),
    ]
)
"""Columns of `data/*.parquet`, in this order; meanings and units in docs/formats.md."""

REJECTED_SCHEMA = SHARD_SCHEMA.append(pa.field("reason", pa.string()))
"""Columns of `rejected/*.parquet`: a whole row, and why it was not taken."""

QUARANTINE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("video", pa.string()),
        ("member", pa.string()),
        ("start_s", pa.float64()),
        ("caption_original", pa.string()),
        ("caption", pa.string()),
        ("findings", pa.list_(FINDING)),
        ("attempts", pa.string()),
        ("licence", pa.string()),
        ("reason", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)
"""Columns of `quarantine/*.parquet`: a row that could not be used, the stage and its error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFile:
    """One written shard: path relative to its data set, SHA-256 of its bytes, row count."""

    path: str
    sha256: str
    rows: int


ROW_GROUP = 100
"""Rows in a row group: what is in memory at once, for us and for a reader."""


def write_shard(path: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> ShardFile:
    """Write `rows` as one parquet file, whole or not at all. Same rows in, same bytes out."""
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        # The image bytes are compressed already: a dictionary only costs time.
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=False
        ) as writer:
            for group in chunked(rows, ROW_GROUP):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                count += len(group)

    write_whole(path, write)
    return ShardFile(path=f"{path.parent.name}/{path.name}", sha256=hash_file(path), rows=count)


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one parquet file, a few hundred in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary)`, flush it to disk, rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text_whole(path: Path, text: str) -> None:
    """`path` holds `text` afterwards, or what it held before."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json_whole(path: Path, value: object) -> None:
    """JSON with sorted keys and two spaces, so that equal values are equal bytes."""
    write_text_whole(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def chunked(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """`rows` in lists of `size`, the last one shorter."""
    chunk: list[T] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
