"""A row of modulation a frame is the same as one a token, and holds less."""

import pytest
import torch
from colibri.core import wan
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.rollout import whole_clip
from colibri.core.wan.rows import set_frame_rows
from colibri.core.wan.transformer import velocity


@pytest.mark.parametrize("first", [False, True])
def test_a_row_a_frame_gives_what_a_row_a_token_gives(ti2v: wan.WanModel, first: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 3, 8, 4, generator=generator)
    text = torch.randn(2, 6, 64, generator=generator)
    network = ti2v.transformer
    levels = torch.tensor([[0.0, 0.3, 0.9], [0.5, 0.5, 0.5]])
    with torch.no_grad():
        for sigma in (0.7, levels):

            def ask(sigma: float | torch.Tensor = sigma) -> torch.Tensor:
                return velocity(network, x, sigma, text, clean_first=first, per_token=True)

            before = ask()
            plain = velocity(network, x, 0.7, text)
            set_frame_rows(network, True)
            try:
                after = ask()
                assert torch.equal(velocity(network, x, 0.7, text), plain)  # one row: as it was
            finally:
                set_frame_rows(network, False)
            assert (after - before).abs().max() < 1e-5 * before.abs().max()
            assert torch.equal(ask(), before)
    assert not network._forward_pre_hooks


def test_no_row_of_a_token_is_ever_made(ti2v: wan.WanModel) -> None:
    shapes: list[tuple[int, ...]] = []
    block = ti2v.transformer.blocks[0]
    hook = block.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[2].shape)))
    set_frame_rows(ti2v.transformer, True)
    try:
        clip = whole_clip(
            ti2v.transformer,
            torch.ones(1, 6, 64),
            shape=ti2v.family.latent_shape(ti2v.family.video),
            schedule=FlowSchedule.unipc(2, 3.0),
            generator=torch.Generator().manual_seed(0),
            first_BCTHW=torch.zeros(1, 16, 1, 8, 8),
            per_token=True,
        )
    finally:
        hook.remove()
        set_frame_rows(ti2v.transformer, False)
    width = ti2v.transformer.blocks[0].scale_shift_table.shape[-1]
    assert shapes == [(1, 5, 6, width)] * 2
    assert torch.isfinite(clip).all()
