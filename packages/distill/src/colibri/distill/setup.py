"""Everything that a training run needs, built from its config: networks, data, optimisers."""

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from colibri.core import wan
from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape, swapped_size_hint
from colibri.core.hashing import hash_json
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import ModelFamily
from colibri.distill import checkpoint
from colibri.distill.config import EncodeConfig, TrainConfig
from colibri.distill.data import Encoded, Order
from colibri.distill.ema import Ema
from colibri.distill.embedded import write_embedded
from colibri.distill.encode import encode
from colibri.distill.encodings import hash_text_encoder, read_manifest
from colibri.distill.objectives import Objective
from colibri.distill.objectives.base import Net
from colibri.distill.objectives.rollouts import ROLLOUTS, Rollout, whole
from colibri.distill.pairs import Pairs, hash_transformer, known_hash, make_pairs
from colibri.distill.parallel import World, processes, shard, sharing
from colibri.distill.plan import check_context
from colibri.distill.roles import HEAD, Roles, Separate, Shared, use_attention
from colibri.distill.teacher import teacher_folder

log = logging.getLogger(__name__)

NETS: tuple[Net, ...] = ("student", "critic")
EMBEDDED_ROWS = 2048


@dataclass(kw_only=True)
class Setup:
    """What the loop turns; see `build`."""

    config: TrainConfig
    world: World
    teacher: Path
    family: ModelFamily
    vae_hash: str
    schedule: FlowSchedule
    shape: LatentShape
    roles: Roles
    objective: Objective
    encoded: Encoded
    orders: dict[Net, Order]
    optimisers: dict[Net, torch.optim.Optimizer]
    ema: Ema
    rollout: Rollout = field(default_factory=lambda: Rollout(whole))
    pairs: Pairs | None = None

    @cached_property
    def teacher_hash(self) -> str:
        """Of the teacher's transformer; every weight is read."""
        return wan.hash_part(self.teacher, "transformer")


def build(config: TrainConfig, world: World) -> Setup:
    """Load, check and build. UserError for settings, folders and data that do not fit, and for a
    checkpoint in `out` of other ones, before anything there is made again."""
    config.check()
    world = sharing(world, config.context)
    _refuse_another_run(config, _settings(config))
    objective = Objective(config)
    teacher = teacher_folder(config.teacher)
    family, trained_for = wan.describe(teacher)
    if trained_for is not None:
        raise UserError(
            f"{teacher} is a student of {trained_for.steps} steps", hint="give its teacher"
        )
    if family.causal is not None:
        raise UserError(f"{teacher} sees clips in blocks; a teacher has to see them whole")
    shape = latent_shape(config, family)
    if config.p_i2v > 0 and not family.expand_timesteps:
        raise UserError(
            f"{family.name} makes no video from an image", hint="pass --p-i2v 0 for text alone"
        )
    check_context(config, family, shape.tokens(family.patch))
    vae_hash = wan.load(teacher, parts=()).vae_hash
    _refuse_another_run(config, {"vae": vae_hash})
    encoded = open_encoded(config, teacher, family, shape, vae_hash, world, clips=objective.clips)
    if config.causal_form is not None:
        _refuse_cut_blocks(config, shape)
    pairs = None
    if "regress" in config.terms and config.pairs.rows:
        pairs = make_pairs(
            config,
            encoded,
            teacher=teacher,
            shape=shape,
            world=world,
            on_hash=lambda found: _refuse_another_run(config, {"paths": found}),
            on_shard=_say_pairs,
        )
        encoded.pair_with(pairs)
    torch.manual_seed(config.seed)
    transformer = wan.load(teacher, parts=("transformer",)).transformer
    student = None
    if config.start is not None and is_model(config.start):
        student = wan.load(config.start, parts=("transformer",)).transformer
        if _form(student) != _form(transformer):
            raise UserError(f"{config.start} is no student of {teacher}: its network is another")
    roles = build_roles(config, transformer, world, head=objective.head, student=student)
    if config.start is not None and student is None:
        _start_from_run(config, roles, world)
    optimisers: dict[Net, torch.optim.Optimizer] = {
        net: torch.optim.AdamW(
            roles.trained(net).values(),
            lr=getattr(config, net).lr,
            betas=(config.adam.beta1, config.adam.beta2),
            eps=config.adam.eps,
            weight_decay=config.adam.weight_decay,
        )
        for net in NETS
    }
    return Setup(
        config=config,
        world=world,
        teacher=teacher,
        family=family,
        vae_hash=vae_hash,
        schedule=config.schedule.build(),
        shape=shape,
        roles=roles,
        objective=objective,
        encoded=encoded,
        orders={
            net: Order(encoded.rows, seed=config.seed, stream=index)
            for index, net in enumerate(NETS)
        },
        optimisers=optimisers,
        ema=Ema(roles.trained("student"), decay=config.student.ema, start=config.student.ema_start),
        rollout=ROLLOUTS[config.rollout](config, shape.frames),
        pairs=pairs,
    )


