"""Figures to a tracker beside log.jsonl: TensorBoard, trackio or Weights & Biases, by choice."""

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from colibri.core.errors import UserError


class Tracker(Protocol):
    """Hears each line of the log."""

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        """Numbers of one step, by name."""

    def close(self) -> None:
        """After the last step."""


def open_tracker(
    name: str, *, out: Path, config: dict[str, Any], say: Callable[[str], object]
) -> Tracker | None:
    """None for `none`. UserError where the tracker is not installed."""
    if name == "none":
        return None
    if name == "tensorboard":
        _need(name, "tensorboard")
        return _TensorBoard(out / "tensorboard")
    module = _need(name, name)
    if name == "trackio":
        module.init(project="colibri-distill", name=out.name, config=config)
        return _Run(module)
    account = bool(os.environ.get("WANDB_API_KEY")) or (Path.home() / ".netrc").is_file()
    if not account:
        say(f"wandb: no account is set up, so the run stays offline in {out / 'wandb'}")
    out.mkdir(parents=True, exist_ok=True)
    module.init(
        project="colibri-distill",
        name=out.name,
        dir=str(out),
        config=config,
        mode="online" if account else "offline",
    )
    return _Run(module)


class _Run:
    """trackio and wandb share these names."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def log(self, step: int, figures: Mapping[str, Any]) -> None:
        self._module.log(_numbers(figures), step=step)

    def close(self) -> None:
        self._module.finish()


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

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
