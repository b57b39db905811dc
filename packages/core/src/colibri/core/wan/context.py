"""One clip over several processes, each with a part of its tokens: diffusers' context parallelism.

Ulysses: between its projections and attention a process trades its tokens of all heads for all
tokens of its heads. Every process gives the whole clip in and gets the whole velocity out; backward
passes leave in each a part of the weights' gradients, whose sum is the gradient. Leaves how
gradients are summed, and who has which clip, to the trainer.
"""

# B batch  S tokens  N heads  D head width

import logging
import warnings
from typing import Any

import torch
import torch.distributed as dist
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    dispatch_attention_fn,
)
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.wan.attention import project, project_out, rotate


def context_groups(size: int, device: torch.device) -> ParallelConfig:
    """Groups of `size` processes, neighbours by rank, that share a clip; asked once, for all
    networks. All processes call it."""
    from torch.distributed.device_mesh import init_device_mesh

    # diffusers' own `enable_parallelism` divides by the number of accelerators, also where none is
    names = ("data", "ring", "ulysses")
    mesh = init_device_mesh(
        device.type, (dist.get_world_size() // size, 1, size), mesh_dim_names=names
    )
    groups = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=size))
    groups.setup(dist.get_rank(), dist.get_world_size(), device, mesh=mesh)
    return groups


def share_tokens(model: Any, groups: ParallelConfig) -> None:
    """From now on the processes of a group compute each pass of a `WanTransformer3DModel` together.
    Before FSDP takes it. UserError for an attention backend that cannot."""
    for block in model.blocks:
        backend = block.attn1.processor._attention_backend
        check_backend(backend)
        shared = SharedAttention()
        shared._attention_backend, shared._parallel_config = backend, groups
        block.attn1.set_processor(shared)
    # said at each start: of timesteps that are one a clip and stay whole, and by torch of diffusers
    logging.getLogger("diffusers.hooks.context_parallel").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*all_gather_tensor", category=FutureWarning)
    apply_context_parallel(model, groups.context_parallel_config, model._cp_plan)


class SharedAttention(WanAttnProcessor):
    """Self-attention over the tokens of all processes in a group, in the dtype of the values.

    diffusers' own hands over what the norms give: float32 queries and keys under autocast on CUDA,
    which its backward pass, outside of autocast, cannot mix with values in bfloat16.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        q, k, v = project(attn, hidden_states, hidden_states)
        out_BSND = dispatch_attention_fn(
            rotate(q, rotary_emb).to(v.dtype),
            rotate(k, rotary_emb).to(v.dtype),
            v,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return project_out(attn, out_BSND, q)


def check_backend(backend: str | AttentionBackendName | None) -> None:
    """UserError for an attention backend of diffusers that cannot; None is the process's own."""
    found = _AttentionBackendRegistry.get_active_backend()[0] if backend is None else backend
    name = found.value if isinstance(found, AttentionBackendName) else found
    can = _AttentionBackendRegistry._supports_context_parallel
    if name not in can:
        raise UserError(
            f"the attention backend {name} cannot share a clip's tokens",
            hint=f"use {', '.join(sorted(can))}",
        )
