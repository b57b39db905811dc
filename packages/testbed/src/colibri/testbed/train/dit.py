"""The tiny video model: diffusers' WanTransformer3DModel, trained by flow matching from a seed.

Wan2.2-TI2V's layout: one timestep a token; for image-to-video the first latent frame is clean and
its tokens have timestep 0. Latents come from the linear code that the autoencoder learns.
"""

import copy
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerFast

from colibri.core.config import to_table
from colibri.core.shards import write_json_whole
from colibri.testbed import captions
from colibri.testbed.score import Score, score
from colibri.testbed.small import PAIRS, Part, small_clip
from colibri.testbed.train.bank import bank_scene
from colibri.testbed.train.code import LinearCode
from colibri.testbed.train.loop import load_training, note_length, save_training, schedule
from colibri.testbed.train.muon import Muon, split_parameters
from colibri.testbed.train.text import batch_captions, embed, tiny_text_encoder, tiny_tokenizer
from colibri.testbed.train.vae import CHANNELS, the_code
from colibri.testbed.world import Scene

# B batch  C channels  T latent frames  H W latent rows, columns  L tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class DitPart:
    """Steps on scenes of one kind, with a learning rate that falls to zero at their end."""

    steps: int
    clips: int = 24_000
    """That are seen, again and again."""
    free: bool = False
    """Scenes of any size, place and speed; else those of the grid."""
    pairs: float = PAIRS
    """Share of scenes with two shapes."""

    def scene(self, seed: int, index: int, part: Part = "train") -> Scene:
        """One of them."""
        return bank_scene(seed, index, part, free=self.free, pairs=self.pairs)


@dataclass(frozen=True, kw_only=True, slots=True)
class DitRecipe:
    """What decides the weights."""

    parts: tuple[DitPart, ...] = (
        DitPart(steps=5000, free=True),
        DitPart(steps=4000),
        DitPart(steps=2000, pairs=0.65),
    )
    decay_from: float = 0.5
    """Share of a part's steps after which the learning rate falls."""
    batch: int = 32
    lr: float = 4e-4
    """Of Muon; AdamW, for the ends, vectors and embeddings, has three times as much."""
    shift: float = 3.0
    no_text: float = 0.1
    """Share of captions left empty, for classifier-free guidance."""
    first_frame: float = 0.3
    """Share of batches with a clean first latent frame."""
    ema: float = 0.998
    sample_steps: int = 50
    """Euler steps of the samples that are scored on the way."""
    held_out: int = 16
    """Scenes that are sampled and scored on the way."""
    checkpoint_s: float = 120.0
    threads: int = 1
    seed: int = 0