def write_pairs(
    config: TrainConfig, *, on_shard: Callable[[int, int], object] | None = None
) -> Pairs:
    """The teacher's paths of `config.pairs`, made or found, as a run of `config` reads them."""
    config.check()
    with processes(config.device) as world:
        teacher = teacher_folder(config.teacher)
        family, _ = wan.describe(teacher)
        shape = latent_shape(config, family)
        vae_hash = wan.load(teacher, parts=()).vae_hash
        encoded = open_encoded(config, teacher, family, shape, vae_hash, world)
        return make_pairs(
            config, encoded, teacher=teacher, shape=shape, world=world, on_shard=on_shard
        )


def latent_shape(config: TrainConfig, family: ModelFamily) -> LatentShape:
    """Latents of the run's clips; UserError names a size that does not divide."""
    height, width = config.size
    try:
        return family.latent_shape(VideoShape(frames=config.frames, height=height, width=width))
    except UserError as error:
        hint = swapped_size_hint(height, width, family.sizes)
        raise UserError(error.message, hint=hint or error.hint) from None


def build_roles(
    config: TrainConfig,
    transformer: Any,
    world: World,
    *,
    head: bool = False,
    student: Any = None,
) -> Roles:
    """The three roles on this process's device, sharded, checkpointed and compiled as asked; with
    `head` a head on the critic. `student` is a network that the student starts as."""
    roles: Roles
    if head and config.checkpointing and config.mode == "lora":
        raise UserError(
            "adversary with --mode lora cannot compute blocks again: two adapters are in one graph",
            hint="leave out --checkpointing, or use --mode full",
        )
    if config.mode == "lora" and student is not None:
        raise UserError(
            f"an adapter cannot start as the model in {config.start}",
            hint="use --mode full, or give the --out of a run with adapters",
        )
    if config.mode == "lora":
        roles = Shared(
            transformer,
            student_rank=config.student.rank,
            critic_rank=config.critic.rank,
            seed=config.seed,
            precision=config.precision,
        )
    else:
        roles = Separate.of(transformer, precision=config.precision, student=student)
    networks = {id(n): n for n in (roles.network(r) for r in (*NETS, "teacher"))}  # type: ignore[arg-type]
    if head:
        settings = config.discriminate
        roles.add_head(layers=settings.layers, width=settings.width, seed=config.seed)
    if config.quantize != "none":
        roles.quantize_base()
    backend = attention_backend(config, world.device)
    if backend:
        for network in networks.values():
            use_attention(network, backend)
    if config.causal_form is not None:
        roles.make_student_causal(config.causal_form)
    if config.short_text and not (config.checkpointing or config.compile):
        roles.shorten_text()
    if config.compile:
        _allow_variants()
    if world.context > 1:
        from colibri.core.wan.context import context_groups, share_tokens

        groups = context_groups(world.context, world.device)
        for network in networks.values():
            share_tokens(network, groups)
    for network in networks.values():
        if config.checkpointing:
            network.enable_gradient_checkpointing()
        if config.compile:
            network.compile_repeated_blocks()
        if config.shard and world.size > 1:
            shard(network, world, config.precision, whole=roles.unsharded())
        network.to(world.device)
    if roles.head is not None:
        roles.head.to(world.device)
    return roles


