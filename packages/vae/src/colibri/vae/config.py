"""What `vae train`, `encode`, `evaluate` and `bench` can be told. Needs no torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from colibri.core.config import Names, Size
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
    multiscale: float = 0.0
    """Mean absolute difference in each band of a Laplacian pyramid: edges weigh as much as areas.
    """
    gan: float = 0.0
    """Hinge loss of a discriminator of 3D patches, which is trained alongside."""
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
    latents: Path | None = None
    """Output folder of `vae encode` with the latents of these clips; None: encode at every step."""
    made: Path | None = None
    """Folder of latent files that a video model made (`infer ... --keep-latents`): what the teacher
    decodes from them is a target too."""
    made_share: float = 0.25
    """Share of the steps that are spent on them."""
    kind: Literal["light", "2d"] = "light"
    """2d: TAEHV's form, 2D convolutions with a memory of one frame, to compare with."""
    size: str = "slim"
    """Named size: base, slim, tiny or micro. With --init DIR it is that decoder's."""
    causal: bool = True
    """Causal (streams exactly), or seeing a few latents to both sides."""
    init: Path | None = None
    """What to start from instead of random weights: a light decoder (its folder, or embedded:NAME),
    or the word teacher for the teacher's own channels."""
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
    gan_from: int = 0
    """Step from which the discriminator is trained and heard; 0: from the first."""
    lpips_weights: Path | None = None
    """Folder with torchvision's VGG16 and LPIPS's linear heads; see docs/vae.md."""
    tracker: Literal["none", "tensorboard", "trackio"] = "none"
    """Where the terms go besides OUT/metrics.jsonl."""
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
        if self.stop_after is not None and self.stop_after < 1:
            raise UserError("--stop-after has to be at least 1", hint="leave it out to go on")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema has to be in [0, 1), not {self.ema}")
        if not 0 <= self.made_share <= 1:
            raise UserError(f"--made-share has to be in [0, 1], not {self.made_share}")
        loss = self.losses
        terms = [loss.l1, loss.temporal, loss.teacher_output, loss.multiscale, loss.gan]
        terms += [loss.lpips] if self.lpips_weights else []
        terms += [loss.features] if self.kind == "light" else []
        if not any(terms):
            raise UserError(
                "every loss that this run could have is off", hint="give --losses.l1 a weight"
            )
        if self.kind == "2d" and not self.causal:
            raise UserError("a 2d decoder is causal", hint="leave out --no-causal")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """A frozen Wan VAE's latents of clips, for `vae train --latents`."""

    teacher: str | None = None
    """Folder or hub id of the Wan VAE. None: the tiny one of the small world."""
    clips: Path | None = None
    """Folder of videos, or output folder of `curate run`. None: clips of the rendered small world.
    """
    data_root: Path | None = None
    """Where the videos of curated shards lie; None: beside the shards."""
    out: Path = Path("out/latents")
    count: int | None = None
    """Clips at most. None: all of them; 2000 of the small world, which has no end."""
    cuts: int = 1
    """Random cuts of each clip: places in time and picture, mirrored half of the time."""
    frames: int = 17
    crop: Size | None = None
    """None: the small world's 64x64 without --clips, else 256x256."""
    shard: int = 64
    """Cuts in one file, which is also what a kill can cost."""
    batch: int = 1
    """Cuts encoded at once."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the kept latents."""
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    plan: bool = False
    """Print counts and size, and exit."""

    def __post_init__(self) -> None:
        for name in ("frames", "cuts", "shard", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} has to be at least 1")
        if self.count is not None and self.count < 1:
            raise UserError("--count has to be at least 1")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Decoders side by side on the same clips and the same teacher's latents."""

    decoders: Names = ()
    """Decoder folders, separated by commas; the teacher itself is always the first row. None, and
    no teacher either: embedded:tiny-light."""
    teacher: str | None = None
    """Wan VAE that encodes. None: the one that the first decoder names, without decoders the tiny
    one of the small world."""
    clips: Path | None = None
    """As for train. None: held-out clips of the rendered small world."""
    data_root: Path | None = None
    count: int = 32
    """Clips; of shards the held-out ones come first."""
    frames: int = 17
    crop: Size | None = None
    """Centre crop, after the short side was scaled to it. None: the small world's 64x64 without
    --clips, else 256x256."""
    chunk: int | None = None
    """Decode in chunks of so many latents; seams are looked for there."""
    halo: int | None = None
    """Non-causal: latents dropped on each side of a chunk; None: exact."""
    blend: int = 0
    """Non-causal: latents over which chunks are mixed."""
    max_seams: float | None = None
    """Exit with status 1 where a decoder's seams are more than this; about 1 is none."""
    lpips_weights: Path | None = None
    """Folder with AlexNet or VGG16 and LPIPS's linear heads; without it there is no LPIPS column.
    """
    fvd_weights: Path | None = None
    """TorchScript file of the I3D network that FVD is defined on; without it there is no FVD."""
    html: Path | None = None
    """A page with the table and strips of frames to look at."""
    device: Literal["auto", "cpu"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    out: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError("--count has to be at least 1")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Decoders in one run over growing lengths."""

    decoders: Names = ("light-causal", "light", "2d", "fast-wan", "diffusers-wan")
    """light, light-causal, 2d, fast-wan, compiled-wan (fast-wan with norms compiled) and
    diffusers-wan have random weights; any other word is a decoder folder."""
    family: str = "tiny-ti2v"
    """Model family whose latents are decoded."""
    light: str = "tiny"
    """Named size of the light and 2d decoders."""
    frames: tuple[int, ...] = (17, 33, 65, 129)
    size: Size | None = None
    """None: the family's."""
    chunk: int = 8
    """Latents at once; diffusers' own decoder takes them one by one."""
    runs: int = 3
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu"] = "auto"
    threads: int = 0
    """CPU threads of torch; 0: as many as it likes."""
    limit_s: float = 600
    """For one decoder at one length."""
    save: bool = True
    """Note the fastest way to run a light decoder's convolutions: it is used on this device from
    then on."""
    out: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        for name in ("chunk", "runs"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} has to be at least 1")
        if not self.decoders or not self.frames:
            raise UserError("there is nothing to measure", hint="name --decoders and --frames")
