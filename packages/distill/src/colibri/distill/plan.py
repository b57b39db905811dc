"""What a run needs before it is started: gigabytes by part and seconds a step, on a named device.

Weights and what autograd keeps are counted on the meta device; time is arithmetic over a share of
the device's peak. Not counted: the allocator's fragments, the driver.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from colibri.core import wan
from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.geometry import VideoShape
from colibri.core.wan.family import FAMILIES, ModelFamily
from colibri.distill.config import TrainConfig

GB = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Memory and arithmetic of one accelerator."""

    gigabytes: float
    tflops: float
    """Dense bf16 peak, in TFLOP/s."""
    share: float = 0.4
    """Share of the peak that training reaches; public trainers: .075 to .32 (FastWan)."""


# Dense bf16 peaks and memory, from the makers' data sheets.
DEVICES = {
    "h200": Device(gigabytes=141, tflops=989),
    "h100": Device(gigabytes=80, tflops=989),
    "a100-80gb": Device(gigabytes=80, tflops=312),
    "a100-40gb": Device(gigabytes=40, tflops=312),
    "mi300x": Device(gigabytes=192, tflops=1307, share=0.3),
    "mi325x": Device(gigabytes=256, tflops=1307, share=0.3),
    "l40s": Device(gigabytes=48, tflops=362),
    "rtx4090": Device(gigabytes=24, tflops=165),
    "rtx5090": Device(gigabytes=32, tflops=210),
    "cpu": Device(gigabytes=16, tflops=0.05, share=0.2),
}

SEEDS = 2
"""Clips of each prompt in a validation."""
LEVELS = (0.6, 0.8)
"""Noise at which the teacher says which prompt explains a clip."""

HEADROOM = 0.94
"""Share of a device's memory that a process can count on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Memory of the fullest process and time of a step."""

    model: str
    device: str
    processes: int
    tokens: int
    parts_gb: dict[str, float]
    total_gb: float
    limit_gb: float
    seconds: float
    """A step on average, over steps with and without an update of the student."""
    pflop: float
    """Arithmetic of a step in one process, on average."""
    validation_seconds: float
    """A validation, without decoding; 0 where there is none."""
    reference_seconds: float
    """The teacher's clips that validations compare with, made before the first step."""
    advice: tuple[str, ...]
    """What would make it fit, where it does not."""

    @property
    def fits(self) -> bool:
        """Whether the run may be started."""
        return self.total_gb <= self.limit_gb

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.model} on {self.processes} x {self.device}: {self.tokens:,} tokens a clip",
            "",
        ]
        lines += [f"  {name:<28}{size:>9.2f} GB" for name, size in self.parts_gb.items()]
        lines += [
            f"  {'in all':<28}{self.total_gb:>9.2f} GB of {self.limit_gb:.1f}",
            "",
            f"  a step {self.seconds:.3g} s on average ({self.pflop:.3g} PFLOP a process)",
        ]
        if self.validation_seconds:
            lines.append(
                f"  a validation {self.validation_seconds:.3g} s; the teacher's clips for it "
                f"{self.reference_seconds:.3g} s, once"
            )
        if not self.fits:
            lines += ["", "does not fit" + (f": {'; '.join(self.advice)}" if self.advice else "")]
        return "\n".join(lines)


def plan(config: TrainConfig, *, device: str, processes: int = 1) -> Plan:
    """Predict a run. UserError for an unknown device or a config that is wrong by itself."""
    config.check()
    if device not in DEVICES:
        raise UserError(f"there is no device {device!r}", hint=f"one of {', '.join(DEVICES)}")
    if processes < 1:
        raise UserError("--processes has to be at least 1")
    family = family_of(config.teacher)
    height, width = config.size
    video = VideoShape(frames=config.frames, height=height, width=width)
    tokens = family.tokens(video)
    check_context(config, family, tokens)
    if processes % config.context:
        raise UserError(f"--context {config.context} does not divide {processes} processes")
    parts = _memory(config, family, video, processes)
    flop = step_flop(config, family, tokens)
    check, reference = validation_flop(config, family, tokens)
    machine = DEVICES[device]
    speed = machine.tflops * 1e12 * machine.share
    total, limit = sum(parts.values()), machine.gigabytes * HEADROOM
    return Plan(
        model=family.name,
        device=device,
        processes=processes,
        tokens=tokens,
        parts_gb=parts,
        total_gb=total,
        limit_gb=limit,
        seconds=flop / speed,
        pflop=flop / 1e15,
        validation_seconds=check / speed,
        reference_seconds=reference / speed,
        advice=tuple(_advice(config, processes)) if total > limit else (),
    )


