"""What stays in memory from one render to the next: embeddings, the denoiser, the filters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from colibri.core import wan
from colibri.infer.decode import Say, free_memory
from colibri.infer.denoise import encode_prompts, load_denoiser
from colibri.infer.models import Machine, Source
from colibri.infer.recipe import Recipe
from colibri.infer.safety import Filters, open_filters

if TYPE_CHECKING:
    from torch import Tensor

MOST_PROMPTS = 200
"""Embeddings kept; those of Wan's own text encoder are 8 MB each in float32."""


class Kept:
    """One denoiser and some embeddings, loaded when first asked for. Not for several threads."""

    def __init__(self) -> None:
        self._embeddings: dict[tuple[str, str, str], Tensor] = {}
        self._denoiser: tuple[object, wan.WanModel] | None = None
        self._filters: tuple[tuple[str, ...], Filters] | None = None

    def embeddings(
        self, source: Source, machine: Machine, prompts: Sequence[str], *, say: Say
    ) -> "dict[str, Tensor]":
        """Embeddings (1, tokens, width) on the CPU by prompt.

        A denoiser that is loaded leaves the device while the text encoder is there.
        """
        encoder = source.use.text_encoder
        keys = {prompt: (encoder, machine.dtype, prompt) for prompt in prompts}
        missing = [prompt for prompt, key in keys.items() if key not in self._embeddings]
        if missing:
            self._move(away=True)
            fresh = encode_prompts(source, machine, missing, say=say)
            free_memory()
            self._move(away=False)
            self._embeddings |= {keys[prompt]: tensor for prompt, tensor in fresh.items()}
        found = {prompt: self._embeddings[key] for prompt, key in keys.items()}
        for key in list(self._embeddings)[:-MOST_PROMPTS]:
            del self._embeddings[key]
        return found

    def filters(self, names: tuple[str, ...]) -> Filters:
        """Those of `--safety`, opened once."""
        if self._filters is None or self._filters[0] != names:
            self._filters = names, open_filters(names)
        return self._filters[1]

    def denoiser(self, source: Source, machine: Machine, recipe: Recipe) -> wan.WanModel:
        """Transformer and VAE as `recipe` wants them; the same ones again where nothing changed."""
        wanted = (
            (source.folder, recipe.model.transformer, recipe.model.vae, machine),
            (recipe.loras, recipe.attention, recipe.compile, recipe.decoder),
        )
        if self._denoiser is None or self._denoiser[0] != wanted:
            self._denoiser = None  # before the next one needs its room
            free_memory()
            self._denoiser = wanted, load_denoiser(source, machine, recipe)
        return self._denoiser[1]

    def _move(self, *, away: bool) -> None:
        from colibri.infer import placement

        if self._denoiser is not None:
            placement.enter(self._denoiser[1], "away" if away else "denoise")
