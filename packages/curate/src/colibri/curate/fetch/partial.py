"""A download that can be interrupted: `<name>.part`, and `<name>.part.json` with its version.

Bytes are only ever added to a .part whose version is known; a finished file appears under its own
name in one step.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from colibri.core.errors import UserError


class Partial:
    """The bytes of one file that are on disk so far. `key` says of what; another key discards them.

    Use as a context manager. Raises UserError when the disk is full or cannot be written.
    """

    def __init__(self, target: Path, key: str) -> None:
        self.path = target.with_name(target.name + ".part")
        self.etags: dict[str, str] = {}
        """File on the server -> the ETag of the bytes in hand."""
        self._target, self._key = target, key
        self._note = target.with_name(target.name + ".part.json")
        self._file: BinaryIO | None = None
        self.size_bytes = 0

    def __enter__(self) -> "Partial":
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            note = self._read_note()
            known = note is not None and self.path.exists()
            self._file = self.path.open("r+b" if known else "wb")
            if known and note is not None:
                self.size_bytes = self._file.seek(0, os.SEEK_END)
                self.etags = dict(note) if self.size_bytes else {}
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def restart(self) -> None:
        """Drop all bytes."""
        assert self._file is not None
        with _explained(self.path):
            self._file.seek(0)
            self._file.truncate()
            self._note.unlink(missing_ok=True)
        self.etags, self.size_bytes = {}, 0

    def discard(self) -> None:
        """Drop all bytes and leave nothing behind."""
        self.restart()
        self.path.unlink(missing_ok=True)

    def heard(self, name: str, etag: str | None) -> None:
        """Write down the version of the bytes that come next."""
        if etag and self.etags.get(name) == etag:
            return
        if etag:
            self.etags[name] = etag
        with _explained(self._note):
            fresh = self._note.with_name(self._note.name + "~")
            fresh.write_text(json.dumps({"key": self._key, "etags": self.etags}), encoding="utf-8")
            fresh.replace(self._note)

    def write(self, piece: bytes) -> None:
        """Add bytes at the end."""
        assert self._file is not None
        with _explained(self.path):
            self._file.write(piece)
        self.size_bytes += len(piece)

    def synced(self) -> Path:
        """The path of the bytes, all of them on disk."""
        assert self._file is not None
        with _explained(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self.path

    def finish(self, made: Path | None = None) -> None:
        """Put the bytes, or the file `made` from them, in the target's place."""
        with _explained(self._target):
            (made or self.path).replace(self._target)
            if made:
                self.path.unlink()
            self._note.unlink(missing_ok=True)

    def _read_note(self) -> Mapping[str, str] | None:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            etags = {str(name): str(etag) for name, etag in note["etags"].items()}
            return etags if note["key"] == self._key else None
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None


def clear(target: Path) -> None:
    """Remove what a command that was killed in its last step left beside a finished file."""
    for ending in (".part", ".part~", ".part.json", ".part.json~"):
        target.with_name(target.name + ending).unlink(missing_ok=True)


class _explained:
    """OSError as a sentence that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            raise UserError(
                f"{self._path} cannot be written: {error.strerror or error}",
                hint="make room or mend the folder's rights; the same command goes on from here",
            ) from None
