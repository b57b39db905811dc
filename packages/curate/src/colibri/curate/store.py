"""The run's memory on disk: which rows are done, and with what result.

A batch of finished rows is one parquet file, written whole and named by the hash of its rows' keys,
so that a batch done twice (a worker died after committing) is the same file. A row's key covers its
clip, its caption, its video's size and date, and the settings: change one and only that row is done
again. Nothing here knows what a stage does.
"""

import contextlib
import dataclasses
import fcntl
import heapq
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from colibri.core.errors import UserError
from colibri.core.hashing import hash_text
from colibri.core.shards import REJECTED_SCHEMA, ShardFile, read_rows, write_text_whole, write_whole

DONE_SCHEMA = pa.schema(
    [
        *REJECTED_SCHEMA,
        ("attempts", pa.string()),
        ("key", pa.string()),
        ("group", pa.string()),
        ("labels", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)
"""A finished row: all shard columns, and `reason`, `stage`, `error` where it was refused."""

PHASE_SCHEMA = pa.schema(
    [
        DONE_SCHEMA.field(name)
        for name in (
            *("id", "key", "caption_original", "caption", "captioner", "findings"),
            *("attempts", "judge", "score", "reason", "stage", "error"),
        )
    ]
)
"""What a phase of a language model adds to a row; `key` names the row and all that led here."""


@contextlib.contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold OUT for one run at a time. A kill of any kind lets go of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("a+")
    except OSError as error:
        raise UserError(
            f"nothing can be written to {out} ({error.strerror})", hint="choose another folder"
        ) from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise UserError(
                f"{out} is in use by another run (process {owner})",
                hint="wait for it, or choose another --out",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class DoneRows:
    """The committed rows of one run folder."""

    def __init__(self, folder: Path, schema: pa.Schema = DONE_SCHEMA) -> None:
        self.folder, self._schema = folder, schema

    def commit(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write finished rows; once this returns they are never done again."""
        ordered = sorted(rows, key=lambda row: row["id"])
        name = hash_text(*(row["key"] for row in ordered))[:24]
        table = pa.Table.from_pylist(ordered, schema=self._schema)
        write_whole(
            self.folder / f"{name}.parquet",
            lambda path: pq.write_table(table, path, compression="zstd", use_dictionary=False),
        )

    def keys(self) -> set[str]:
        """Keys of all committed rows."""
        found: set[str] = set()
        for path in self._files():
            found.update(pq.read_table(path, columns=["key"])["key"].to_pylist())
        return found

    def merged(
        self, keys: set[str] | None, columns: Sequence[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows whose key is in `keys`, each once, by rising id; few files are open at a time.

        Without `keys` all rows, those of one id one after the other.
        """
        names = None if columns is None else sorted({*columns, "id", "key"})
        starts = sorted((_first_id(path), path) for path in self._files())
        heap: list[tuple[str, int, dict[str, Any], Iterator[dict[str, Any]]]] = []
        last, opened = "", 0
        while starts or heap:
            while starts and (not heap or starts[0][0] <= heap[0][0]):
                rows = read_rows(starts.pop(0)[1], names)
                _push(heap, rows, opened)
                opened += 1
            _, order, row, rows = heapq.heappop(heap)
            _push(heap, rows, order)
            if keys is None:
                yield row
            elif row["key"] in keys and row["id"] != last:
                last = row["id"]
                yield row

    def forget(self, reasons: Sequence[str]) -> int:
        """Drop refused rows with one of `reasons` so that the next run does them again."""
        dropped = 0
        for path in list(self._files()):
            table = pq.read_table(path, schema=self._schema)
            again = pc.fill_null(pc.is_in(table["reason"], pa.array(list(reasons))), False)
            count = pc.sum(again).as_py() or 0
            if not count:
                continue
            dropped += count
            rest = table.filter(pc.invert(again)).to_pylist()
            if rest:
                self.commit(rest)
            path.unlink()
        return dropped

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))


def _push(
    heap: list[tuple[str, int, dict[str, Any], Iterator[dict[str, Any]]]],
    rows: Iterator[dict[str, Any]],
    order: int,
) -> None:
    row = next(rows, None)
    if row is not None:
        heapq.heappush(heap, (row["id"], order, row, rows))


def _first_id(path: Path) -> str:
    table = pq.ParquetFile(path).metadata.row_group(0).column(0)
    first: str = table.statistics.min
    return first


class Attempts:
    """How often this run began a row: a row that kills its worker again and again is given up."""

    def __init__(self, folder: Path, *, limit: int = 3) -> None:
        self._folder, self._limit = folder, limit

    def begin(self, key: str) -> bool:
        """Note one more attempt at `key`; False when the row has used up its attempts."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / key).open("ab") as file:
            if file.tell() >= self._limit:
                return False
            file.write(b".")
        return True

    def end(self, key: str) -> None:
        """The row came through."""
        (self._folder / key).unlink(missing_ok=True)


class WrittenShards:
    """Which output shards of the current selection are complete; survives a kill between two."""

    def __init__(self, path: Path, *, selection: str) -> None:
        self._path = path
        self._done: dict[str, ShardFile] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        entries = [entry for line in lines if (entry := _parsed(line))]
        if not entries or entries[0] != {"selection": selection}:
            write_text_whole(path, json.dumps({"selection": selection}) + "\n")
            return
        for entry in entries[1:]:
            shard = ShardFile(**entry)
            self._done[shard.path] = shard

    def get(self, path: str) -> ShardFile | None:
        """The finished shard, if it is there."""
        return self._done.get(path)

    def add(self, shard: ShardFile) -> None:
        """Note a finished shard."""
        # A line begins with its own line break, so that a line cut by a kill spoils no other.
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(dataclasses.asdict(shard)) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None