def refuse_what_cannot_fit(config: TrainConfig, *, device: str, processes: int) -> Plan:
    """The plan; UserError where it does not fit."""
    found = plan(config, device=device, processes=processes)
    if not found.fits:
        raise UserError(
            f"{found.model} needs {found.total_gb:.0f} GB a process, a {device} has "
            f"{found.limit_gb:.0f}",
            hint="; ".join(found.advice) or "use more processes or a larger device",
        )
    return found


def check_context(config: TrainConfig, family: ModelFamily, tokens: int) -> None:
    """UserError where a clip of so many tokens, or the model's heads, cannot be shared evenly."""
    heads = int(family.transformer["num_attention_heads"])
    for count, what in ((heads, f"attention heads of {family.name}"), (tokens, "tokens of a clip")):
        if count % config.context:
            raise UserError(
                f"--context {config.context} does not divide the {count:,} {what}",
                hint=f"use a divisor of {math.gcd(heads, tokens)}",
            )


def family_of(teacher: str) -> ModelFamily:
    """A known family by its name, else that of a folder; reads no weights."""
    if teacher in FAMILIES:
        return FAMILIES[teacher]
    from colibri.distill.teacher import teacher_folder

    return wan.describe(teacher_folder(teacher))[0]


def adapter_parameters(family: ModelFamily, rank: int) -> int:
    """Weights of one adapter: rank x (in + out) for each linear layer of a block that has one."""
    width, ffn = _width(family), int(family.transformer["ffn_dim"])
    block = 8 * 2 * width + 2 * (width + ffn)  # four layers in each of two attentions; two in ffn
    return int(family.transformer["num_layers"]) * rank * block


def forward_flop(family: ModelFamily, tokens: int, text_tokens: int) -> float:
    """Multiplications and additions of one forward pass of one sample."""
    config = family.transformer
    width, ffn, layers = _width(family), int(config["ffn_dim"]), int(config["num_layers"])
    own = 4 * width * width + 2 * width * ffn  # self-attention and feed-forward
    across = 2 * width * width  # queries and output of cross-attention
    words = 2 * width * width  # its keys and values
    linear = 2 * (tokens * (own + across) + text_tokens * words)
    attention = 4 * tokens * width * (tokens + text_tokens)
    return layers * float(linear + attention)


def step_flop(config: TrainConfig, family: ModelFamily, tokens: int) -> float:
    """Arithmetic of one step of one process, averaged over exits and the update ratio."""
    critic, student = (update_flop(config, family, tokens, net) for net in ("critic", "student"))
    return critic + student / (config.student.every if critic else 1)


def update_flop(config: TrainConfig, family: ModelFamily, tokens: int, net: str) -> float:
    """Arithmetic of one update of one network in one process, averaged over exits; 0 for a network
    that no term trains.

    The trajectory has (K + 1) / 2 passes on average, and one more where it writes a cache. A
    backward pass costs two, one where the base is frozen (gradients of inputs alone), and one more
    where blocks are computed again. What blocks do not see is counted as if they did. A loss from
    outside is not counted. Processes that share a clip have a part of it each.
    """
    steps = config.schedule.build().steps
    passes = (steps + 1) / 2
    backward = (1.0 if config.mode == "lora" else 2.0) + (1.0 if config.checkpointing else 0.0)
    guidance = config.guidance
    fake, real = (1 if guidance.standard(w) == 1 else 2 for w in (guidance.fake, guidance.real))
    trained = 1 + backward
    causal = config.causal_form is not None
    # clean frames that a causal student's blocks see are tokens of the pass
    twice = 2 if causal else 1
    regressed = (twice if config.regress.context == "clean" else 1) if causal else steps
    paths = 0 if config.pairs.rows else real * config.regress.steps
    # forward passes of each term beside the trajectory, whose last pass the student trains
    own: dict[str, dict[str, float]] = {
        "student": {
            "dmd": fake + real,
            "consistency": real + twice * (1 + trained),
            "regress": paths + regressed * trained,
            "diversity": real * config.diversity.anchor + trained,
            "adversary": trained,
        },
        "critic": {"denoise": trained, "discriminate": 2 * trained},
    }
    asked = [own[net][term] for term in config.terms if term in own[net]]
    if not asked:
        return 0.0
    from_student = {"dmd", "adversary", "denoise", "discriminate"}
    if config.consistency.of == "samples":
        from_student.add("consistency")
    share = _new_share(config, family)
    # an exit at the last step, one in `steps`, may leave the keys and values by itself
    writing = causal - (causal and config.causal.past == "last_step") / steps
    walk = passes + writing if from_student & set(config.terms) & set(own[net]) else 0.0
    walked = backward if net == "student" and {"dmd", "adversary"} & set(config.terms) else 0.0
    walk, walked = share * walk, share * walked
    forward = forward_flop(family, tokens, family.defaults.text_tokens)
    samples = config.batch * config.accumulate / config.context
    return samples * (walk + walked + sum(asked)) * forward


