"""Several processes to a video, as `torchrun` starts them: all of them share every denoising step.

The first reads the text, encodes a first frame, decodes, writes and talks; it tells the others what
to load and what to denoise. How tokens are split is `colibri.core.wan.context`'s part. Whoever
fails first says why; its end is the end of the others.
"""

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from colibri.core import wan
from colibri.core.commands import run_command
from colibri.core.errors import UserError
from colibri.infer import denoise as alone
from colibri.infer.decode import Say, is_out_of_memory
from colibri.infer.image import Frame
from colibri.infer.models import Machine, Source
from colibri.infer.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from colibri.core.wan.sampler import OnStep

TIMEOUT = timedelta(days=1)
"""The others wait while the first loads, reads the text and decodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What the others have to load."""

    source: Source
    machine: Machine
    recipe: Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """What all denoise next."""

    recipe: Recipe
    embeddings: "dict[str, Tensor]"
    first_BCTHW: "Tensor | None"


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """This process among the others."""

    rank: int
    size: int
    store: Any
    """Where they leave notes; it is there also while some of them compute."""

    @property
    def leads(self) -> bool:
        """True in the one process that reads, writes and talks."""
        return self.rank == 0

    def tell(self, message: Load | Clip | None) -> None:
        """From the first process to the others; None is the end."""
        import torch.distributed as dist

        dist.broadcast_object_list([message], src=0)

    def hear(self) -> Load | Clip | None:
        """What the first process tells."""
        import torch.distributed as dist

        heard: list[Load | Clip | None] = [None]
        dist.broadcast_object_list(heard, src=0)
        return heard[0]

    def fails_first(self) -> bool:
        """True in the one process whose failure is told, called when one has failed."""
        try:
            return int(self.store.add("failed", 1)) == 1
        except RuntimeError:  # the store has gone with the process that kept it
            return False

    def take_device(self, device: str | None) -> None:
        """A GPU of its own, where GPUs are used. UserError where there is none."""
        import torch

        if device == "cpu" or (device is None and not torch.cuda.is_available()):
            return
        if device not in (None, "cuda"):
            raise UserError(
                f"--device {device} is one for {self.size} processes",
                hint="leave it out: each takes a GPU of its own",
            )
        local, found = int(os.environ.get("LOCAL_RANK", self.rank)), torch.cuda.device_count()
        if local >= found:
            raise UserError(
                f"there are more processes than GPUs, of which this machine has {found}",
                hint="start fewer, or use --device cpu",
            )
        torch.cuda.set_device(local)

    def check(
        self, source: Source, recipe: Recipe, machine: Machine, vram: str | None, *, say: Say
    ) -> Machine:
        """`machine` with a plan that can be shared: weights that stay, a modulation row a token.

        A plan counts what one process would hold. UserError, before anything loads, where a video
        cannot be shared, and where a given `vram` needs what cannot be.
        """
        from colibri.core.wan.context import check_backend
        from colibri.infer.memory import Way

        heads = int(source.family.transformer["num_attention_heads"])
        tokens = source.family.tokens(recipe.video)
        shape = f"{recipe.width}x{recipe.height}, {recipe.frames} frames"
        for count, what in (
            (heads, f"heads of {source.family.name}"),
            (tokens, f"tokens: {shape}"),
        ):
            if count % self.size:
                raise UserError(
                    f"{self.size} processes cannot share {count:,} {what}",
                    hint=f"their number has to divide {math.gcd(heads, tokens)}",
                )
        check_backend(recipe.attention)
        if recipe.compile:
            raise UserError(
                f"--compile cannot be used by {self.size} processes that share a video",
                hint="leave it out",
            )
        plan = machine.plan
        if plan is None or (plan.way.place == "device" and not plan.way.lean):
            say(f"Shared by {self.size} processes.")
            return machine
        if vram not in (None, "auto"):
            raise UserError(
                f"--vram {vram} asks for what {self.size} processes cannot share: "
                f"{plan.way.text(cpu=machine.device.startswith('cpu'))}",
                hint="give more, or leave it out",
            )
        way = Way(vae_waits=not machine.device.startswith("cpu"), ffn_chunks=8)
        say(f"Shared by {self.size} processes, so instead: {way.text()}.")
        return replace(machine, plan=replace(plan, way=way))

    def share(self, model: wan.WanModel, machine: Machine) -> None:
        """From now on the model's passes are computed by all. Every process calls it."""
        import torch

        from colibri.core.wan.context import context_groups, share_tokens
        from colibri.infer import placement

        kind = torch.device(torch.device(machine.device).type)
        share_tokens(model.transformer, context_groups(self.size, kind))
        placement.note_shared(model, self.size)