class TinyModel(nn.Module):
    """What is trained together: the text encoder and the transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = tiny_text_encoder()
        self.transformer = tiny_transformer()

    def forward(self, z_BCTHW: Tensor, timestep: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        embeddings, bias = text
        for module in self.transformer.modules():
            if isinstance(module, WanAttention) and isinstance(module.processor, _BiasedText):
                module.processor.bias = bias
        velocity: Tensor = self.transformer(z_BCTHW, timestep, embeddings, return_dict=False)[0]
        return velocity


class _BiasedText:
    """diffusers' attention with a bias on the text's logits, see `text.embed`."""

    def __init__(self) -> None:
        self.stock = WanAttnProcessor()
        self.bias: Tensor | None = None

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        bias = None if self.bias is None else self.bias.to(hidden_states.dtype)
        mixed: Tensor = self.stock(attn, hidden_states, encoder_hidden_states, bias, rotary_emb)
        return mixed


def tiny_transformer() -> WanTransformer3DModel:
    """6.8 M parameters: 4 blocks of width 320, patches of 1 x 2 x 2 latents."""
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=5,
        attention_head_dim=64,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=128,
        freq_dim=128,
        ffn_dim=1024,
        num_layers=4,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=1024,
    )
    nn.init.zeros_(model.proj_out.weight)
    nn.init.zeros_(model.proj_out.bias)
    for block in model.blocks:
        block.attn2.set_processor(_BiasedText())
    return model


def train_dit(out: Path, recipe: DitRecipe, *, say: Callable[[str], None] = print) -> Path:
    """Train, or go on from the last checkpoint, `out`/training.pt."""
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    code = the_code(recipe.seed)
    latents = [cached_latents(out, code, recipe.seed, part) for part in recipe.parts]
    scale = scale_of(latents[0])
    tokenizer = tiny_tokenizer(recipe.seed)
    model = TinyModel()
    average = copy.deepcopy(model).requires_grad_(False)
    both = nn.ModuleList([model, average])
    ends = ("text_encoder.shared", "transformer.patch_embedding", "transformer.proj_out")
    matrices, others = split_parameters(model, ends)
    optimisers: list[torch.optim.Optimizer] = [
        Muon(matrices, recipe.lr, weight_decay=0.01),
        torch.optim.AdamW(others, recipe.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    first = load_training(out, both, optimisers)
    steps = sum(part.steps for part in recipe.parts)
    note_length(out, steps)
    write_json_whole(out / "recipe.json", to_table(recipe))
    began = saved = time.monotonic()
    losses = []
    for step in range(first, steps):
        index, gone = part_at(step, recipe.parts)
        part = recipe.parts[index]
        rate = recipe.lr * schedule(gone, part.steps, decay_from=recipe.decay_from)
        for optimiser, factor in zip(optimisers, (1, 3), strict=True):
            optimiser.param_groups[0]["lr"] = factor * rate
        # the flash kernel's backward pass takes half of a step on a CPU with so few tokens
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            loss = _loss(model, tokenizer, latents[index], scale, recipe, step, part)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        decay = min(recipe.ema, (step + 1) / (step + 20))
        with torch.no_grad():
            for kept, now in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)
        losses.append(loss.item())
        done = step + 1
        if done % 50 == 0:
            pace = (time.monotonic() - began) / (done - first)
            mean = float(np.mean(losses[-50:]))
            say(f"dit step {done}/{steps} loss {mean:.4f} {pace:.2f} s a step")
        if time.monotonic() - saved >= recipe.checkpoint_s or done == steps:
            save_training(out, both, optimisers, done)
            saved = time.monotonic()
        if done % 500 == 0 or done == steps:
            held_out = replace(part, pairs=PAIRS)
            scenes = [
                held_out.scene(recipe.seed + 1, index, "held-out")
                for index in range(recipe.held_out)
            ]
            z = sample(
                average,
                tokenizer,
                scenes,
                scale=scale,
                shift=recipe.shift,
                seed=done,
                steps=recipe.sample_steps,
            )
            say(f"dit step {done} held-out: {_report(code.decode(z.numpy()), scenes)}")
    return out


def _loss(
    model: TinyModel,
    tokenizer: PreTrainedTokenizerFast,
    latents: NDArray[np.float16],
    scale: tuple[Tensor, Tensor],
    recipe: DitRecipe,
    step: int,
    part: DitPart,
) -> Tensor:
    """Mean square error of the velocity noise - x0 at sigmas shifted as in sampling."""
    rng = np.random.default_rng([recipe.seed, 13, step])
    rows = rng.integers(len(latents), size=recipe.batch)
    texts = batch_captions([part.scene(recipe.seed, int(row)) for row in rows], rng)
    texts = ["" if rng.random() < recipe.no_text else text for text in texts]
    mean, std = scale
    x0 = (torch.from_numpy(latents[rows].astype(np.float32)) - mean) / std
    noise = torch.from_numpy(rng.standard_normal(x0.shape, np.float32))
    share = torch.from_numpy(((rng.permutation(recipe.batch) + rng.random(recipe.batch))
                              / recipe.batch).astype(np.float32))  # fmt: skip
    sigma = shifted(share, recipe.shift)[:, None, None, None, None]
    x_t = (1 - sigma) * x0 + sigma * noise
    timestep = 1000 * sigma.flatten()
    from_image = rng.random() < recipe.first_frame
    if from_image:
        x_t[:, :, 0] = x0[:, :, 0]
        timestep = timestep[:, None].repeat(1, _tokens(x0))
        timestep[:, : _tokens(x0[:, :, :1])] = 0
    velocity = model(x_t, timestep, embed(texts, tokenizer, model.text_encoder)).float()
    error = (velocity - (noise - x0)).square()
    return error[:, :, 1:].mean() if from_image else error.mean()


def shifted(share: Tensor, shift: float) -> Tensor:
    """sigma = s u / (1 + (s - 1) u), as in Wan's sampling."""
    return shift * share / (1 + (shift - 1) * share)


