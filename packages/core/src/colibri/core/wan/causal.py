"""Ask a stock Wan transformer for velocities block after block: with a cache, or a clip at once.

The two agree: block b sees the sink and the latest frames before it, at positions counted from the
first frame that it sees. Leaves sampling to `rollout`.
"""

# B batch  C channels  T latent frames  H W latent rows, columns  L text tokens  D text width

from typing import Any, Literal

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.wan.attention import (
    CachedPass,
    MaskedPass,
    Prompt,
    Rotary,
    WholePass,
    dense_mask,
    make_causal,
)
from colibri.core.wan.cache import KVCache
from colibri.core.wan.family import Causal
from colibri.core.wan.transformer import velocity

Text = Tensor | Prompt
"""Embeddings (B, L, D), or a `Prompt` that saves their projection in passes without gradients."""


def block_velocity(
    model: Any,
    x_BCTHW: Tensor,
    sigma: float | Tensor,
    text: Text,
    cache: KVCache,
    *,
    timestep: float | Tensor | None = None,
) -> Tensor:
    """The velocity noise - x0 at a block that follows what `cache` holds.

    Arguments and dtypes as `transformer.velocity`; gradients flow to the block and the weights, and
    through the cache only if it holds a graph.
    """
    one = CachedPass(cache=cache, rotary=_rotary(model, x_BCTHW, cache.held + x_BCTHW.shape[2]))
    return _ask(model, x_BCTHW, sigma, text, one, timestep, cache)


def extend(
    model: Any,
    x_BCTHW: Tensor,
    text: Text,
    cache: KVCache,
    *,
    sigma: float = 0.0,
    timestep: float | None = None,
    keep_graph: bool = False,
) -> tuple[Tensor, KVCache]:
    """The velocity at a block, and the cache with the block behind.

    The default, noise level 0, writes a clean block. `keep_graph` lets gradients flow through what
    is written; without it they stop there.
    """
    one = CachedPass(
        cache=cache,
        rotary=_rotary(model, x_BCTHW, cache.held + x_BCTHW.shape[2]),
        collect=True,
        keep_graph=keep_graph,
    )
    predicted = _ask(model, x_BCTHW, sigma, text, one, timestep, cache)
    tokens = _tokens(model, x_BCTHW)
    return predicted, cache.extended(one.taken(), tokens=tokens)


def clip_velocity(
    model: Any,
    x_BCTHW: Tensor,
    sigma: float | Tensor,
    text: Text,
    causal: Causal,
    *,
    clean_BCTHW: Tensor | None = None,
    timestep: Tensor | None = None,
    attention: Literal["blocks", "mask"] = "blocks",
) -> Tensor:
    """The velocity at every block of a whole clip in one pass, as the cached passes give it.

    Without `clean_BCTHW` blocks see those before them as they are in `x_BCTHW`, noise and all
    (diffusion forcing); with it they see the clean ones at noise level 0 (teacher forcing, and what
    a self-rollout's cache holds). `sigma` as in `transformer.velocity`: a number, (B,) or (B, T).

    `blocks` sees and places frames as a cache does and takes any attention backend. `mask` is one
    dense mask with the clip's own positions: the same until a frame behind a sink is evicted.
    """
    frames, tokens = x_BCTHW.shape[2], _tokens(model, x_BCTHW)
    clean = clean_BCTHW is not None
    rotary = _rotary(model, x_BCTHW, frames)
    one: WholePass | MaskedPass
    if attention == "blocks":
        one = WholePass(causal=causal, frames=frames, tokens=tokens, clean=clean, rotary=rotary)
    else:
        mask = dense_mask(causal, frames, tokens, clean=clean).to(x_BCTHW.device)
        twice = (torch.cat([rotary[0]] * 2, 1), torch.cat([rotary[1]] * 2, 1)) if clean else rotary
        one = MaskedPass(mask_SS=mask, rotary=twice)
    if clean_BCTHW is None:
        return _ask(model, x_BCTHW, sigma, text, one, timestep)
    levels = torch.as_tensor(sigma, dtype=torch.float64, device="cpu")
    if timestep is not None:
        timestep = _with_zeros(torch.as_tensor(timestep, dtype=torch.float64), x_BCTHW)
    both = torch.cat([clean_BCTHW.to(x_BCTHW), x_BCTHW], dim=2)
    return _ask(model, both, _with_zeros(levels, x_BCTHW), text, one, timestep)[:, :, frames:]


