"""What a person said, in a file that only grows: JSON lines of id, label, rules, caption_hash.

A line is on disk before the next row is shown. A later line for the same row and caption wins; a
null label takes one back. Knows nothing of how the rows are shown.
"""

import json
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colibri.core.captions.rules import RULES
from colibri.core.errors import UserError
from colibri.core.shards import write_text_whole
from colibri.curate.calibrate.sample import LabelRow

Answer = Literal["good", "bad", "skip"]
ANSWERS: tuple[Answer, ...] = ("good", "bad", "skip")


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """One answer about one pair of original and caption."""

    id: str
    label: Answer
    rules: tuple[str, ...]
    """Broken rules, sorted; empty unless `label` is bad, and then also where none was named."""
    caption_hash: str


class Journal:
    """The labels file. Lines that cannot be read (cut by a crash) are counted in `unreadable`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels: dict[tuple[str, str], Label] = {}
        """Latest label by (id, caption_hash), the one said last at the end."""
        self.unreadable = 0
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(f"cannot read labels from {path}: {error.strerror}") from None
        for line in filter(str.strip, lines):
            entry = _entry(line)
            if entry is None:
                self.unreadable += 1
            else:
                self._take(*entry)

    def add(self, label: Label) -> None:
        """Remember `label`; on return it is on disk. UserError when the file takes no more."""
        rules = list(label.rules)
        self._append(id=label.id, label=label.label, rules=rules, caption_hash=label.caption_hash)
        self._take((label.id, label.caption_hash), label)

    def take_back(self, label: Label) -> None:
        """Forget `label`; its line stays in the file, followed by one with a null label."""
        self._append(id=label.id, label=None, rules=[], caption_hash=label.caption_hash)
        self._take((label.id, label.caption_hash), None)

    def _take(self, key: tuple[str, str], label: Label | None) -> None:
        self.labels.pop(key, None)
        if label is not None:
            self.labels[key] = label

    def _append(self, **entry: object) -> None:
        line = json.dumps(entry).encode() + b"\n"
        try:
            if not self.path.exists():
                write_text_whole(self.path, "")
            with self.path.open("a+b") as file:
                if file.tell() and not _ends_line(self.path):
                    line = b"\n" + line  # after a line that a crash cut
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}") from None


class Session:
    """One sitting: the rows in order, and which of them are labelled. Safe with threads."""

    def __init__(self, rows: Iterable[LabelRow], journal: Journal) -> None:
        self._rows = {row.id: row for row in rows}
        self._journal = journal
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Rows of the sample."""
        return len(self._rows)

    @property
    def done(self) -> int:
        """Rows of the sample that have an answer, skipped ones too."""
        return len(self._answered())

    def next_row(self) -> LabelRow | None:
        """The first row without an answer, or None when all have one."""
        answered = self._answered()
        return next((row for row in self._rows.values() if row.id not in answered), None)

    def answer(self, row_id: str, answer: str, rules: Sequence[str] = ()) -> None:
        """Note an answer. UserError for a row, answer or rule that does not exist."""
        if row_id not in self._rows:
            raise UserError("this row is not in the sample")
        if answer not in ANSWERS:
            raise UserError(f"an answer is one of {', '.join(ANSWERS)}, found {answer[:40]!r}")
        if not set(rules) <= set(RULES):
            raise UserError(f"a rule is one of {', '.join(RULES)}")
        broken = tuple(sorted(set(rules))) if answer == "bad" else ()
        caption_hash = self._rows[row_id].caption_hash
        label = Label(id=row_id, label=answer, rules=broken, caption_hash=caption_hash)
        with self._lock:
            if self._journal.labels.get((row_id, caption_hash)) != label:
                self._journal.add(label)

    def undo(self) -> bool:
        """Take back the last answer in this sample, of this sitting or an earlier one."""
        with self._lock:
            answered = self._answered()
            if not answered:
                return False
            self._journal.take_back(list(answered.values())[-1])
            return True

    def _answered(self) -> dict[str, Label]:
        return {
            label.id: label
            for (row_id, caption_hash), label in list(self._journal.labels.items())
            if row_id in self._rows and self._rows[row_id].caption_hash == caption_hash
        }


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _entry(line: str) -> tuple[tuple[str, str], Label | None] | None:
    """((id, caption_hash), label) of one line, or None where it is not one."""
    try:
        entry: Any = json.loads(line)
        row_id, caption_hash, answer = entry["id"], entry["caption_hash"], entry["label"]
        rules = tuple(entry["rules"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(row_id, str) or not isinstance(caption_hash, str):
        return None
    if answer is None:
        return (row_id, caption_hash), None
    if answer not in ANSWERS or not all(rule in RULES for rule in rules):
        return None
    return (row_id, caption_hash), Label(
        id=row_id, label=answer, rules=rules, caption_hash=caption_hash
    )
