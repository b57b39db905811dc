"""Block after block of latents by a recipe: prompts that change, an image, a saved state.

Knows no file and no frame; leaves one block's denoising to `core.wan.rollout`.
"""

# B batch  C channels  T latent frames  H W latent rows, columns

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colibri.core import wan
from colibri.infer.image import Frame
from colibri.infer.long_recipe import Rollout
from colibri.infer.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from colibri.core.wan.cache import KVCache

HELD, CACHE = "held", "cache."
"""Names in a saved state."""


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """A block of latents, and what goes on from it."""

    index: int
    latents_BCTHW: "Tensor"
    cache: "KVCache"
    held_BCTHW: "Tensor"
    """The latents whose keys are in the cache, in order."""


def rolled(
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "Mapping[str, Tensor]",
    first: Frame | None,
    *,
    cached: int = 0,
    state: "Mapping[str, Tensor] | None" = None,
    given: "Iterable[Tensor]" = (),
) -> "Iterator[Rolled]":
    """The blocks of `recipe` in order, in constant memory where the model has a window.

    `embeddings` (1, tokens, width) are by prompt. `state` is `state_of` block `cached` - 1, after
    which it goes on; `given` are latents of the blocks from there that were made before: where
    blocks see a clean past they are only taken into the key cache, else made again.
    """
    import torch

    from colibri.core.wan.attention import Prompt
    from colibri.core.wan.cache import KVCache
    from colibri.core.wan.causal import extend
    from colibri.core.wan.decoder import encode_video, to_pixels
    from colibri.core.wan.rollout import block_rollout, rewritten, seeded_noise

    rollout, network = Rollout.of(recipe), model.transformer
    causal, device = rollout.form, network.device
    cache = KVCache(causal=causal, store=rollout.store)
    noise = seeded_noise([recipe.seed], device=device)
    held = None
    if state:
        held = state[HELD]
        named = {name.removeprefix(CACHE): one for name, one in state.items() if name != HELD}
        cache = cache.restored(named)
    # what a block's last step wrote is not told by the latents it ended with
    text, known = None, iter(given if causal.past == "clean" else ())
    for index in range(cached, rollout.blocks):
        scene = rollout.scene(index)
        if text is None or scene.block == index:
            text = Prompt.of(network, embeddings[scene.prompt_used].to(device))
            if scene.block == index and held is not None and rollout.switch == "recache":
                cache = rewritten(*(network, held, text, cache), schedule=recipe.flow, noise=noise)
        latents = next(known, None)
        if latents is not None:
            latents = latents.to(device)
            with torch.no_grad():
                _, cache = extend(network, latents, text, cache)
        else:
            image = None
            if first is not None and index == 0:
                image = encode_video(model.vae, to_pixels(first[None])).to(device)
            (block,) = block_rollout(
                network,
                text,
                shape=model.family.latent_shape(recipe.video),
                causal=causal,
                schedule=recipe.flow,
                noise=noise,
                blocks=1,
                first_BCTHW=image,
                cache=cache,
            )
            latents, cache = block.latents_BCTHW, block.cache
        joined = latents if held is None else torch.cat([held, latents], dim=2)
        latest = cache.held - min(causal.sink, cache.held)
        held = torch.cat(
            [joined[:, :, : cache.held - latest], joined[:, :, joined.shape[2] - latest :]], dim=2
        )
        yield Rolled(index=index, latents_BCTHW=latents, cache=cache, held_BCTHW=held)


def state_of(one: Rolled) -> "dict[str, Tensor]":
    """What a rollout goes on from after a block, as tensors by name."""
    return {HELD: one.held_BCTHW} | {
        f"{CACHE}{name}": tensor for name, tensor in one.cache.state().items()
    }
