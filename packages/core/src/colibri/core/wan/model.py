"""A Wan model in memory: build it at random, on the meta device, or measure it without weights."""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import ModelFamily

DType = Literal["float32", "bfloat16", "float16"]
WEIGHTS = ("text_encoder", "transformer", "vae")
PARTS = ("tokenizer", *WEIGHTS)


@dataclass(kw_only=True)
class WanModel:
    """The parts of one model that were loaded or built; the others are None."""

    family: ModelFamily
    tokenizer: Any = None
    text_encoder: Any = None
    transformer: Any = None
    vae: Any = None
    schedule: FlowSchedule | None = None
    """The schedule a student was trained for; None for a teacher."""
    folder: Path | None = None
    """Where it was loaded from: a folder, or one file."""

    @functools.cached_property
    def vae_hash(self) -> str:
        """What latents of this model are bound to. Reads the VAE's weights once."""
        from colibri.core.wan.decoder import hash_vae
        from colibri.core.wan.folder import hash_vae_of

        return hash_vae_of(self.folder) if self.folder else hash_vae(self.vae)

    def sampling_schedule(
        self, *, sampler: str | None = None, steps: int | None = None, shift: float | None = None
    ) -> FlowSchedule:
        """The trained schedule where there is one and nothing else is asked, else a grid."""
        from colibri.core.wan.sampler import schedule_for

        if self.schedule is not None and sampler is None and steps is None and shift is None:
            return self.schedule
        default = self.family.defaults
        return schedule_for(
            sampler or default.sampler, steps or default.steps, shift or default.shift
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """What the weights of a part need."""

    parameters: int
    bytes: int


def build(
    family: ModelFamily, *, seed: int, parts: Sequence[str] = WEIGHTS, tokenizer: Any = None
) -> WanModel:
    """A model with random weights in float32 on the CPU: the libraries' own initialisation."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = {part: build_part(family, part).eval() for part in WEIGHTS if part in parts}
    return WanModel(family=family, tokenizer=tokenizer, **networks)


def build_meta(family: ModelFamily, part: str) -> Any:
    """A part on the meta device: every shape, no memory."""
    import torch

    with torch.device("meta"):
        return build_part(family, part)


def measure(
    family: ModelFamily, *, dtype: DType = "bfloat16", vae_dtype: DType = "float32"
) -> dict[str, Footprint]:
    """Parameters and bytes of each part's weights as `load` holds them, without holding them."""
    import torch

    footprints = {}
    for part in WEIGHTS:
        network = build_meta(family, part)
        kind = vae_dtype if part == "vae" else dtype
        full = kept_in_float32(network, part, kind)
        width = getattr(torch, kind).itemsize
        footprints[part] = Footprint(
            parameters=sum(weight.numel() for weight in network.parameters()),
            bytes=sum(
                weight.numel() * (4 if full & set(name.split(".")) else width)
                for name, weight in network.named_parameters()
            ),
        )
    return footprints


def kept_in_float32(network: Any, part: str, dtype: DType) -> set[str]:
    """Names of the modules that stay in float32: diffusers keeps them so at either half precision,
    transformers at float16 only (`_keep_in_fp32_modules` in both)."""
    if part == "text_encoder" and dtype == "bfloat16":
        return set()
    return set(getattr(network, "_keep_in_fp32_modules", None) or ())


def network_class(part: str) -> Any:
    if part == "text_encoder":
        from transformers import UMT5EncoderModel

        return UMT5EncoderModel
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    return {"transformer": WanTransformer3DModel, "vae": AutoencoderKLWan}[part]


def build_part(family: ModelFamily, part: str) -> Any:
    if part == "text_encoder":
        from transformers import UMT5Config

        return network_class(part)(UMT5Config(**family.text_encoder))
    config = {"transformer": family.transformer, "vae": family.vae}[part]
    return network_class(part).from_config(
        json.loads(json.dumps(dict(config)))
    )  # lists, as on disk
