"""Activations of a transformer, counted on the meta device: what autograd keeps, and what a pass
without gradients has at once. No memory is used, whatever the size."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from colibri.core import wan
from colibri.core.geometry import LatentShape
from colibri.core.wan import dryrun
from colibri.core.wan.family import ModelFamily

Kind = torch.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Bytes that autograd keeps in a forward pass, without weights."""

    block: int
    """By each block."""
    rest: int
    """By what is before and after the blocks; modulation counts here."""


def kept_bytes(
    family: ModelFamily,
    shape: LatentShape,
    *,
    batch: int,
    text_tokens: int,
    per_token: bool,
    dtype: torch.dtype,
) -> Kept:
    """Count a pass of one block and of two; their difference is a block."""
    one, two = (
        _count(_short(family, layers), shape, batch, text_tokens, per_token, dtype)
        for layers in (1, 2)
    )
    return Kept(block=two - one, rest=2 * one - two)


def _short(family: ModelFamily, layers: int) -> ModelFamily:
    return replace(family, transformer=dict(family.transformer) | {"num_layers": layers})


def _count(
    family: ModelFamily,
    shape: LatentShape,
    batch: int,
    text_tokens: int,
    per_token: bool,
    dtype: torch.dtype,
) -> int:
    network = wan.build_meta(family, "transformer")
    full = set(network._keep_in_fp32_modules) if dtype == torch.bfloat16 else set()
    for name, weight in network.named_parameters():
        weight.data = weight.data.to(torch.float32 if full & set(name.split(".")) else dtype)
    tokens = shape.tokens(family.patch)
    config = family.transformer

    def empty(*size: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.empty(size, dtype=kind, device="meta")

    def run() -> None:
        network(
            hidden_states=empty(batch, shape.channels, shape.frames, shape.height, shape.width),
            timestep=empty(batch, *((tokens,) if per_token else ()), kind=torch.float64),
            encoder_hidden_states=empty(batch, text_tokens, int(config["text_dim"])),
            return_dict=False,
        )

    with _FlashAttention():
        return dryrun.kept_bytes(run, network.parameters())


class _FlashAttention(TorchFunctionMode):
    """Attention that keeps what a fused kernel keeps, in place of the meta device's plain one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            return _Fused.apply(named["query"], named["key"], named["value"])
        return func(*args, **(kwargs or {}))


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_BHLD: Tensor, k_BHLD: Tensor, v_BHLD: Tensor) -> Tensor:
        out = torch.empty_like(q_BHLD)
        sums = torch.empty(q_BHLD.shape[:-1], dtype=torch.float32, device=q_BHLD.device)
        ctx.save_for_backward(q_BHLD, k_BHLD, v_BHLD, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError  # only counted
