"""A model's parts where a memory plan wants them, and the steps down when memory runs out.

`place` once after loading; `enter` before a stage. A model that was never placed stays as it is.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.wan.rows import set_frame_rows
from colibri.infer.decode import free_memory
from colibri.infer.memory import Way, ways_for
from colibri.infer.models import Machine
from colibri.infer.stream_weights import BlockStream, chunk_ffn


@dataclass(kw_only=True)
class Placed:
    """Where the parts of one model are now."""

    device: str
    way: Way
    stream: BlockStream | None = None
    processes: int = 1
    """That share each pass."""


_PLACED: "weakref.WeakKeyDictionary[nn.Module, Placed]" = weakref.WeakKeyDictionary()


def place(model: wan.WanModel, machine: Machine) -> None:
    """Put a denoiser, loaded on the host or the device, where the plan of `machine` wants it."""
    way = machine.plan.way if machine.plan else Way()
    _PLACED[model.transformer] = Placed(device=machine.device, way=way)
    _set(model, way)


def way_of(model: wan.WanModel) -> Way:
    """How the transformer is placed."""
    placed = _find(model)
    return placed.way if placed else Way()


def note_shared(model: wan.WanModel, processes: int) -> None:
    """Several processes share the passes of a placed model."""
    _PLACED[model.transformer].processes = processes


def rounding(model: wan.WanModel) -> dict[str, str]:
    """What of the placement may round frames differently, for their record."""
    way, placed = way_of(model), _find(model)
    found = {}
    if way.ffn_chunks > 1 or way.lean:
        found["memory"] = f"feed-forward in {way.ffn_chunks}" + (", lean" if way.lean else "")
    if placed is not None and placed.processes > 1:
        found["shared"] = f"by {placed.processes} processes"
    return found


def enter(model: wan.WanModel, stage: str) -> None:
    """Make room for a stage: `denoise`, `encode` (a first frame), `decode`, or `away` (all leave).

    Parts that leave go to the host. Where the VAE does not wait, both stay for all but `away`.
    """
    placed = _find(model)
    if placed is None:
        return
    vae_waits, away = placed.way.vae_waits, stage == "away"
    here = not away and (not vae_waits or stage == "denoise")
    vae_here = not away and (not vae_waits or stage != "denoise")
    if not here:
        move(model.transformer, "cpu")
    if model.vae is not None:
        model.vae.to(placed.device if vae_here else "cpu")
    if not (here and vae_here):
        free_memory()
    if here:
        move(model.transformer, placed.device)


def move(transformer: Any, device: str) -> None:
    """A transformer to a device; of a streamed one, what is not in its blocks."""
    placed = _PLACED.get(transformer)
    stream = placed.stream if placed else None
    if stream is None:
        transformer.to(device)
        return
    if torch.device(device).type == "cpu" and stream.device.type != "cpu":
        stream.leave()
    blocks = {id(one) for block in transformer.blocks for one in block.modules()}
    for owner in transformer.modules():
        if id(owner) in blocks:
            continue
        for parameter in owner._parameters.values():
            if parameter is not None:
                parameter.data = parameter.data.to(device)
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = buffer.to(device)


def step_down(model: wan.WanModel) -> Way | None:
    """The next way that needs less, in place; None where there is none."""
    placed = _find(model)
    if placed is None:
        return None
    ways = ways_for(placed.device)
    index = ways.index(placed.way) + 1
    if index == len(ways):
        return None
    _set(model, ways[index])
    return ways[index]


def stream_encoder(encoder: Any, device: str) -> BlockStream:
    """Let a text encoder's blocks visit the device one by one; the rest of it moves there."""
    stream = BlockStream(encoder.encoder.block, device)
    _PLACED[encoder] = Placed(device=device, way=Way(place="stream"), stream=stream)
    blocks = {id(one) for block in encoder.encoder.block for one in block.modules()}
    for owner in encoder.modules():
        if id(owner) not in blocks:
            for parameter in owner._parameters.values():
                if parameter is not None:
                    parameter.data = parameter.data.to(device)
    return stream


def _set(model: wan.WanModel, way: Way) -> None:
    placed = _find(model)
    assert placed is not None
    enter(model, "away")
    if placed.stream is not None:
        placed.stream.close()
        placed.stream = None
    free_memory()
    for block in model.transformer.blocks:
        chunk_ffn(block, way.ffn_chunks)
    set_frame_rows(model.transformer, way.lean)
    if way.place == "stream":
        if model.transformer.blocks[0]._compiled_call_impl is not None:
            raise UserError("--compile cannot be used with weights that stream")
        placed.stream = BlockStream(model.transformer.blocks, placed.device)
    placed.way = way
    enter(model, "denoise")


def _find(model: wan.WanModel) -> Placed | None:
    return None if model.transformer is None else _PLACED.get(model.transformer)