def validation_flop(config: TrainConfig, family: ModelFamily, tokens: int) -> tuple[float, float]:
    """Arithmetic of a validation in one process, and of the teacher's clips before the first, where
    every row has a first frame; zeros without validations. Every process makes every clip."""
    if not config.validate_every:
        return 0.0, 0.0
    rows, kinds = config.validate_rows, 2 if config.p_i2v > 0 else 1
    clips = rows * SEEDS * kinds
    passes = config.schedule.build().steps
    if config.causal_form is not None and config.causal.past == "clean":
        passes += 1  # which writes the keys and values
    branches = 1 if config.guidance.standard(config.guidance.real) == 1 else 2
    asked = len(LEVELS) * rows**2 if rows > 1 else 0
    forward = forward_flop(family, tokens, family.defaults.text_tokens) / config.context
    return (
        (clips * passes + asked) * forward,
        clips * config.teacher_steps * branches * forward,
    )


def _new_share(config: TrainConfig, family: ModelFamily) -> float:
    """Share of a clip's frames that a round makes, on average."""
    if config.rollout != "stream":
        return 1.0
    height, width = config.size
    video = VideoShape(frames=config.frames, height=height, width=width)
    frames, rounds = family.latent_shape(video).frames, config.stream.rounds
    added = config.stream.blocks * config.causal.block
    return (frames + (rounds - 1) * added) / (rounds * frames)


