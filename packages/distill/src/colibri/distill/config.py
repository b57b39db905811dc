"""What `distill` can be told. Every default stands here and nowhere else. Imports no torch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from colibri.core.config import Names, Size, to_table
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import Causal


@dataclass(frozen=True, kw_only=True, slots=True)
class GuidanceConfig:
    """Classifier-free guidance of the two scores."""

    form: Literal["standard", "extra"] = "standard"
    """standard: u + w (c - u), 1 is without guidance; extra: c + w (c - u), 0 is without. Public
    code uses both: extra 6 (HummingbirdXT) is standard 7."""
    real: float = 5.0
    """Weight w of the teacher's score."""
    fake: float = 1.0
    """Weight w of the critic's score; public code leaves it at the conditional branch alone."""

    def standard(self, weight: float) -> float:
        """`weight` in the standard form: extra w is standard w + 1."""
        return weight + 1 if self.form == "extra" else weight


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The steps that the student is trained for, and is saved with."""

    steps: tuple[float, ...] = (1000.0, 750.0, 500.0)
    """Timesteps before the shift, falling, in (0, 1000]."""
    shift: float = 5.0
    """Shift of `steps`."""

    def build(self) -> FlowSchedule:
        """The sigmas; UserError for a list that does not fall, or leaves (0, 1000]."""
        for step in self.steps:
            if not 0 < step <= 1000:
                raise UserError(f"schedule.steps are timesteps in (0, 1000], found {step:g}")
        return FlowSchedule.listed(self.steps, shift=self.shift)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseConfig:
    """Noise levels at which the scores are compared and the critic is trained."""

    shift: float = 5.0
    """Shift of a uniform draw."""
    low: float = 0.02
    """Least sigma."""
    high: float = 0.98
    """Greatest sigma."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DmdConfig:
    """The student's distribution matching gradient."""

    weight: float = 1.0
    """Factor of the term."""
    floor: float = 1e-5
    """Least value of the normaliser, in latent units (rCM clips there too)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenoiseConfig:
    """The critic's denoising loss on the student's samples."""

    weight: float = 1.0
    """Factor of the term."""
    target: Literal["velocity", "x0"] = "velocity"
    """What the error is measured in; x0 is velocity weighted by sigma squared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyConfig:
    """The student's discrete consistency along the teacher's guided path."""

    weight: float = 1.0
    """Factor of the term."""
    grid: int = 48
    """Levels between noise and clip (Causal Forcing++: 48)."""
    of: Literal["samples", "clips"] = "samples"
    """What is noised: the student's samples, or real clips (`distill encode --clips FRAMES`), with
    which a causal student can start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegressConfig:
    """The student's regression on the ends of the teacher's guided paths."""

    weight: float = 1.0
    """Factor of the term."""
    steps: int = 15
    """Least Euler steps of a path; CausVid: 50, Self-Forcing: 48, both in files made before."""
    context: Literal["clean", "noisy"] = "clean"
    """What a causal student's blocks see of those before them. clean: the path's end, as in a
    rollout. noisy: the states at those blocks' own levels, as CausVid and Self-Forcing do; goes
    with `causal.past = "last_step"`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsConfig:
    """Files of the teacher's guided paths, for `regress`; `distill ode-pairs` makes them alone."""

    rows: int = 0
    """The first so many rows get a path, made once; 0: paths are made on the way, for all rows."""
    folder: Path | None = None
    """Where they are, or are made. Without it: `OUT/pairs`."""
    shard_rows: int = 64
    """Rows in one file."""
    batch: int = 8
    """Paths made at once."""
    store: Literal["float16", "float32"] = "float16"
    """What states are kept in; Self-Forcing: float16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamConfig:
    """Long clips with `rollout = "stream"`."""

    rounds: int = 8
    """Rounds on one clip, the first of the teacher's length, before a new clip begins."""
    blocks: int = 1
    """Blocks that a later round adds. LongLive: 6 and more of 3 latent frames, up to 240 frames."""
    switch: int = 0
    """Round, from 1, at which a clip goes on with another row's prompt; 0: never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiversityConfig:
    """The student's first step is held to the teacher's path."""

    weight: float = 0.05
    """Factor of the term (LightX2V: .05)."""
    anchor: int = 5
    """Step of the teacher's path that is aimed at (LightX2V: 5)."""
    steps: int = 50
    """Steps of the whole path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversaryConfig:
    """The student's part in a GAN (`adversary`), with a head on the critic's features."""

    weight: float = 5e-3
    """Factor of the term (DMD2: 5e-3; FastGen for the 5B: .03)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscriminateConfig:
    """The head's part in a GAN (`discriminate`): real clips against the student's."""

    weight: float = 1e-2
    """Factor of the term (DMD2: 1e-2)."""
    layers: tuple[int, ...] = ()
    """Blocks of the critic whose outputs are judged, from 0. Without any: the middle one."""
    width: int = 128
    """Width of the head."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """How the student is trained."""

    lr: float = 2e-6
    """Learning rate after the warm-up."""
    clip: float = 10.0
    """Greatest norm of the gradient."""
    rank: int = 128
    """Rank of its adapter, with `mode = "lora"`."""
    every: int = 5
    """The student is updated at every so many updates of the critic."""
    ema: float = 0.99
    """Decay of the average of its weights."""
    ema_start: int = 0
    """Updates of the student before the average starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticConfig:
    """How the critic is trained."""

    lr: float = 4e-7
    """Learning rate after the warm-up."""
    clip: float = 10.0
    """Greatest norm of the gradient."""
    rank: int = 128
    """Rank of its adapter, with `mode = "lora"`."""
    ida: float = 1.0
    """After an update of the student, critic = ida * critic + (1 - ida) * student (SenseFlow's
    implicit distribution alignment); 1 turns it off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamConfig:
    """AdamW of both networks."""

    beta1: float = 0.0
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup: int = 0
    """Updates over which the learning rate rises from 0."""
    decay_from: float = 1.0
    """Share of the steps after which learning rates fall to 0 in a straight line; 1: never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchConfig:
    """When a run is stopped. Ratios are the student's figure over the teacher's, in validation."""

    bad_steps: int = 3
    """Updates of one network in a row without a finite gradient; each is left out."""
    saturation: float = 6.0
    """Latents of the samples beyond 4 standard deviations, in percent, at which a warning is
    printed."""
    motion: float = 0.25
    """Least ratio of motion; below, the student is frozen."""
    spread: float = 1.6
    """Greatest ratio of deviation, and its inverse the least; beyond, clips are over-exposed or
    washed out."""
    shift: float = 1.5
    """Greatest distance of a channel's mean from the teacher's, in the teacher's deviations."""
    variety: float = 0.15
    """Least ratio of the distance between clips of one prompt."""
    patience: int = 2
    """Validations in a row beyond a limit that stop the run; it is rolled back to before them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Teacher and encoded prompts in, few-step student out."""

    teacher: str = "tiny-ti2v"
    """Model folder, hub id or family of the teacher. tiny-ti2v: the embedded one."""
    encoded: Path | None = None
    """Folder that `distill encode` wrote. Without it: prompts of the small embedded world."""
    out: Path = Path("out/distill")
    """Folder for checkpoints, logs, samples and the student. The same folder resumes a run."""
    mode: Literal["full", "lora"] = "full"
    """full: three networks. lora: one frozen base; student and critic are adapters on it and the
    teacher is the base alone."""
    start: Path | None = None
    """What the student starts from: the `out` of an earlier run (its averaged student, its critic),
    or a model folder. Without it: the teacher."""
    rollout: Literal["clip", "blocks", "stream"] = "clip"
    """How the student makes a clip. clip: whole. blocks: block after block with a key cache, as
    `causal` says. stream: the same, going on past the teacher's length over many updates."""
    terms: Names = ("dmd", "denoise")
    """Losses that are summed: names, or module:attribute of your own."""
    size: Size = (64, 64)
    """WIDTHxHEIGHT of the clips."""
    frames: int = 17
    """Frames of the clips."""
    steps: int = 1000
    """Updates of the critic; the student has one at every `student.every`."""
    batch: int = 4
    """Samples in a forward pass of one process."""
    accumulate: int = 1
    """Forward passes in one update, for both networks."""
    p_i2v: float = 0.5
    """Share of samples, in [0, 1], that are given their first frame; others are text to video."""
    seed: int = 0
    """Decides every draw of the run."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """What the networks compute in; trained weights are float32 (float64 for fp64)."""
    device: str = "auto"
    """auto: an accelerator where there is one."""
    shard: bool = False
    """Split weights, gradients and optimiser states over the processes (FSDP2)."""
    context: int = 1
    """Processes that share each clip, every one with a part of its tokens (Ulysses attention)."""
    checkpointing: bool = False
    """Compute activations again in the backward pass, block by block."""
    compile: bool = False
    """torch.compile each block."""
    attention: str | None = None
    """Backend of diffusers for self-attention. Without it: flash-attn where it is installed, on
    CUDA in bf16 with processes that each have their clips; else PyTorch's own."""
    batched_cfg: bool = True
    """Ask for both branches of guidance in one pass of twice the batch."""
    short_text: bool = True
    """Count a prompt's padding as one weighted token: the same result from fewer tokens. Without
    effect with `checkpointing` or `compile`."""
    quantize: Literal["none", "int8"] = "none"
    """int8: the frozen base is held in 8 bits (torchao); with `mode = "lora"`."""
    save_every: int = 100
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints that are kept."""
    validate_every: int = 0
    """Steps between validation samples; 0: none."""
    validate_rows: int = 4
    """Prompts in a validation, with two seeds each."""
    teacher_steps: int = 50
    """Steps of the teacher's clips that a validation compares with; made once a run."""
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    """Where figures go beside log.jsonl. wandb without an account stays offline."""
    log_every: int = 1
    """Steps between lines in log.jsonl, each the mean since the line before."""
    plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print memory and time, and stop."""
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    adam: AdamConfig = field(default_factory=AdamConfig)
    causal: Causal = field(default_factory=Causal)
    stream: StreamConfig = field(default_factory=StreamConfig)
    pairs: PairsConfig = field(default_factory=PairsConfig)
    dmd: DmdConfig = field(default_factory=DmdConfig)
    denoise: DenoiseConfig = field(default_factory=DenoiseConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    regress: RegressConfig = field(default_factory=RegressConfig)
    diversity: DiversityConfig = field(default_factory=DiversityConfig)
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    discriminate: DiscriminateConfig = field(default_factory=DiscriminateConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    def check(self) -> None:
        """UserError in one sentence for a value that cannot be meant."""
        for name, number in _numbers(to_table(self)):
            if not math.isfinite(number):
                raise UserError(f"--{name} has to be a finite number, found {number}")
        self.schedule.build()
        counts = {
            "steps": self.steps,
            "batch": self.batch,
            "accumulate": self.accumulate,
            "context": self.context,
            "student.every": self.student.every,
            "save-every": self.save_every,
            "keep": self.keep,
            "log-every": self.log_every,
            "watch.bad-steps": self.watch.bad_steps,
            "watch.patience": self.watch.patience,
            "validate-rows": self.validate_rows,
            "teacher-steps": self.teacher_steps,
            "consistency.grid": self.consistency.grid,
            "regress.steps": self.regress.steps,
            "diversity.anchor": self.diversity.anchor,
            "discriminate.width": self.discriminate.width,
            "pairs.shard-rows": self.pairs.shard_rows,
            "pairs.batch": self.pairs.batch,
            "stream.rounds": self.stream.rounds,
            "stream.blocks": self.stream.blocks,
        }
        if self.mode == "lora":
            counts |= {"student.rank": self.student.rank, "critic.rank": self.critic.rank}
        for name, count in counts.items():
            if count < 1:
                raise UserError(f"--{name} has to be at least 1, found {count}")
        if not 0 <= self.p_i2v <= 1:
            raise UserError(f"--p-i2v is a share in [0, 1], found {self.p_i2v}")
        if not 0 < self.noise.low < self.noise.high <= 1:
            raise UserError(
                f"noise.low {self.noise.low} and noise.high {self.noise.high} have to rise within "
                "(0, 1]"
            )
        for name, number in (
            ("student.lr", self.student.lr),
            ("critic.lr", self.critic.lr),
            ("adam.weight-decay", self.adam.weight_decay),
        ):
            if number < 0:
                raise UserError(f"--{name} has to be at least 0, found {number:g}")
        for name, number in (
            ("student.clip", self.student.clip),
            ("critic.clip", self.critic.clip),
            ("noise.shift", self.noise.shift),
            ("adam.eps", self.adam.eps),
        ):
            if not number > 0:
                raise UserError(f"--{name} has to be more than 0, found {number:g}")
        for name, share in (
            ("student.ema", self.student.ema),
            ("adam.beta1", self.adam.beta1),
            ("adam.beta2", self.adam.beta2),
        ):
            if not 0 <= share < 1:
                raise UserError(f"{name} has to be in [0, 1), found {share}")
        if not 0 <= self.adam.decay_from <= 1:
            raise UserError(f"adam.decay_from is a share in [0, 1], found {self.adam.decay_from}")
        if not 0 <= self.critic.ida <= 1:
            raise UserError(f"critic.ida has to be in [0, 1], found {self.critic.ida}")
        if self.critic.ida < 1 and self.mode == "lora" and self.student.rank != self.critic.rank:
            raise UserError("critic.ida needs adapters of one rank for student and critic")
        if self.quantize != "none" and self.mode != "lora":
            raise UserError(
                f"--quantize {self.quantize} needs a frozen base", hint="pass --mode lora"
            )
        if self.quantize != "none" and self.shard:
            raise UserError("--quantize and --shard do not work together")
        if self.diversity.anchor >= self.diversity.steps:
            raise UserError(
                f"diversity.anchor {self.diversity.anchor} has to be less than diversity.steps "
                f"{self.diversity.steps}"
            )
        if not self.watch.spread > 1:
            raise UserError(f"watch.spread has to be more than 1, found {self.watch.spread}")
        if not self.terms:
            raise UserError("--terms names no loss", hint="the default is dmd,denoise")
        if self.pairs.rows < 0:
            raise UserError(f"--pairs.rows is a number of rows, found {self.pairs.rows}")
        if "regress" in self.terms and self.pairs.rows and self.p_i2v > 0:
            raise UserError(
                f"paths in files are of text to video alone, found --p-i2v {self.p_i2v}",
                hint="pass --p-i2v 0, or --pairs.rows 0 for paths that are made on the way",
            )
        if self.context > 1:
            self._check_context()
        if self.causal_form is not None:
            self._check_causal()

    @property
    def causal_form(self) -> Causal | None:
        """The form of a student that makes its clips block after block; None of one that does
        not."""
        return None if self.rollout == "clip" else self.causal

    def _check_context(self) -> None:
        if self.causal_form is not None:
            raise UserError(
                f"--context {self.context} has no form for --rollout {self.rollout}, whose blocks "
                "see a cache; leave it out"
            )
        heads = {"adversary", "discriminate"} & set(self.terms)
        if heads:
            raise UserError(
                f"--context {self.context} has no form for --terms {','.join(sorted(heads))}: a "
                "head would see a part of each clip"
            )

    def _check_causal(self) -> None:
        if self.p_i2v > 0:
            raise UserError(
                f"--rollout {self.rollout} trains text to video alone, found --p-i2v {self.p_i2v}",
                hint="pass --p-i2v 0; an image may still take a first block of 1 frame afterwards",
            )
        if self.compile or self.attention:
            flag = "--compile" if self.compile else f"--attention {self.attention}"
            raise UserError(f"{flag} has no form for --rollout {self.rollout}; leave it out")
        if self.rollout != "stream":
            return
        missing = {"dmd", "denoise"} - set(self.terms)
        if missing:
            raise UserError(
                f"--rollout stream needs --terms dmd,denoise, found {','.join(self.terms)}"
            )
        if not 0 <= self.stream.switch < self.stream.rounds:
            raise UserError(
                f"stream.switch {self.stream.switch} is not a round of a clip's "
                f"{self.stream.rounds}",
                hint="the first round is 0; 0 turns it off",
            )


def _numbers(table: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a config's table, with its flag's name."""
    for key, value in table.items():
        name = within + key.replace("_", "-")
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{name}.")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float):
                yield name, number


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeConfig:
    """Curated shards in; text embeddings and first-frame latents out."""

    shards: Path
    """Folder that `curate run` wrote, or one with parquet files of its columns."""
    out: Path = Path("out/encoded")
    """Folder for the encodings. The same folder resumes."""
    model: str = "tiny-ti2v"
    """Model folder, hub id or family whose text encoder and VAE are used."""
    size: Size = (64, 64)
    """WIDTHxHEIGHT that first frames are brought to, cut around the middle."""
    split: Literal["train", "held-out", "all"] = "train"
    """Which rows."""
    clips: int = 0
    """Encode this many leading frames of each row's video too, for losses that need real clips;
    0: none. A row whose video is missing, damaged or shorter stays without a clip."""
    videos: Path | None = None
    """Folder that the rows' video paths are relative to. Without it: `shards`."""
    text_tokens: int | None = None
    """Tokens that prompts are cut to. Without it: the model's own number."""
    shard_rows: int = 512
    """Most rows in one encoded shard."""
    batch: int = 8
    """Rows encoded at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the text encoder computes in, and what embeddings are stored in."""
    device: str = "auto"
    """auto: an accelerator where there is one."""

    def check(self) -> None:
        """UserError in one sentence for a value that cannot be meant."""
        for name, count in (("shard-rows", self.shard_rows), ("batch", self.batch)):
            if count < 1:
                raise UserError(f"--{name} has to be at least 1, found {count}")
        if self.clips < 0:
            raise UserError(f"--clips is a number of frames, found {self.clips}")
