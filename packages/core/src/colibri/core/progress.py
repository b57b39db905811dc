"""How far a long job is: one line on the terminal for people, JSON lines for programs."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO


class Progress:
    """Counts done against a total; shows rate, remaining time and refusals twice a second.

    Without a total it shows no remaining time.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        log: Path | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._clock = what, total, clock
        self._stream = sys.stderr if stream is None else stream
        self._log = log.open("a", encoding="utf-8") if log else None
        self._start = self._last = clock()
        self._done = self._refused = 0
        self._facts: dict[str, float] = {}

    def add(
        self, done: int = 1, *, refused: int = 0, facts: dict[str, float] | None = None
    ) -> None:
        """Count `done` more rows, `refused` of which went to quarantine; `facts` are shown too."""
        self._facts = facts or {}
        self._done += done
        self._refused += refused
        now = self._clock()
        if now - self._last >= 0.5 or self._done == self._total:
            self._last = now
            self._show(now)

    def close(self) -> None:
        """End the line."""
        if self._stream.isatty():
            self._stream.write("\n")
        if self._log:
            self._log.close()

    def _show(self, now: float) -> None:
        elapsed = max(now - self._start, 1e-9)
        rate = self._done / elapsed
        line = f"{self._what}: {self._done:,}"
        remaining_s = None
        if self._total is not None:
            remaining_s = (self._total - self._done) / rate if rate else None
            line += f"/{self._total:,}"
        line += f"  {rate:.1f}/s"
        if self._total is not None:
            line += "  ? left" if remaining_s is None else f"  {remaining_s:.0f} s left"
        line += f"  {self._refused:,} refused"
        line += "".join(f"  {name} {value:,}" for name, value in self._facts.items())
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{line}")
            self._stream.flush()
        else:
            self._stream.write(line + "\n")
        if self._log:
            entry = {
                "what": self._what,
                "done": self._done,
                "total": self._total,
                "refused": self._refused,
                "rate_per_s": round(rate, 3),
                "remaining_s": None if remaining_s is None else round(remaining_s, 1),
                "time": time.time(),
            } | self._facts
            self._log.write(json.dumps(entry) + "\n")
            self._log.flush()
