"""Progress of large files in megabytes, told by several threads."""

import threading

from colibri.core.progress import Progress


class Megabytes:
    """A progress line in MB. Call it with the bytes that came, or negative with bytes dropped."""

    def __init__(self, what: str, total_bytes: int) -> None:
        self._progress = Progress(f"{what}, MB", round(total_bytes / 1e6))
        self._lock = threading.Lock()
        self._bytes = self._shown = 0

    def __call__(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            fresh = round(self._bytes / 1e6) - self._shown
            if fresh > 0:
                self._shown += fresh
                self._progress.add(fresh)

    def __enter__(self) -> "Megabytes":
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