def run(command: Callable[[Team], int]) -> int:
    """Exit status of this process, in the first of which `command` runs; one sentence from all."""

    def joined() -> int:
        team = _join()
        try:
            status = _lead(team, command) if team.leads else _follow(team)
        except (UserError, KeyboardInterrupt):
            if team.fails_first():
                raise
            return 2
        except RuntimeError as error:
            if not team.fails_first():
                return 2
            if _is_gone(error):
                raise UserError(
                    f"one of {team.size} processes has ended", hint="run the same command again"
                ) from None
            raise
        if status == 0:
            _part()
        return status

    return run_command(joined)


def denoise(
    team: Team,
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "dict[str, Tensor]",
    first: Frame | None,
    *,
    on_step: "OnStep | None" = None,
) -> "Tensor":
    """The first process's part: normalised latents (1, C, T, H, W) in float32.

    UserError when memory runs out: to step down all would have to.
    """
    first_BCTHW = alone.encode_first(model, first)
    words = {prompt: embeddings[prompt] for prompt in alone.needed_prompts(recipe)}
    clip = Clip(
        recipe=recipe,
        embeddings=words,
        first_BCTHW=None if first_BCTHW is None else first_BCTHW.cpu(),
    )
    team.tell(clip)
    return _denoise(team, model, clip, on_step)


def _join() -> Team:
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(iter(rendezvous("env://")))
    except ValueError as error:
        raise UserError(
            f"WORLD_SIZE says several processes, but {error}", hint="start them with torchrun"
        ) from None
    dist.init_process_group(
        # what is told goes over gloo: waiting takes no GPU
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    return Team(rank=rank, size=size, store=dist.PrefixStore("infer", store))


def _lead(team: Team, command: Callable[[Team], int]) -> int:
    try:
        status = command(team)
    except SystemExit as ended:  # --help, or a misspelt flag, which is told
        status = ended.code if isinstance(ended.code, int) else 2
    if status == 0:
        team.tell(None)
    else:
        team.fails_first()
    return status


def _follow(team: Team) -> int:
    """What the others do: load a transformer, and share in what is denoised."""
    load = team.hear()
    if load is None:
        return 0
    assert isinstance(load, Load)
    team.take_device(load.machine.device)
    model = alone.load_denoiser(load.source, load.machine, load.recipe, with_vae=False)
    team.share(model, load.machine)
    while (clip := team.hear()) is not None:
        assert isinstance(clip, Clip)
        _denoise(team, model, clip, None)
    return 0


def _denoise(team: Team, model: wan.WanModel, clip: Clip, on_step: "OnStep | None") -> "Tensor":
    try:
        return alone.sample(model, clip.recipe, clip.embeddings, clip.first_BCTHW, on_step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise UserError(
        f"memory ran out in denoising, shared by {team.size} processes",
        hint="use more of them, a smaller --size, or fewer --frames",
    )


def _is_gone(error: RuntimeError) -> bool:
    """A collective failed because its partner is no longer there."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def _part() -> None:
    """Leave together, so that none takes another's end for a failure."""
    import torch.distributed as dist

    with contextlib.suppress(RuntimeError):
        dist.barrier()
        dist.destroy_process_group()