def recached(
    model: Any,
    held_BCTHW: Tensor,
    text: Text,
    cache: KVCache,
    *,
    sigma: float = 0.0,
    timestep: float | None = None,
    keep_graph: bool = False,
) -> KVCache:
    """`cache` computed again from the frames that it holds, for another text.

    `held_BCTHW` are those frames in order, at noise level `sigma`: the sink, then the latest
    (LongLive's KV-recache, arXiv 2509.22622). They see no frame that was evicted.
    """
    if held_BCTHW.shape[2] != cache.held:
        raise UserError(
            f"the cache holds {cache.held} frames, {held_BCTHW.shape[2]} were given to compute it"
        )
    causal = cache.causal
    sink = min(causal.sink, cache.held)
    fresh = KVCache(causal=causal, store=cache.store)
    cuts = list(range(cache.held, sink, -causal.block))
    starts = sorted({0, sink, *cuts} - {cache.held})
    for start, end in zip(starts, [*starts[1:], cache.held], strict=True):
        _, fresh = extend(
            *(model, held_BCTHW[:, :, start:end], text, fresh),
            sigma=sigma,
            timestep=timestep,
            keep_graph=keep_graph,
        )
    return KVCache(
        causal=causal,
        store=cache.store,
        frames=cache.frames,
        tokens=fresh.tokens,
        layers=fresh.layers,
    )


def _ask(
    model: Any,
    x_BCTHW: Tensor,
    sigma: float | Tensor,
    text: Text,
    one: CachedPass | WholePass | MaskedPass,
    timestep: float | Tensor | None,
    cache: KVCache | None = None,
) -> Tensor:
    if cache is not None and cache.layers and cache.tokens != _tokens(model, x_BCTHW):
        raise UserError(
            f"the cache holds frames of {cache.tokens} tokens, the block has "
            f"{_tokens(model, x_BCTHW)}",
            hint="size and model cannot change within a clip",
        )
    prompt = text if isinstance(text, Prompt) else None
    embeddings = text.text_BLD if isinstance(text, Prompt) else text
    with make_causal(_bare(model)).using(one, prompt):
        return velocity(model, x_BCTHW, sigma, embeddings, timestep=timestep)


def _rotary(model: Any, x_BCTHW: Tensor, frames: int) -> Rotary:
    """The model's own cosines and sines at positions 0 to `frames`."""
    rope = _bare(model).rope
    longest = rope.freqs_cos.shape[0]
    if frames > longest:
        raise UserError(
            f"a block would see {frames} latent frames, the model has positions for {longest}",
            hint="use a smaller window and sink",
        )
    like = torch.empty((1, 1, frames, *x_BCTHW.shape[3:]), device="meta")
    rotary: Rotary = rope.forward(like)  # not called: the hook is for the model's own passes
    return rotary


def _tokens(model: Any, x_BCTHW: Tensor) -> int:
    _, rows, columns = model.config.patch_size
    return (x_BCTHW.shape[3] // rows) * (x_BCTHW.shape[4] // columns)


def _with_zeros(levels: Tensor, x_BCTHW: Tensor) -> Tensor:
    """(B, 2T): level 0 for the clean half, then `levels`."""
    batch, frames = x_BCTHW.shape[0], x_BCTHW.shape[2]
    if levels.ndim == 1:
        levels = levels[:, None]
    levels = levels.cpu().expand(batch, frames)
    return torch.cat([torch.zeros_like(levels), levels], dim=1)


def _bare(model: Any) -> Any:
    """The transformer itself, where `model` wraps it (data-parallel, compiled)."""
    for name in ("module", "_orig_mod"):
        model = getattr(model, name, model)
    return model
