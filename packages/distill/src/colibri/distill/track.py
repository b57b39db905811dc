"""Figures to a tracker beside log.jsonl: TensorBoard, trackio or Weights & Biases, by choice."""

import importlib
import netrc
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from colibri.core.errors import UserError
from colibri.core.shards import write_text_whole


class Tracker(Protocol):
    """Hears each line of the log."""

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        """Numbers of one step, by name."""

    def close(self) -> None:
        """After the last step."""


def open_tracker(
    name: str, *, out: Path, config: dict[str, Any], start: int, say: Callable[[str], object]
) -> Tracker | None:
    """None for `none`. A run that was stopped goes on as the same one there, from step `start`.
    UserError where the tracker is not installed."""
    if name == "none":
        return None
    if name == "tensorboard":
        _need(name, "tensorboard")
        return _TensorBoard(out / "tensorboard", start=start)
    module = _need(name, name)
    run_id = _run_id(out)
    if name == "trackio":  # which knows runs by their names
        module.init(
            project="colibri-distill", name=f"{out.name}-{run_id}", resume="allow", config=config
        )
        return _Run(module)
    mode = None if os.environ.get("WANDB_MODE") else "online" if _wandb_account() else "offline"
    if mode == "offline":
        say(f"wandb: no account is set up, so the run stays offline in {out / 'wandb'}")
    module.init(
        project="colibri-distill",
        name=out.name,
        id=run_id,
        resume="allow",
        dir=str(out),
        config=config,
        mode=mode,
    )
    return _Run(module)


def _run_id(out: Path) -> str:
    """Drawn once for a run's folder."""
    path = out / "track-id"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_text_whole(path, f"{uuid.uuid4().hex[:8]}\n")
    return path.read_text(encoding="utf-8").strip()


def _wandb_account() -> bool:
    """Whether wandb has a key for its server: in its variable, or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(Path.home() / ".netrc").authenticators(str(host)) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class _Run:
    """trackio and wandb share these names."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        self._module.log(_numbers(figures), step=step)

    def close(self) -> None:
        self._module.finish()


class _TensorBoard:
    def __init__(self, folder: Path, *, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=start)

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        for name, value in _numbers(figures).items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in figures.items()
        if name != "step" and isinstance(value, int | float)
    }


def _need(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"--track {name} needs {module}, which is not installed",
            hint=f"pip install {module}, or leave --track out",
        ) from None
