"""Every answered request on disk, by its key: what was answered once is never asked again."""

import sqlite3
from pathlib import Path

from colibri.core.captions.chat import Answer
from colibri.core.errors import UserError


class RequestCache:
    """One SQLite file, written by one process. An answer that `put` returned from outlives a kill.

    `path` None keeps nothing, for asking anew on purpose.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._database = sqlite3.connect(":memory:" if path is None else _prepared(path))
        try:
            # Write-ahead logging: a commit is one write without a flush, safe against any kill.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT, finish TEXT, "
                "prompt_tokens INTEGER, output_tokens INTEGER) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{path} cannot be used as a request cache ({error})",
                hint="remove it to ask everything anew, or pass another --request-cache",
            ) from None

    def get(self, key: str) -> Answer | None:
        """The answer to a request, if it was ever given."""
        row = self._database.execute(
            "SELECT text, finish, prompt_tokens, output_tokens FROM answers WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        text, finish, prompt_tokens, output_tokens = row
        return Answer(
            text=text, finish=finish, prompt_tokens=prompt_tokens, output_tokens=output_tokens
        )

    def put(self, key: str, answer: Answer) -> None:
        """Keep the first answer to a request."""
        with self._database:
            self._database.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)",
                (key, answer.text, answer.finish, answer.prompt_tokens, answer.output_tokens),
            )

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        return count

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _prepared(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)
