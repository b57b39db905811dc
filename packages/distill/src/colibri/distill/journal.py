"""The run's log: one JSON line a step, and the watch over what cannot be mended later."""

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.core.shards import write_text_whole
from colibri.distill.page import read_log


class Journal:
    """`log.jsonl` of one run; a resumed run continues as if it had never been further."""

    def __init__(self, path: Path, *, start: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _lines(path) if line["step"] < start]
        write_text_whole(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, figures: Mapping[str, list[float]], **more: Any) -> dict[str, Any]:
        """Append the mean of each figure; the line that was written."""
        line = {"step": step} | {
            name: statistics.fmean(values) for name, values in sorted(figures.items()) if values
        }
        line |= {key: value for key, value in more.items() if value is not None}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(line)) + "\n")
        return line


class Watch:
    """Stops a run whose gradients stay without a finite value; says once when samples saturate."""

    def __init__(self, most: int, *, saturation_percent: float) -> None:
        self._most, self._saturation = most, saturation_percent
        self._said = False
        self.bad: dict[str, int] = {}
        """Updates in a row that were left out, by network."""

    def accept(self, step: int, net: str, norm: float) -> bool:
        """Whether the update may be made. UserError after too many that may not."""
        if math.isfinite(norm):
            self.bad[net] = 0
            return True
        self.bad[net] = self.bad.get(net, 0) + 1
        if self.bad[net] >= self._most:
            raise UserError(
                f"step {step}: the {net}'s gradient is not finite, {self.bad[net]} times in a row",
                hint="lower the learning rates or guidance.real, and resume from the checkpoint",
            )
        return False

    def warning(self, line: Mapping[str, Any]) -> str | None:
        """What a person should hear of a line of the log, once a run."""
        percent = line.get("sample/saturated_percent", 0.0)
        if self._said or not percent > self._saturation:
            return None
        self._said = True
        return (
            f"warning: step {line['step']}: {percent:.1f} % of the student's latents lie beyond 4 "
            "deviations, a sign of over-exposed samples; look at guidance.real and the samples"
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(path) if isinstance(line.get("step"), int)]


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: such a figure is written as text."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in line.items()
    }