def attention_backend(config: TrainConfig, device: torch.device) -> str | None:
    """What computes self-attention: what was asked for, else flash-attn where it is installed and
    takes what a run has; None is PyTorch's own."""
    if config.attention is not None:
        return config.attention.lower()
    plain = config.causal_form is None and config.context == 1 and config.quantize == "none"
    if plain and device.type == "cuda" and config.precision == "bf16":
        return "flash" if importlib.util.find_spec("flash_attn") else None
    return None


VARIANTS = 32
"""Forms of one block that are compiled: for each role, with gradients and without, for one sigma a
clip and one a token, and for each size of a batch. PyTorch's own limit is 8; beyond, a block runs
uncompiled."""


def _allow_variants() -> None:
    """Raise torch.compile's limit to `VARIANTS`, in this process."""
    import torch._dynamo.config as dynamo

    dynamo.recompile_limit = max(VARIANTS, dynamo.recompile_limit)


def open_encoded(
    config: TrainConfig,
    teacher: Path,
    family: ModelFamily,
    shape: LatentShape,
    vae_hash: str,
    world: World,
    *,
    clips: bool = False,
) -> Encoded:
    """The run's data, checked against its teacher; the embedded world's where none is given. With
    `clips` only rows that have one."""
    folder = config.encoded or encode_embedded(config, teacher, world, clips=clips)
    encoded = Encoded(
        folder,
        codec=family.codec,
        shape=shape,
        text_width=int(family.transformer["text_dim"]),
        clips=clips,
    )
    manifest = encoded.manifest
    if manifest.vae_hash != vae_hash:
        raise UserError(
            f"{folder} was encoded by another VAE than the one in {teacher}",
            hint="run distill encode with this teacher",
        )
    if (teacher / "text_encoder").is_dir():
        made = {
            hash_text_encoder(teacher, text_tokens=manifest.text_tokens, precision=precision)
            for precision in ("fp32", "bf16")
        }
        if manifest.text_hash not in made:
            raise UserError(
                f"{folder} was encoded by another text encoder than the one in {teacher}",
                hint="run distill encode with this teacher",
            )
    encoded.check_frames(config.p_i2v)
    return encoded


def encode_embedded(
    config: TrainConfig, teacher: Path, world: World, *, clips: bool = False
) -> Path:
    """Encode prompts of the small embedded world under the run's `out`; where they are."""
    folder = config.out / "encoded"
    if world.leads:
        shards = write_embedded(
            config.out / "shards", rows=EMBEDDED_ROWS, seed=config.seed, videos=clips
        )
        encode(
            EncodeConfig(
                shards=shards,
                out=folder,
                model=str(teacher),
                size=config.size,
                clips=config.frames if clips else 0,
                device=config.device,
            )
        )
    world.wait()
    return folder


def _say_pairs(done: int, found: int) -> None:
    log.info("paths: %d files, %d of them found", done, found)


def _refuse_cut_blocks(config: TrainConfig, shape: LatentShape) -> None:
    """UserError where a clip ends inside a block, or a stream's round leaves nothing held."""
    causal = config.causal
    try:
        causal.blocks(shape.frames)
    except UserError as error:
        raise UserError(
            f"--frames {config.frames}: {error.message}", hint=f"{error.hint} latent frames"
        ) from None
    added = config.stream.blocks * causal.block
    if config.rollout == "stream" and added >= shape.frames:
        raise UserError(
            f"stream.blocks {config.stream.blocks} adds {added} latent frames a round, the "
            f"teacher's clip has {shape.frames}: nothing would join two rounds"
        )


# ---- where a student starts ----


def is_model(folder: Path) -> bool:
    """Whether a start is a model folder, not a run."""
    return not (folder / "checkpoints").is_dir()


def _form(network: Any) -> dict[str, Any]:
    return {key: value for key, value in network.config.items() if not key.startswith("_")}