def _memory(
    config: TrainConfig, family: ModelFamily, video: VideoShape, processes: int
) -> dict[str, float]:
    half = config.precision == "bf16"
    full = 8 if config.precision == "fp64" else 4
    weights = wan.measure(family, dtype="bfloat16" if half else "float32")["transformer"]
    frozen = weights.bytes * (full // 4 if not half else 1)
    if config.quantize == "int8":  # the layers that have adapters; scales are not counted
        width, ffn = _width(family), int(family.transformer["ffn_dim"])
        linear = int(family.transformer["num_layers"]) * (8 * width**2 + 2 * width * ffn)
        frozen -= linear * ((2 if half else full) - 1)
    split = processes if config.shard else 1
    parts = {"teacher" if config.mode == "full" else "shared base": frozen / split}
    for net, rank in (("student", config.student.rank), ("critic", config.critic.rank)):
        count = adapter_parameters(family, rank) if config.mode == "lora" else weights.parameters
        own = 1 if config.mode == "lora" else split  # adapters are whole in each process
        parts[f"{net} weights"] = count * full / own
        parts[f"{net} optimiser"] = 2 * count * full / own
        if net == "student":
            parts["student average"] = count * full / own
    # gradients of one network at a time
    largest = max(parts["student weights"], parts["critic weights"])
    parts["gradients"] = largest
    parts |= _activations(config, family, video)
    parts |= _caches(config, family, video)
    if half and config.mode == "full" and not config.shard:  # autocast keeps what it has cast
        parts["weights in bf16"] = 2.0 * weights.parameters
    if config.shard:  # the block that computes and the one that is fetched, whole
        block = weights.parameters / int(family.transformer["num_layers"])
        parts["gathered blocks"] = 2 * block * (2 if half else full)
    if config.validate_every:
        from colibri.distill.decoding import decoding_bytes

        # clips are made as in a step, then decoded when what follows is free
        free = sum(parts[name] for name in ("gradients", "inputs of blocks", "activations"))
        decoding = decoding_bytes(family, family.latent_shape(video))
        parts["decoding in validation"] = max(0.0, decoding - free)
    return {name: size / GB for name, size in parts.items()}


def _activations(config: TrainConfig, family: ModelFamily, video: VideoShape) -> dict[str, float]:
    import torch

    from colibri.distill.activations import kept_bytes

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[config.precision]
    shape = family.latent_shape(video)
    kept = kept_bytes(
        family,
        shape,
        batch=config.batch,
        text_tokens=family.defaults.text_tokens,
        per_token=config.p_i2v > 0,
        dtype=dtype,
    )
    layers = int(family.transformer["num_layers"])
    # a causal student that sees a clean clip beside its own has twice the tokens
    starts = {"consistency"} | ({"regress"} if config.regress.context == "clean" else set())
    times = 2 if config.causal_form and starts & set(config.terms) else 1
    tokens = shape.tokens(family.patch) // config.context
    inputs = times * config.batch * tokens * _width(family) * dtype.itemsize
    guided = 2 if config.batched_cfg else 1
    # A pass without gradients has at once about half of what a block keeps for its backward pass.
    block, rest = kept.block / config.context, kept.rest / config.context
    scoring = guided * (block / 2 + rest)
    backward = times * (block + rest)
    latents = 4 * config.batch * shape.channels * shape.frames * shape.height * shape.width
    return {
        "inputs of blocks": float(inputs * layers if config.checkpointing else 0),
        "activations": float(
            max(backward, scoring)
            if config.checkpointing
            else times * block * layers + max(times * rest, scoring)
        ),
        "latents": float(12 * latents),
    }


def _caches(config: TrainConfig, family: ModelFamily, video: VideoShape) -> dict[str, float]:
    """Keys and values that blocks have before them: in the cache, and in the graph, which keeps
    them for each block of a layer."""
    causal = config.causal_form
    if causal is None:
        return {}
    shape = family.latent_shape(video)
    layers, each = int(family.transformer["num_layers"]), {"bf16": 2, "fp32": 4, "fp64": 8}
    frame = shape.tokens(family.patch) / shape.frames * _width(family) * each[config.precision]
    frame *= 2 * config.batch  # keys and values
    seen = [len(causal.seen(start, end)) for start, end in causal.blocks(shape.frames)]
    held = max(seen)
    kept = 1.0
    if (
        config.rollout == "stream"
    ):  # a clip under way for each network and micro-batch, and a new one
        kept = 2.0 * config.accumulate + 1
    past = sum(seen) - shape.frames
    return {
        "key caches": kept * layers * held * frame,
        "keys of past blocks": (1 if config.checkpointing else layers) * past * frame,
    }


def _advice(config: TrainConfig, processes: int) -> Sequence[str]:
    ways = []
    if not config.checkpointing:
        ways.append("--checkpointing")
    if config.precision != "bf16":
        ways.append("--precision bf16")
    if config.batch > 1:
        ways.append("--batch 1 with --accumulate")
    if config.mode == "full":
        ways.append("--mode lora")
        if not config.shard and processes > 1:
            ways.append("--shard")
    return ways


def _width(family: ModelFamily) -> int:
    config = family.transformer
    return int(config["num_attention_heads"]) * int(config["attention_head_dim"])


def table(found: Plan) -> dict[str, object]:
    """JSON-ready."""
    return to_table(found) | {"fits": found.fits}


def known_device() -> str | None:
    """The row of `DEVICES` for this machine's accelerator, by its name; `cpu` without one, None
    for one that is not listed."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    name = torch.cuda.get_device_name().lower().replace(" ", "")
    gigabytes = torch.cuda.get_device_properties(0).total_memory / GB
    alike = [known for known in DEVICES if known.split("-")[0] in name]
    near = [known for known in alike if abs(DEVICES[known].gigabytes / gigabytes - 1) < 0.2]
    return near[0] if near else None
