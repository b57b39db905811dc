"""A clip's tokens over two processes, by gloo on the CPU; training is shown by tests/distill."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.wan.context import context_groups, share_tokens
from colibri.core.wan.transformer import velocity
from processes import run_joined

BFLOAT16 = 2e-2


def _model() -> Any:
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=8,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
        )
    for block in model.blocks:  # what autocast makes of the norms on CUDA
        for norm in (block.attn1.norm_q, block.attn1.norm_k):
            norm.register_forward_hook(lambda module, inputs, output: output.float())
    return model


def _pass(model: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A velocity and gradients, in bfloat16 by autocast, with a given first frame."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 3, 4, 4, generator=generator)
    text = torch.randn(2, 5, 8, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = velocity(model, x, 0.5, text, clean_first=torch.tensor([True, False]))
    found.square().sum().backward()
    return found.detach(), [weight.grad for weight in model.parameters()]


def _work(joined: dict[str, str], out: Path) -> None:
    os.environ |= joined
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    model = _model()
    tokens = []
    model.blocks[1].register_forward_hook(
        lambda module, inputs, output: tokens.append(output.shape[1])
    )
    share_tokens(model, context_groups(2, torch.device("cpu")))
    found, gradients = _pass(model)
    torch.save((tokens, found, gradients), out / f"{joined['RANK']}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_half_of_the_tokens_each_have_the_whole_velocity_and_gradient(
    tmp_path: Path,
) -> None:
    """Queries and keys in float32 beside values in bfloat16, as autocast gives them on CUDA."""
    assert run_joined(_work, [(tmp_path,)] * 2, timeout_s=240) == [0, 0]
    whole, gradients = _pass(_model())
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for tokens, found, _ in halves:
        assert tokens == [6]  # of 12
        assert (found - whole).norm() < BFLOAT16 * whole.norm()
    for one, *parts in zip(gradients, *(half[2] for half in halves), strict=True):
        assert (sum(parts) - one).norm() < BFLOAT16 * one.norm() + 1e-3


def test_an_attention_backend_that_cannot_share_is_refused() -> None:
    model = _model()
    model.blocks[0].attn1.processor._attention_backend = "flex"
    with pytest.raises(UserError, match="the attention backend flex cannot share"):
        share_tokens(model, None)  # type: ignore[arg-type]
