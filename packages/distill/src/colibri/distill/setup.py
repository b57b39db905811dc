"""Everything that a training run needs, built from its config: networks, data, optimisers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from colibri.core import wan
from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape, swapped_size_hint
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import ModelFamily
from colibri.distill.config import EncodeConfig, TrainConfig
from colibri.distill.data import Encoded, Order
from colibri.distill.ema import Ema
from colibri.distill.embedded import write_embedded
from colibri.distill.encode import encode
from colibri.distill.encodings import hash_text_encoder
from colibri.distill.objectives import Objective
from colibri.distill.objectives.base import Net
from colibri.distill.parallel import World, shard
from colibri.distill.roles import Roles, Separate, Shared
from colibri.distill.teacher import teacher_folder

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


def build(config: TrainConfig, world: World) -> Setup:
    """Load, check and build. UserError for settings, folders and data that do not fit."""
    config.check()
    objective = Objective(config)
    teacher = teacher_folder(config.teacher)
    family, trained_for = wan.describe(teacher)
    if trained_for is not None:
        raise UserError(
            f"{teacher} is a student of {trained_for.steps} steps", hint="give its teacher"
        )
    shape = latent_shape(config, family)
    if config.p_i2v > 0 and not family.expand_timesteps:
        raise UserError(
            f"{family.name} makes no video from an image", hint="pass --p-i2v 0 for text alone"
        )
    vae_hash = wan.load(teacher, parts=()).vae_hash
    encoded = open_encoded(config, teacher, family, shape, vae_hash, world, clips=objective.clips)
    torch.manual_seed(config.seed)
    transformer = wan.load(teacher, parts=("transformer",)).transformer
    roles = build_roles(config, transformer, world, head=objective.head)
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
    config: TrainConfig, transformer: Any, world: World, *, head: bool = False
) -> Roles:
    """The three roles on this process's device, sharded, checkpointed and compiled as asked; with
    `head` a head on the critic."""
    roles: Roles
    if head and config.checkpointing and config.mode == "lora":
        raise UserError(
            "adversary with --mode lora cannot compute blocks again: two adapters are in one graph",
            hint="leave out --checkpointing, or use --mode full",
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
        roles = Separate.of(transformer, precision=config.precision)
    networks = {id(n): n for n in (roles.network(r) for r in (*NETS, "teacher"))}  # type: ignore[arg-type]
    if head:
        settings = config.discriminate
        roles.add_head(layers=settings.layers, width=settings.width, seed=config.seed)
    if config.quantize != "none":
        roles.quantize_base()
    if config.short_text and not (config.checkpointing or config.compile):
        roles.shorten_text()
    for network in networks.values():
        if config.checkpointing:
            network.enable_gradient_checkpointing()
        if config.compile:
            network.compile_repeated_blocks()
        if config.shard:
            shard(network, world, config.precision, whole=roles.unsharded())
        network.to(world.device)
    if roles.head is not None:
        roles.head.to(world.device)
    return roles


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
    folder = config.encoded
    if folder is None:
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
    if config.p_i2v == 1 and len(encoded.with_frame) < len(encoded.rows):
        raise UserError(
            f"{folder} has {len(encoded.rows) - len(encoded.with_frame)} rows without a first "
            "frame, and --p-i2v 1 needs one for each"
        )
    return encoded


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
        "checkpointing",
        "compile",
        "watch",
    }
)


def bound(setup: Setup) -> dict[str, Any]:
    """What a checkpoint is bound to: settings that decide its numbers, teacher and data."""
    free = FREE - ({"steps"} if setup.config.adam.decay_from < 1 else set())
    table = {key: value for key, value in to_table(setup.config).items() if key not in free}
    return table | {"data": setup.encoded.manifest.data_hash, "vae": setup.vae_hash}
