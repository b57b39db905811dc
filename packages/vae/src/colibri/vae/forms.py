"""How a light decoder's convolutions run on a device: 3D or 2D, channels first or last.

All forms give the same video up to rounding; which is fastest differs by device and width, often by
several times. `fastest` times them, `remember` keeps what was found for `chosen`, `usual` is the
choice without a clock.
"""

import itertools
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from colibri.core.cache import cache_folder
from colibri.core.hashing import hash_json
from colibri.core.shards import write_json_whole
from colibri.vae.light import Form, LightDecoder


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One way to run."""

    dense: Form
    """Full convolutions."""
    depthwise: Form
    channels_last: bool

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        return f"full {self.dense}, depthwise {self.depthwise}, {layout}"


FORMS: tuple[Form, ...] = ("3d", "2d")
CHOICES = tuple(
    Choice(dense=dense, depthwise=depthwise, channels_last=last)
    for dense, depthwise, last in itertools.product(FORMS, FORMS, (True, False))
)

NARROW = 64
"""Below this last width a CPU's 3D convolutions lose to 2D ones, by several times at width 24; from
here on they win (torch 2.13, one thread, float32; `vae bench --out` notes what is fastest)."""


def chosen(decoder: LightDecoder, device: str | torch.device) -> Choice:
    """What was found fastest for a decoder of this shape on this device and noted by `remember`;
    else the usual."""
    place = torch.device(device)
    try:
        noted = json.loads(_note(decoder, place).read_text(encoding="utf-8"))["choice"]
        return next(choice for choice in CHOICES if str(choice) == noted)
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return usual(decoder, place.type)


def remember(decoder: LightDecoder, device: str | torch.device, choice: Choice) -> Path:
    """Note a choice for `chosen` in the user's cache; the note's path."""
    path = _note(decoder, torch.device(device))
    write_json_whole(path, {"choice": str(choice)})
    return path


def _note(decoder: LightDecoder, device: torch.device) -> Path:
    at_hand = device.type == "cuda" and torch.cuda.is_available()
    name = torch.cuda.get_device_name(device) if at_hand else platform.machine()
    dtype = str(next(decoder.parameters()).dtype)
    key = hash_json([asdict(decoder.config), device.type, name, dtype, torch.__version__])
    return cache_folder() / "forms" / f"{key[:16]}.json"


def usual(decoder: LightDecoder, device: str) -> Choice:
    """The choice by rule, the same on every run; `device` is a torch device type."""
    narrow = decoder.config.widths[-1] < NARROW
    dense: Form = "2d" if device == "cpu" and narrow else "3d"
    return Choice(dense=dense, depthwise="3d", channels_last=True)


def fastest(
    decoder: LightDecoder,
    latents: Tensor,
    *,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Choice, float]:
    """Time every choice on these latents, leave `decoder` in the fastest; best seconds of each."""
    times: dict[Choice, float] = {}
    for choice in CHOICES:
        apply(decoder, choice)
        for repeat in range(repeats + 1):
            start = clock()
            with torch.no_grad():
                decoder(latents)
            if latents.is_cuda:
                torch.cuda.synchronize()
            taken = clock() - start
            if repeat:  # the first call finds its kernels
                times[choice] = min(times.get(choice, taken), taken)
    apply(decoder, min(times, key=times.__getitem__))
    return times


def apply(decoder: LightDecoder, choice: Choice) -> None:
    """Run in this way from now on; weights are moved in memory, not changed."""
    decoder.set_form(choice.dense, depthwise=choice.depthwise)
    layout = torch.channels_last_3d if choice.channels_last else torch.contiguous_format
    for parameter in decoder.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)
