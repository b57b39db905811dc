"""What `vae train` and `vae evaluate` can be told. Needs no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from colibri.core.config import Size
from colibri.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weight of each term; 0 leaves it out."""

    l1: float = 1.0
    """Mean absolute difference to the clip."""
    lpips: float = 1.0
    """Perceptual distance; needs --lpips-weights, without them it is off."""
    features: float = 1.0
    """Squared difference to the teacher's first three decoder blocks, through a 1x1x1 head each."""
    normalise_features: bool = True
    """Divide each teacher channel by its standard deviation, so that no block outweighs others."""
    temporal: float = 0.5
    """Mean absolute difference of the changes from frame to frame, against flicker."""
    teacher_output: float = 0.0
    """Mean absolute difference to what the teacher decodes; costs a whole teacher decode."""
    kl: float = 1e-7
    """Of the encoder's posterior: shown and added, but without effect, as the encoder is frozen."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A light decoder for a frozen Wan VAE."""

    teacher: str | None = None
    """Folder or hub id of the Wan VAE. None: the tiny one of the small world."""
    clips: Path | None = None
    """Folder of videos, or output folder of `curate run`. None: clips of the rendered small world.
    """
    data_root: Path | None = None
    """Where the videos of curated shards lie; None: beside the shards."""
    out: Path = Path("out/vae")
    size: str = "slim"
    """Named size: base, slim, tiny or micro."""
    causal: bool = True
    """Causal (streams exactly), or seeing a few latents to both sides."""
    init: Path | None = None
    """Light decoder folder to start from instead of random weights."""
    frames: int = 17
    crop: Size = (256, 256)
    batch: int = 1
    """Clips a step on each device."""
    accumulate: int = 8
    """Forward and backward passes for one step of the optimiser."""
    steps: int = 300_000
    lr: float = 1e-4
    warmup: int = 500
    """Steps in which the learning rate rises; after them it falls by a cosine to a tenth."""
    weight_decay: float = 1e-4
    ema: float = 0.999
    """Decay of the averaged weights, which are what is saved as the decoder."""
    clip_norm: float = 1.0
    seed: int = 0
    precision: Literal["bf16", "fp32", "fp64"] = "bf16"
    """bf16 keeps weights in float32; fp64 is for checking that ways to compute agree."""
    device: Literal["auto", "cpu"] = "auto"
    threads: int = 0
    """CPU threads of torch, part of what makes a resumed run equal; 0: as many as it likes."""
    losses: LossConfig = field(default_factory=LossConfig)
    lpips_weights: Path | None = None
    """Folder with torchvision's VGG16 and LPIPS's linear heads; see docs/vae.md."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 10
    preview_every: int = 1000
    """Steps between pictures: clip, teacher and light decoder, one above the other. 0: none."""
    stop_after: int | None = None
    """Stop after this step, as if killed right after its checkpoint. None: go to the end."""
    plan: bool = False
    """Print size, cost and memory, and exit."""

    def __post_init__(self) -> None:
        for name in ("frames", "batch", "accumulate", "steps", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} has to be at least 1")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema has to be in [0, 1), not {self.ema}")
        if not any(
            (self.losses.l1, self.losses.lpips, self.losses.features, self.losses.teacher_output)
        ):
            raise UserError("every loss is off", hint="give --losses.l1 a weight")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Decoders side by side on the same clips and the same teacher's latents."""

    decoders: tuple[str, ...] = ()
    """Decoder folders; the teacher itself is always the first row."""
    teacher: str | None = None
    """Wan VAE that encodes. None: the one that the first decoder names."""
    clips: Path | None = None
    """As for train. None: held-out clips of the rendered small world."""
    data_root: Path | None = None
    count: int = 32
    """Clips; of shards the held-out ones come first."""
    frames: int = 17
    crop: Size = (256, 256)
    """Centre crop, after the short side was scaled to it."""
    chunk: int | None = None
    """Decode in chunks of so many latents; seams are looked for there."""
    halo: int | None = None
    """Non-causal: latents dropped on each side of a chunk; None: exact."""
    blend: int = 0
    """Non-causal: latents over which chunks are mixed."""
    lpips_weights: Path | None = None
    """Folder with AlexNet or VGG16 and LPIPS's linear heads; without it there is no LPIPS column.
    """
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    out: Path | None = None
    """JSON file for the figures."""
