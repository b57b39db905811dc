"""Small runs of `infer` for tests, and modules of one's own that they may name."""

from pathlib import Path

import numpy as np
import pytest
from colibri.core.video import read_frames
from colibri.infer.config import T2vConfig


def settings(model: Path, out: Path, **more: object) -> T2vConfig:
    """One step, 5 frames of 48x32."""
    given = {"model": str(model), "out": out, "prompt": "a red circle", "steps": 1, "frames": 5}
    given |= {"device": "cpu", "size": (32, 48), "guidance": 1.0}
    return T2vConfig(**given | more)  # type: ignore[arg-type]


def quiet(_: str) -> None:
    """Says nothing."""


def frames_of(video: Path) -> np.ndarray:
    """All frames, (frames, height, width, 3)."""
    with video.open("rb") as file:
        return np.stack(list(read_frames(file)))


def own_module(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of one's own, on the path."""
    folder = tmp_path / "modules"
    folder.mkdir()
    path = folder / f"{name}.py"
    path.write_text(code)
    monkeypatch.syspath_prepend(folder)
    return path
