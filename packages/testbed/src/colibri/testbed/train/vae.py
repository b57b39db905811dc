"""The tiny video autoencoder: diffusers' AutoencoderKLWan, trained from a seed.

Its form is Wan2.2's or Wan2.1's; its latents are the same, so one video model serves both.

It maps 17 frames of 64x64 to a latent grid of 5 x 8 x 8 with 24 channels: the linear code of
`code`. The encoder learns to compute that code, the decoder to invert it better than a linear map
can; noise on its input makes it forgive a video model's small errors.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanRMS_norm, patchify, unpatchify
from numpy.typing import NDArray
from torch import Tensor, nn

from colibri.core.config import to_table
from colibri.core.shards import write_json_whole
from colibri.testbed.score import score
from colibri.testbed.small import small_clip
from colibri.testbed.train.bank import bank_scene, open_bank
from colibri.testbed.train.code import LinearCode, fit_code
from colibri.testbed.train.loop import (
    lengths_of,
    load_training,
    note_length,
    save_training,
    schedule,
)
from colibri.testbed.train.muon import Muon, split_parameters
from colibri.testbed.world import Scene

# B batch  C channels  T frames  H W rows, columns; pixels in [-1, 1]


Layout = Literal["wan2.2", "wan2.1"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeRecipe:
    """What decides the weights."""

    layout: Layout = "wan2.2"
    """wan2.2: residual stages on patches of 2 x 2 pixels; wan2.1: plain ones, one more halving."""
    decoder_steps: int = 1300
    encoder_steps: int = 600
    decay_from: float = 0.5
    """Share of the steps after which the learning rate falls to zero."""
    batch: int = 4
    frames: tuple[int, int] = (5, 9)
    """Frames of the training clips, in turn, cut at random places."""
    clips: int = 6000
    lr: float = 7e-4
    """Of Muon; AdamW, for the ends, vectors and small matrices, has three times as much."""
    latent_noise: float = 0.1
    """Most noise on the decoder's input, in shares of the codes' standard deviation."""
    held_out: int = 32
    """Scenes that are reconstructed and scored on the way."""
    checkpoint_s: float = 120.0
    threads: int = 1
    seed: int = 0


def tiny_vae(layout: Layout = "wan2.2") -> AutoencoderKLWan:
    """8x in space and 4x in time, with random weights; 2.3 M parameters in Wan2.2's form."""
    form = {
        "wan2.2": {
            "base_dim": 24,
            "decoder_base_dim": 32,
            "dim_mult": [1, 2, 2],
            "temperal_downsample": [True, True],
            "is_residual": True,
            "in_channels": 12,
            "out_channels": 12,
            "patch_size": 2,
        },
        "wan2.1": {
            "base_dim": 12,
            "decoder_base_dim": 20,
            "dim_mult": [1, 2, 4, 4],
            "temperal_downsample": [False, True, True],
        },
    }[layout]
    return AutoencoderKLWan(
        **form,
        z_dim=CHANNELS,
        num_res_blocks=1,
        attn_scales=[],
        scale_factor_temporal=4,
        scale_factor_spatial=8,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )


CHANNELS = 24


def the_code(seed: int = 0) -> LinearCode:
    """The code of a seed, fitted to 300 clips."""
    scenes = (bank_scene(seed, index) for index in range(300))
    clips = np.stack([small_clip(scene) for scene in scenes])
    return fit_code(clips, channels=CHANNELS, seed=seed)


