"""What the recipes share: the learning rate's course and checkpoints that a kill cannot spoil."""

import json
import os
from pathlib import Path

import torch
from torch import nn

from colibri.core.shards import write_json_whole


def schedule(step: int, steps: int, *, warmup: int = 100, decay_from: float = 0.6) -> float:
    """Share of the learning rate: a short rise, level, then straight down to zero."""
    left = (steps - step) / max(1.0, steps * (1 - decay_from))
    return min(1.0, (step + 1) / warmup, left)


def save_training(
    folder: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer], step: int
) -> None:
    """Write `folder`/training.pt whole."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / "training.part"
    torch.save(
        {
            "model": model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            "step": step,
        },
        unfinished,
    )
    os.replace(unfinished, folder / "training.pt")


def load_training(folder: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> int:
    """Bring back the last checkpoint; the number of steps done, 0 if there is none."""
    path = folder / "training.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, values in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(values)
    step: int = state["step"]
    return step


def load_weights(folder: Path, model: nn.Module) -> int:
    """Only the model of the last checkpoint; the number of steps done."""
    state = torch.load(folder / "training.pt", weights_only=True)
    model.load_state_dict(state["model"])
    steps: int = state["step"]
    return steps


def note_length(folder: Path, steps: int) -> None:
    """Keep that a run of `steps` began or went on here: each has a learning rate of its own."""
    lengths = lengths_of(folder)
    if lengths[-1:] != [steps]:
        write_json_whole(folder / "lengths.json", [*lengths, steps])


def lengths_of(folder: Path) -> list[int]:
    """The lengths that runs in this folder had, one after the other."""
    path = folder / "lengths.json"
    lengths: list[int] = json.loads(path.read_text("utf-8")) if path.exists() else []
    return lengths
