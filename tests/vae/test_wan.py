"""The full Wan VAE run faster: the same video as diffusers', whatever its form and the chunks."""

import inspect
from typing import Any

import pytest
import torch
from colibri.core.errors import UserError
from colibri.vae.wan import WanCore, speed_up
from torch.utils.flop_counter import FlopCounterMode

from .conftest import SMALL_VAE

WAN21 = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [True, True],
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}
"""Wan2.1's form: no shortcuts, no patches, and upsampling that halves the channels."""

UNEVEN = SMALL_VAE | {
    "base_dim": 8,
    "decoder_base_dim": 8,
    "dim_mult": [1, 2, 4, 4],
    "temperal_downsample": [False, True, True],
    "scale_factor_spatial": 16,
}
"""Wan2.2's form where a block halves its channels and only space is doubled in one."""


def _vae(table: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(3)
    return AutoencoderKLWan(**table).to(dtype).eval().requires_grad_(False)


def _exact(vae: Any) -> Any:
    """diffusers upsamples in float32 whatever the dtype; in float64 that is its largest error."""
    for module in vae.modules():
        if type(module).__name__ == "WanUpsample":
            module.forward = torch.nn.Upsample(scale_factor=2.0, mode="nearest-exact").forward
    return vae


def _latents(vae: Any, frames: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    size = (batch, vae.config.z_dim, frames, 3, 4)
    return torch.randn(size, generator=generator, dtype=vae.dtype)


@pytest.mark.parametrize("form", ["2d", "3d"])
@pytest.mark.parametrize("table", [SMALL_VAE, UNEVEN, WAN21], ids=["2.2", "uneven", "2.1"])
def test_it_decodes_what_diffusers_decodes(table: dict[str, Any], form: Any) -> None:
    vae = _exact(_vae(table))
    z = _latents(vae, 5, batch=2)
    expected = vae.decode(z).sample
    assert expected.std() > 0.01
    for group in (None, 1, 3):
        video = WanCore(vae, group=group, form=form)(z).clamp(-1, 1)
        torch.testing.assert_close(video, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("plan", [[6], [1] * 6, [2, 3, 1], [5, 1]], ids=str)
def test_any_chunk_plan_gives_the_same_video(plan: list[int]) -> None:
    vae = _vae(SMALL_VAE)
    core, z = WanCore(vae), _latents(vae, 6)
    cache = core.new_cache()
    parts = [core(chunk, cache) for chunk in z.split(plan, dim=2)]
    torch.testing.assert_close(torch.cat(parts, dim=2), core(z), rtol=0, atol=1e-12)
    assert cache.latents == 6


def test_two_videos_do_not_mix_and_the_model_keeps_nothing() -> None:
    vae = _vae(WAN21)
    core = WanCore(vae)
    one, other = _latents(vae, 4), _latents(vae, 4) + 1
    caches, mixed = (core.new_cache(), core.new_cache()), []
    for index in range(4):
        mixed.append(core(one[:, :, index : index + 1], caches[0]))
        core(other[:, :, index : index + 1], caches[1])
    torch.testing.assert_close(torch.cat(mixed, dim=2), core(one), rtol=0, atol=1e-12)
    assert all(slot is None for slot in getattr(vae, "_feat_map", None) or [None])


def test_half_precision_is_as_near_to_the_truth_as_diffusers() -> None:
    vae = _vae(SMALL_VAE)
    z = _latents(vae, 3)
    truth = vae.decode(z).sample
    half = vae.to(torch.bfloat16)
    theirs = (half.decode(z.bfloat16()).sample.double() - truth).abs().mean()
    ours = (WanCore(half)(z.bfloat16()).clamp(-1, 1).double() - truth).abs().mean()
    assert 0 < ours < 1.2 * theirs


def test_it_takes_the_place_of_decode_and_follows_the_weights() -> None:
    vae = _exact(_vae(SMALL_VAE))
    z = _latents(vae, 3)
    before = vae.decode(z).sample
    plain = vae._decode
    assert speed_up(vae) is vae
    assert vae._decode != plain
    torch.testing.assert_close(vae.decode(z).sample, before, rtol=0, atol=1e-12)
    assert vae.decode(z, return_dict=False)[0].shape == before.shape
    with torch.no_grad():  # as a LoRA or another checkpoint would
        for weight in vae.decoder.parameters():
            weight.mul_(1.1)
    changed = vae.decode(z).sample
    assert (changed - before).abs().max() > 1e-3
    torch.testing.assert_close(changed, plain(z).sample, rtol=0, atol=1e-12)


def test_layers_that_are_offloaded_one_by_one_still_decode() -> None:
    from accelerate import cpu_offload

    vae = _vae(SMALL_VAE, torch.float32)
    z = _latents(vae, 2).float()
    expected = vae.decode(z).sample
    speed_up(vae)
    cpu_offload(vae, execution_device=torch.device("cpu"))
    torch.testing.assert_close(vae.decode(z).sample, expected, rtol=0, atol=1e-6)


def test_an_offloaded_model_leaves_no_copies_of_weights_behind() -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    vae = _vae(SMALL_VAE, torch.float32)
    z = _latents(vae, 2).float()
    speed_up(vae)
    core: WanCore = inspect.getclosurevars(vae._decode.__func__).nonlocals["core"]
    vae.decode(z)
    assert core._made
    add_hook_to_module(vae, ModelHook())
    vae.decode(z)
    assert not core._made


def test_gradients_and_tiles_are_still_diffusers() -> None:
    vae = speed_up(_vae(SMALL_VAE, torch.float32))
    z = _latents(vae, 2).requires_grad_(True)
    vae.decode(z).sample.sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    wide = torch.randn(1, 16, 1, 6, 6)
    whole = vae.decode(wide).sample
    vae.enable_tiling(32, 32, 16, 16)
    tiled = vae.decode(wide).sample
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().max() > 1e-4  # tiles are approximate, so these were tiles


def test_less_work_than_diffusers() -> None:
    vae = _vae(SMALL_VAE, torch.float32)
    z, counts = _latents(vae, 4), []
    for decode in (vae.decode, WanCore(vae)):
        with FlopCounterMode(display=False) as counter:
            decode(z)
        counts.append(counter.get_total_flops())
    assert counts[1] < 0.97 * counts[0]


def test_latents_that_do_not_fit_are_one_sentence() -> None:
    core = WanCore(_vae(WAN21))
    with pytest.raises(UserError, match=r"expected \(batch, 4, latent frames"):
        core(torch.zeros(1, 16, 2, 3, 4))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU; on a CPU compiling takes a minute"
)
def test_one_compiled_kernel_for_norm_and_activation_changes_nothing() -> None:
    vae = _vae(SMALL_VAE, torch.float32).cuda()
    z = _latents(vae, 3).cuda()
    compiled = WanCore(vae, compiled=True)(z)
    torch.testing.assert_close(compiled, WanCore(vae)(z), rtol=0, atol=1e-5)