def part_at(step: int, parts: Sequence[DitPart]) -> tuple[int, int]:
    """Index of the part that a step is of, and its steps before this one."""
    for index, part in enumerate(parts):
        if step < part.steps:
            return index, step
        step -= part.steps
    raise ValueError("the step is after the last part")


def cached_latents(out: Path, code: LinearCode, seed: int, part: DitPart) -> NDArray[np.float16]:
    """(clips, C, T, H, W) codes of the training scenes of a part."""
    kind = "" if part.free else "-grid"
    kind += "" if part.pairs == PAIRS else f"-{part.pairs:g}"
    path = out / f"latents-{part.clips}{kind}.npy"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        batches = []
        for start in range(0, part.clips, 50):
            rows = range(start, min(start + 50, part.clips))
            clips = [small_clip(part.scene(seed, row)) for row in rows]
            batches.append(code.encode(np.stack(clips)).astype(np.float16))
        with path.with_suffix(".part").open("wb") as file:
            np.save(file, np.concatenate(batches))
        path.with_suffix(".part").rename(path)
    latents: NDArray[np.float16] = np.load(path)
    return latents


def scale_of(latents: NDArray[np.float16]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel, (1, C, 1, 1, 1)."""
    some = latents[:400].astype(np.float32)
    mean, std = (torch.from_numpy(f(some, axis=(0, 2, 3, 4))) for f in (np.mean, np.std))
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)


@torch.no_grad()
def sample(
    model: TinyModel,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scene],
    *,
    scale: tuple[Tensor, Tensor],
    shift: float,
    seed: int,
    steps: int = 50,
    guidance: float = 4.0,
    shape: tuple[int, ...] = (CHANNELS, 5, 8, 8),
    first: Tensor | None = None,
) -> Tensor:
    """Raw latents by Euler steps with classifier-free guidance; `first` is a clean first frame."""
    rng = np.random.default_rng([seed, 17])
    texts = [captions.terse(scene, rng) for scene in scenes]
    noise = torch.Generator().manual_seed(seed)
    z = torch.randn((len(texts), *shape), generator=noise)
    sigmas = shifted(torch.linspace(1, 0, steps + 1), shift)
    mean, std = scale
    with torch.autocast("cpu", torch.bfloat16):
        text = embed([*texts, *[""] * len(texts)], tokenizer, model.text_encoder)
        for sigma, after in itertools.pairwise(sigmas):
            timestep = (1000 * sigma).expand(2 * len(texts))
            if first is not None:
                z[:, :, :1] = (first - mean) / std
                timestep = timestep[:, None].repeat(1, _tokens(z))
                timestep[:, : _tokens(z[:, :, :1])] = 0
            given, free = model(torch.cat([z, z]), timestep, text).float().chunk(2)
            z = z + (after - sigma) * (free + guidance * (given - free))
    if first is not None:
        z[:, :, :1] = (first - mean) / std
    return z * std + mean


def _tokens(z_BCTHW: Tensor) -> int:
    return z_BCTHW[0, 0].numel() // 4


def _report(videos: NDArray[np.uint8], scenes: Sequence[Scene]) -> str:
    scores: list[Score] = [score(v, s) for v, s in zip(videos, scenes, strict=True)]
    parts = {
        name: np.mean([getattr(s.semantic, name) for s in scores])
        for name in ("shape", "colour", "background", "direction", "count")
    }
    named = ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
    quality = np.mean([s.quality.mean for s in scores])
    return (
        f"semantic {np.mean(list(parts.values())):.3f} ({named}), quality {quality:.3f}, "
        f"all right {np.mean([s.right for s in scores]):.2f}"
    )