def train_vae(out: Path, recipe: VaeRecipe, *, say: Callable[[str], None] = print) -> Path:
    """Train, or go on from the last checkpoints in `out`; the finished VAE is `out`/vae."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    bank = open_bank(out / f"train-{recipe.clips}.npy", count=recipe.clips, seed=recipe.seed)
    held = [bank_scene(recipe.seed + 1, index, "held-out") for index in range(recipe.held_out)]
    code = the_code(recipe.seed)
    vae = tiny_vae(recipe.layout)
    start_small(vae)
    quicken(vae)
    for part in ("decoder", "encoder"):
        _train_part(part, out, vae, code, bank, held, recipe, say)
        finish_vae(vae, code, bank, out / "vae")
        lengths = {part: lengths_of(out / part) for part in ("decoder", "encoder")}
        made = {"lengths": lengths, "vae": to_table(recipe)}
        write_json_whole(out / "vae" / "training.json", made)
    say(f"vae held-out: {reconstruction_report(vae, held)}")
    return out / "vae"


def _train_part(
    part: Literal["decoder", "encoder"],
    out: Path,
    vae: AutoencoderKLWan,
    code: LinearCode,
    bank: NDArray[np.uint8],
    held: list[Scene],
    recipe: VaeRecipe,
    say: Callable[[str], None],
) -> None:
    decoding = part == "decoder"
    model = nn.ModuleList(
        [vae.post_quant_conv, vae.decoder] if decoding else [vae.encoder, vae.quant_conv]
    )
    steps = recipe.decoder_steps if decoding else recipe.encoder_steps
    ends = ("0.", "1.conv_out") if decoding else ("0.conv_in", "1.")
    matrices, others = split_parameters(model, ends)
    optimisers: list[torch.optim.Optimizer] = [
        Muon(matrices, recipe.lr),
        torch.optim.AdamW(others, recipe.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    first = load_training(out / part, model, optimisers)
    note_length(out / part, steps)
    began = saved = time.monotonic()
    for step in range(first, steps):
        rate = recipe.lr * schedule(step, steps, decay_from=recipe.decay_from)
        for optimiser, factor in zip(optimisers, (1, 3), strict=True):
            optimiser.param_groups[0]["lr"] = factor * rate
        clips = _cuts(bank, recipe, step)
        x, z = pixels(clips), torch.from_numpy(code.encode(clips))
        with torch.autocast("cpu", torch.bfloat16):
            if decoding:
                loss = reconstruction_loss(decode(vae, _noisy(z, recipe, step)).float(), x)
            else:
                loss = F.mse_loss(encode(vae, x).float(), z)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        done = step + 1
        if done % 50 == 0:
            pace = (time.monotonic() - began) / (done - first)
            say(f"{part} step {done}/{steps} loss {loss.item():.4f} {pace:.2f} s a step")
        if done % 250 == 0 or done == steps:
            say(f"{part} step {done} held-out: {_part_report(part, vae, code, held)}")
        if time.monotonic() - saved >= recipe.checkpoint_s or done == steps:
            save_training(out / part, model, optimisers, done)
            saved = time.monotonic()


def quicken(vae: AutoencoderKLWan) -> None:
    """Make training steps a third cheaper on a CPU: norms that stay in bfloat16, packed kernels."""
    for module in vae.modules():
        if isinstance(module, WanRMS_norm):
            module.forward = MethodType(_norm, module)
        elif isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)


def _norm(self: WanRMS_norm, x: Tensor) -> Tensor:
    dim = 1 if self.channel_first else -1
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    scale = (self.scale / length.clamp_min(1e-12)).to(x.dtype)
    return x * scale * self.gamma.to(x.dtype)


def finish_vae(
    vae: AutoencoderKLWan, code: LinearCode, bank: NDArray[np.uint8], folder: Path
) -> None:
    """Save the VAE with the codes' means and standard deviations."""
    codes = code.encode(bank[:400])
    means, stds = codes.mean((0, 2, 3, 4)), codes.std((0, 2, 3, 4))
    vae.register_to_config(latents_mean=means.tolist(), latents_std=stds.tolist())
    vae.save_pretrained(folder)


def start_small(vae: AutoencoderKLWan) -> None:
    """Residual branches begin at zero and the log variance stays at -12: latents are their mean."""
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            if ".resnets." in name and ".conv2." in name:
                weight.zero_()
        half = vae.config["z_dim"]
        vae.quant_conv.weight[half:].zero_()
        vae.quant_conv.bias[half:].fill_(-12.0)


def reconstruction_loss(y_BCTHW: Tensor, x_BCTHW: Tensor) -> Tensor:
    """L1 and squared error, up to five times as heavy where the target has edges."""
    luma = x_BCTHW.mean(1)
    high = F.max_pool2d(luma, 7, 1, 3)
    low = -F.max_pool2d(-luma, 7, 1, 3)
    weight = (1 + 4 * (high - low).clamp(0, 0.5) / 0.5)[:, None]
    error = y_BCTHW - x_BCTHW
    return (weight * (error.abs() + 2 * error.square())).mean()


def encode(vae: AutoencoderKLWan, x_BCTHW: Tensor) -> Tensor:
    """Raw latent means; equal to `vae.encode(x).latent_dist.mode()`, in two chunks."""
    x = patchify(x_BCTHW, vae.config["patch_size"] or 1)
    vae.clear_cache()
    parts = []
    for chunk in (x[:, :, :1], x[:, :, 1:]):
        if chunk.shape[2]:
            vae._enc_conv_idx = [0]
            parts.append(
                vae.encoder(chunk, feat_cache=vae._enc_feat_map, feat_idx=vae._enc_conv_idx)
            )
    vae.clear_cache()
    mean, _ = vae.quant_conv(torch.cat(parts, 2)).chunk(2, 1)
    return mean


