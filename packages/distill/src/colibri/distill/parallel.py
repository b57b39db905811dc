"""Processes: how many, which one this is, and how weights and gradients are split among them.

Started by `accelerate launch` or `torchrun`, which set RANK, WORLD_SIZE and MASTER_ADDR. Without
them there is one process. Nothing here needs CUDA.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from colibri.core.errors import UserError
from colibri.distill.device import find_device

Precision = Literal["fp32", "bf16", "fp64"]

PATIENCE = timedelta(days=1)
"""How long processes wait for one that makes files; a collective's own limit is minutes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device
    context: int = 1
    """Processes that share a clip: neighbours by rank, which see the same rows and noise."""
    patient: Any = field(default=None, repr=False, compare=False)
    """Group of all processes, over the CPU, whose members wait for one another for `PATIENCE`."""

    @property
    def groups(self) -> int:
        """How many clips, or batches of them, are computed at once."""
        return self.size // self.context

    @property
    def group(self) -> int:
        """The group of this process among them."""
        return self.rank // self.context

    @property
    def leads(self) -> bool:
        """True in the one process that writes what all share."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier(group=self.patient)

    def gather(self, figures: Mapping[str, list[float]]) -> dict[str, list[float]]:
        """Figures of all processes, joined by name."""
        if self.size == 1:
            return dict(figures)
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, dict(figures), group=self.patient)
        joined: dict[str, list[float]] = {}
        for part in parts:
            for name, values in part.items():
                joined.setdefault(name, []).extend(values)
        return joined

    def average(self, gradients: Iterable[Tensor]) -> None:
        """The mean of each gradient over processes, in place; for weights that are not sharded."""
        if self.size == 1:
            return
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient.div_(self.size)


@contextmanager
def processes(device: str) -> Iterator[World]:
    """Join the others, where there are any; leave them at the end."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    found = find_device(device, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    if found.type == "cuda":
        torch.cuda.set_device(found)
    if size == 1:
        yield World(rank=0, size=1, device=found)
        return
    dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
    try:
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield World(rank=rank, size=size, device=found, patient=patient)
    finally:
        dist.destroy_process_group()


def sharing(world: World, context: int) -> World:
    """`world` with `context` processes to a clip; UserError where groups do not come out even."""
    if world.size % context:
        raise UserError(
            f"--context {context} needs a multiple of {context} processes, found {world.size}",
            hint="start them with accelerate launch or torchrun",
        )
    return replace(world, context=context)


def shard(
    network: Any,
    world: World,
    precision: Precision,
    *,
    whole: AbstractSet[nn.Parameter] = frozenset(),
) -> None:
    """FSDP2 on each block, then on the rest; gradients are reduced in the weights' own precision.
    The weights in `whole` are left out: every process keeps them.

    Inputs are not cast, so that timesteps stay exact; in bf16 the time embedder stays float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    half = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    policy = half if precision == "bf16" else plain
    # The root too gives its whole weights back after a pass: kept ones would be stale after an
    # update made between two passes without gradients.
    again: dict[str, Any] = {"mesh": mesh, "reshard_after_forward": True}
    if whole:
        again["ignored_params"] = whole
    fully_shard(network.condition_embedder.time_embedder, mp_policy=plain, **again)
    for block in network.blocks:
        fully_shard(block, mp_policy=policy, **again)
    fully_shard(network, mp_policy=policy, **again)


def whole_in_backward(network: Any, inner: Tensor) -> None:
    """Where `network` is sharded, have its outer weights whole when a backward pass comes to
    `inner`, made of what blocks put out: FSDP2 waits for the network's own output."""
    if hasattr(network, "unshard") and inner.requires_grad:
        inner.register_hook(lambda gradient: network.unshard())


def local(weight: Tensor) -> Tensor:
    """What this process holds of a weight; the weight itself where it is not sharded."""
    part: Tensor = weight.to_local() if hasattr(weight, "to_local") else weight
    return part


def whole(weight: Tensor) -> Tensor:
    """All of a weight, in every process."""
    full: Tensor = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return full.detach()


def like(weight: Any, part: Tensor) -> Tensor:
    """This process's `part` as a tensor sharded as `weight` is."""
    if not hasattr(weight, "to_local"):
        return part.to(weight.device)
    from torch.distributed.tensor import DTensor

    sharded: Tensor = DTensor.from_local(
        part.to(weight.device),
        weight.device_mesh,
        weight.placements,
        shape=weight.shape,
        stride=weight.stride(),
    )
    return sharded


def clip(weights: Iterable[nn.Parameter], greatest: float) -> float:
    """Scale gradients down to a norm of at most `greatest`; their norm before, over all processes.

    Gradients that are not finite are left alone. Sharded and whole weights may be mixed.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    parts = [[g for g in gradients if hasattr(g, "to_local") == split] for split in (True, False)]
    value = math.hypot(
        *(float(whole(torch.nn.utils.get_total_norm(part))) for part in parts if part)
    )
    if greatest < value < float("inf"):
        for gradient in gradients:
            gradient.mul_(greatest / value)
    return value