def _start_from_run(config: TrainConfig, roles: Roles, world: World) -> None:
    """The averaged student and the critic of a run's newest checkpoint; UserError for none, or of
    another form."""
    newest = _newest(config)
    state = checkpoint.read_state(newest, world=world)
    for key in ("mode", "precision"):
        found, wanted = state["bound"].get(key), getattr(config, key)
        if found != wanted:
            raise UserError(
                f"--start {config.start} is of a run with {key} {found}, this one has {wanted}",
                hint="use the same",
            )
    tensors = checkpoint.read_tensors(newest, world=world)
    checkpoint.restore(roles.trained("student"), tensors, prefix="ema")
    critic = roles.trained("critic")
    own = {name: weight for name, weight in critic.items() if not name.startswith(HEAD)}
    checkpoint.restore(own, tensors, prefix="critic")


def _start_hash(config: TrainConfig) -> str | None:
    """What the student starts from: weights of a model, or everything that decided a run's."""
    if config.start is None:
        return None
    if is_model(config.start):
        return hash_transformer(wan.find_folder(config.start))
    state = checkpoint.read_about(_newest(config))
    return hash_json({"bound": state["bound"], "step": state["step"]})


def _newest(config: TrainConfig) -> Path:
    assert config.start is not None
    newest = checkpoint.latest(config.start / "checkpoints")
    if newest is None:
        raise UserError(f"--start {config.start} has no finished checkpoint", hint="let it run")
    return newest


# What may differ between a checkpoint and the run that goes on from it.
FREE = frozenset(
    {
        "out",
        "encoded",
        "teacher",
        "steps",
        "save_every",
        "keep",
        "log_every",
        "validate_every",
        "validate_rows",
        "teacher_steps",
        "track",
        "plan",
        "device",
        "context",
        "checkpointing",
        "compile",
        "attention",
        "watch",
        "start",
        "pairs",
    }
)


def bound(setup: Setup) -> dict[str, Any]:
    """What a checkpoint is bound to: settings that decide its numbers, teacher and data."""
    return _bound(
        setup.config,
        teacher=setup.teacher_hash,
        data=setup.encoded.manifest.data_hash,
        vae=setup.vae_hash,
        pairs=setup.pairs.hash if setup.pairs else None,
    )


def check_bound(where: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """UserError names what a checkpoint is bound to and this run is not."""
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise UserError(
                f"{where} is of a run with {key} {found.get(key)!r}, this one has "
                f"{wanted.get(key)!r}",
                hint="use the same settings, or another --out",
            )


def _refuse_another_run(config: TrainConfig, wanted: Mapping[str, Any]) -> None:
    """`check_bound` of the newest checkpoint in `out`, with so much of `bound` as is known yet."""
    newest = checkpoint.latest(config.out / "checkpoints")
    if newest is not None:
        found = checkpoint.read_about(newest)["bound"]
        check_bound(newest, {key: found.get(key) for key in wanted}, wanted)


def is_done(config: TrainConfig) -> bool:
    """Whether the run has a checkpoint of its last step and the student of it, made with these
    settings, teacher, data and start. Loads no weights."""
    newest = checkpoint.latest(config.out / "checkpoints")
    folder = config.encoded or config.out / "encoded"
    if newest is None or not (config.out / "student" / "distill.json").is_file():
        return False
    state = checkpoint.read_about(newest)
    if state["step"] != config.steps:
        return False
    pairs = known_hash(config) if "regress" in config.terms and config.pairs.rows else None
    teacher = teacher_folder(config.teacher)
    wanted = _bound(
        config,
        teacher=wan.hash_part(teacher, "transformer"),
        data=read_manifest(folder).data_hash,
        vae=wan.load(teacher, parts=()).vae_hash,
        pairs=pairs,
    )
    return bool(state["bound"] == wanted)


def _bound(
    config: TrainConfig, *, teacher: str, data: str, vae: str, pairs: str | None
) -> dict[str, Any]:
    return _settings(config) | {
        "teacher": teacher,
        "data": data,
        "vae": vae,
        "paths": pairs,
        "started_from": _start_hash(config),
    }


def _settings(config: TrainConfig) -> dict[str, Any]:
    free = FREE - ({"steps"} if config.adam.decay_from < 1 else set())
    table = {key: value for key, value in to_table(config).items() if key not in free}
    if config.context > 1:  # rows by process are others then
        table["context"] = config.context
    return table