def decode(vae: AutoencoderKLWan, z_BCTHW: Tensor) -> Tensor:
    """Pixels from raw latents, not clamped; equal to `vae.decode`, in two chunks."""
    x = vae.post_quant_conv(z_BCTHW)
    vae.clear_cache()
    parts = []
    for index, chunk in enumerate((x[:, :, :1], x[:, :, 1:])):
        if chunk.shape[2]:
            vae._conv_idx = [0]
            parts.append(
                vae.decoder(
                    chunk,
                    feat_cache=vae._feat_map,
                    feat_idx=vae._conv_idx,
                    first_chunk=index == 0,
                )
            )
    vae.clear_cache()
    return unpatchify(torch.cat(parts, 2), vae.config["patch_size"] or 1)


def pixels(clips_BTHWC: NDArray[np.uint8]) -> Tensor:
    """uint8 clips as (B, C, T, H, W) in [-1, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(clips_BTHWC.transpose(0, 4, 1, 2, 3)))
    return x.float() / 127.5 - 1


def frames(x_BCTHW: Tensor) -> NDArray[np.uint8]:
    """Pixels in [-1, 1] as uint8 clips (B, T, H, W, C)."""
    scaled = ((x_BCTHW.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    clips: NDArray[np.uint8] = scaled.permute(0, 2, 3, 4, 1).contiguous().numpy()
    return clips


def reconstruction_report(vae: AutoencoderKLWan, scenes: list[Scene]) -> str:
    """PSNR of these scenes' reconstructions, and what the scorer reads in them."""
    clips = np.stack([small_clip(scene) for scene in scenes])
    with torch.no_grad():
        y = torch.cat([decode(vae, encode(vae, x)) for x in pixels(clips).split(8)])
    return compare(clips, frames(y), scenes)


def compare(clips: NDArray[np.uint8], made: NDArray[np.uint8], scenes: list[Scene]) -> str:
    """PSNR in dB over all frames and over frame 0, share of right clips, semantics, quality."""
    error = (clips.astype(np.float32) - made) / 255
    psnr, first = (-10 * np.log10(np.square(e).mean()) for e in (error, error[:, 0]))
    scores = [score(video, scene) for video, scene in zip(made, scenes, strict=True)]
    right = np.mean([s.right for s in scores])
    semantic, quality = (np.mean([getattr(s, k).mean for s in scores]) for k in _HALVES)
    sharp = np.mean([s.quality.sharpness for s in scores])
    return (
        f"{psnr:.2f} dB, frame 0 {first:.2f} dB, all right {right:.3f}, "
        f"semantic {semantic:.3f}, quality {quality:.3f}, sharpness {sharp:.3f}"
    )


_HALVES = ("semantic", "quality")


def _part_report(part: str, vae: AutoencoderKLWan, code: LinearCode, scenes: list[Scene]) -> str:
    clips = np.stack([small_clip(scene) for scene in scenes])
    codes = torch.from_numpy(code.encode(clips))
    with torch.no_grad():
        if part == "decoder":
            y = torch.cat([decode(vae, z) for z in codes.split(8)])
            return compare(clips, frames(y), scenes)
        z = torch.cat([encode(vae, x) for x in pixels(clips).split(8)])
    error = ((z - codes).square().mean() / codes.var()).item() ** 0.5
    return f"relative error {error:.4f}; {compare(clips, code.decode(z.numpy()), scenes)}"


def _noisy(z: Tensor, recipe: VaeRecipe, step: int) -> Tensor:
    seed = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    level = recipe.latent_noise * torch.rand((len(z), 1, 1, 1, 1), generator=seed)
    return z + level * torch.randn(z.shape, generator=seed)


def _cuts(bank: NDArray[np.uint8], recipe: VaeRecipe, step: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([recipe.seed, 7, step])
    rows = rng.integers(len(bank), size=recipe.batch)
    frames = recipe.frames[step % len(recipe.frames)]
    starts = rng.integers(bank.shape[1] - frames + 1, size=recipe.batch)
    return np.stack([bank[r, s : s + frames] for r, s in zip(rows, starts, strict=True)])
