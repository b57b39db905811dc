"""Checkpoints from which a run goes on as if it had never stopped, at the same number of processes.

One folder each: `rank-NNNNN.safetensors`, what that process holds of weights, averages, both
optimisers and random states, and `state.json`. The folder gets its name last, by a rename.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.latents import check_safetensors
from colibri.core.shards import write_json_whole, write_whole
from colibri.distill.parallel import World, like, local

FORMAT = "colibri-distill/1"


def save(
    folder: Path,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    step: int,
    world: World,
    keep: int,
) -> Path:
    """Write `folder/step-NNNNNNNN` from all processes; the oldest beyond `keep` are removed."""
    from safetensors.torch import save_file

    final = folder / f"step-{step:08d}"
    part = folder / f".{final.name}.part"
    if world.leads:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    world.wait()
    held = {
        name: local(tensor).detach().cpu().contiguous().clone() for name, tensor in tensors.items()
    }
    write_whole(part / _rank_file(world.rank), lambda path: save_file(held, path))
    world.wait()
    if world.leads:
        about = {"format": FORMAT, "step": step, "world": world.size, **state}
        write_json_whole(part / "state.json", about)
        if final.exists():  # left by a run whose end was not seen
            shutil.rmtree(final)
        os.replace(part, final)
        for old in _finished(folder)[:-keep]:
            shutil.rmtree(old)
    world.wait()
    return final


def roll_back(folder: Path, good: Path) -> None:
    """Make `good` the newest checkpoint of `folder`; later ones are removed."""
    for later in _finished(folder):
        if later.name > good.name:
            shutil.rmtree(later)
    if not (folder / good.name).exists():
        part = folder / f".{good.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(good, part)
        os.replace(part, folder / good.name)


def latest(folder: Path) -> Path | None:
    """The newest finished checkpoint."""
    return next(reversed(_finished(folder)), None)


def read_about(checkpoint: Path) -> dict[str, Any]:
    """`state.json`; UserError where it is damaged."""
    path = checkpoint / "state.json"
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {error}", hint=f"remove {checkpoint} to go on from before it"
        ) from None
    if state.get("format") != FORMAT:
        raise UserError(f"{path} is of the form {state.get('format')!r}, not {FORMAT!r}")
    return state


def read_state(checkpoint: Path, *, world: World) -> dict[str, Any]:
    """`state.json`; UserError where it is damaged or of another number of processes."""
    state = read_about(checkpoint)
    if state["world"] != world.size:
        raise UserError(
            f"{checkpoint} is of {state['world']} processes, this run has {world.size}",
            hint="resume with as many, or start in another --out",
        )
    return state


def read_tensors(checkpoint: Path, *, world: World) -> dict[str, Tensor]:
    """What this process wrote; UserError for a missing or cut file."""
    from safetensors.torch import load_file

    path = checkpoint / _rank_file(world.rank)
    try:
        check_safetensors(path)
    except UserError as error:
        raise UserError(
            error.message, hint=f"remove {checkpoint} to go on from before it"
        ) from None
    return load_file(path)


def optimiser_tensors(
    optimiser: torch.optim.Optimizer, weights: Mapping[str, Tensor], *, prefix: str
) -> dict[str, Tensor]:
    """An optimiser's state by weight: `prefix/exp_avg/NAME`."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        for key, value in optimiser.state.get(weight, {}).items():
            found[f"{prefix}/{key}/{name}"] = torch.as_tensor(value)
    return found


def restore_optimiser(
    optimiser: torch.optim.Optimizer,
    weights: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    *,
    prefix: str,
) -> None:
    """Undo `optimiser_tensors`."""
    optimiser.state.clear()
    for full, value in tensors.items():
        if full.startswith(f"{prefix}/"):
            _, key, name = full.split("/", 2)
            weight = weights[name]
            # the count of steps is a plain number on the CPU; averages lie as their weight does
            optimiser.state[weight][key] = value if key == "step" else like(weight, value)


@torch.no_grad()
def restore(into: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, prefix: str) -> None:
    """Copy `prefix/NAME` into each tensor; UserError where one is missing or of another shape."""
    for name, weight in into.items():
        value = tensors.get(f"{prefix}/{name}")
        mine = local(weight)
        if value is None or value.shape != mine.shape:
            raise UserError(
                f"the checkpoint has no {prefix}/{name} of the shape {tuple(mine.shape)}",
                hint="it is of another model or another --mode",
            )
        mine.copy_(value)


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """States of torch's global generators; the run's own draws need none."""
    states = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random/cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Undo `random_tensors`."""
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda" and "random/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random/cuda"], device)


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def _rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"
