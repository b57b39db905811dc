"""What is fastest on one device: the choice from timings, its file in the user's cache, its use.

`trials` measures, `doctor` shows. A profile counts only on the same device with the same PyTorch.
"""

import functools
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colibri.core.cache import cache_folder
from colibri.core.config import from_table, to_table
from colibri.core.errors import UserError
from colibri.core.hashing import hash_text
from colibri.core.shards import write_json_whole

FORMAT = "colibri-profile/1"
Kind = Literal["convolution", "attention", "matmul"]
GAIN = 1.05
"""How many times faster than the usual way another has to be."""
MOST_ERROR = 0.05
"""Largest difference from float32, relative to its largest value, of a way that may be chosen."""
USUAL: dict[str, str] = {"convolution": "dense", "attention": "native"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One way of computing one thing, once measured."""

    kind: Kind
    way: str
    dtype: str
    seconds: float | None = None
    """Median; None where it does not run."""
    tflops: float | None = None
    error: float | None = None
    """From the result in float32, relative to its largest value; None where it is not finite."""
    said: str = ""
    """Why it does not run."""

    @property
    def right(self) -> bool:
        """It ran and the numbers are those of float32, up to rounding."""
        return self.seconds is not None and self.error is not None and self.error <= MOST_ERROR


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What was found fastest: convolution and attention are used where nothing else is asked."""

    convolution: str = "dense"
    """Of the VAE: dense, channels_last, or 2d (sums of 2D convolutions)."""
    attention: str = "native"
    """Backend of diffusers."""
    dtype: str | None = None
    """Half precision that is right and fastest, None: float32; for the reader's information."""
    scheme: str | None = None
    """Quantisation that multiplies faster than `dtype`, if any: for the reader's information."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Of one device."""

    format: str = FORMAT
    device: str
    """Its name, as PyTorch tells it."""
    torch: str
    trials: tuple[Trial, ...]
    chosen: Chosen


def choose(trials: Sequence[Trial]) -> Chosen:
    """The fastest right way of each kind, the usual one where none gains `GAIN`."""
    halves = {
        one.way: one.seconds
        for one in trials
        if one.kind == "matmul" and one.way in ("bfloat16", "float16") and one.right
    }
    # bfloat16 is what Wan was trained in: it gives way only where it is emulated.
    dtype = min(
        halves, key=lambda way: _slow(halves[way]) * (way == "float16" or 0.5), default=None
    )
    fast = {one.way: _slow(one.seconds) for one in trials if one.kind == "matmul" and one.right}
    base = fast.get(dtype or "float32", math.inf)
    few = {way: seconds for way, seconds in fast.items() if way in ("int8-dynamic", "fp8")}
    scheme = min(few, key=few.__getitem__, default=None)
    return Chosen(
        convolution=_fastest(trials, "convolution"),
        attention=_fastest(trials, "attention"),
        dtype=dtype,
        scheme=scheme if scheme and few[scheme] * GAIN < base else None,
    )


def _fastest(trials: Sequence[Trial], kind: str) -> str:
    right = {one.way: _slow(one.seconds) for one in trials if one.kind == kind and one.right}
    if not right:
        return USUAL[kind]
    best = min(right, key=right.__getitem__)
    usual = right.get(USUAL[kind], math.inf)
    return best if right[best] * GAIN < usual else USUAL[kind]


def _slow(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


# ---- the file ----


def path_of(device: str) -> Path:
    """Where the profile of a device of this name is, or would be."""
    return cache_folder() / "profiles" / f"{hash_text(device)[:16]}.json"


def save(profile: Profile) -> Path:
    """Write it whole. UserError where the cache cannot be written."""
    path = path_of(profile.device)
    try:
        write_json_whole(path, to_table(profile))
    except OSError as error:
        raise UserError(
            f"the profile cannot be written to {path}: {error.strerror or error}",
            hint="set XDG_CACHE_HOME to a folder that can be written",
        ) from None
    _known.cache_clear()
    return path


def find(device: str) -> Profile | None:
    """The profile of a torch device (`cpu`, `cuda:0`); None where there is none that counts."""
    import torch

    from colibri.infer.models import device_name

    if device.startswith("cuda") and not torch.cuda.is_available():
        return None
    return _known(path_of(device_name(device)), device_name(device))


@functools.cache
def _known(path: Path, device: str) -> Profile | None:
    import torch

    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        profile = read(table, where=str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, UserError):
        log.warning("%s is damaged and not used; run infer doctor again", path)
        return None
    if (profile.device, profile.torch) != (device, torch.__version__):
        log.warning(
            "the profile of this device is of PyTorch %s and not used; run infer doctor again",
            profile.torch,
        )
        return None
    return profile


def read(table: Mapping[str, Any], *, where: str) -> Profile:
    """From JSON. UserError where it is none."""
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise UserError(f"{where} is no profile of a device", hint=f"expected {FORMAT}")
    return from_table(Profile, table, where=where)


# ---- its use ----


def convolution_of(device: str) -> str:
    """How the VAE's convolutions run on a torch device."""
    profile = find(device)
    return profile.chosen.convolution if profile else USUAL["convolution"]


def set_convolutions(vae: Any, way: str) -> Any:
    """Let a network's 3D convolutions run dense, channels_last, or as sums of 2D ones (2d).

    The same frames up to rounding. UserError for another way.
    """
    import torch

    if way not in ("dense", "channels_last", "2d"):
        raise UserError(f"there is no form of convolution {way!r}", hint="run infer doctor again")
    layout = torch.channels_last_3d if way == "channels_last" else torch.contiguous_format
    for conv in vae.modules():
        if not isinstance(conv, torch.nn.Conv3d):
            continue
        conv.weight.data = conv.weight.data.contiguous(memory_format=layout)
        conv.__dict__.pop("_conv_forward", None)
        if way == "2d":
            conv._conv_forward = functools.partial(sum_of_2d, conv)  # type: ignore[method-assign]
    return vae


def sum_of_2d(conv: Any, x: Any, weight: Any, bias: Any) -> Any:
    """A 3D convolution (B, C, T, H, W) as a sum of 2D ones on shifted frames: equal to rounding.

    Without padding in time (Wan's causal layers pad before) and without dilation.
    """
    from torch.nn import functional

    assert conv.padding[0] == 0
    assert set(conv.dilation) == {1}
    stride = conv.stride[0]
    frames = (x.shape[2] - weight.shape[2]) // stride + 1
    total = None
    for shift in range(weight.shape[2]):
        part = x[:, :, shift : shift + (frames - 1) * stride + 1 : stride]
        term = functional.conv2d(
            part.transpose(1, 2).flatten(0, 1),
            weight[:, :, shift],
            None if shift else bias,
            conv.stride[1:],
            conv.padding[1:],
            groups=conv.groups,
        )
        total = term if total is None else total.add_(term)
    assert total is not None
    return total.unflatten(0, (x.shape[0], frames)).transpose(1, 2)
