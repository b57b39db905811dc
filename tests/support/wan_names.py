"""Transformers by the names of Wan-Video/Wan2.2 wan/modules/model.py."""

from typing import Any

import torch

Weights = dict[str, torch.Tensor]

_HEAD = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
BLOCK = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}


def as_wan(network: Any) -> Weights:
    """A transformer's weights by Wan's names."""
    own = network.state_dict()
    table = {"head.modulation": "scale_shift_table"}
    for block in range(len(network.blocks)):
        table[f"blocks.{block}.modulation"] = f"blocks.{block}.scale_shift_table"
        for mine, theirs in BLOCK.items():
            for kind in ("weight", "bias"):
                table[f"blocks.{block}.{mine}.{kind}"] = f"blocks.{block}.{theirs}.{kind}"
    for mine, theirs in _HEAD.items():
        for kind in ("weight", "bias"):
            table[f"{mine}.{kind}"] = f"{theirs}.{kind}"
    named = {mine: own[theirs].clone() for mine, theirs in table.items() if theirs in own}
    assert len(named) == len(own)
    return named
