"""Fewer text tokens for the same cross-attention: a prompt's padding becomes one weighted token.

A Wan pipeline pads embeddings with zeros, to 512 tokens for the released models, and attends to all
of them. Equal tokens have equal logits and values: attention over n of them is attention over one
whose logit is raised by log n. At the size of the tiny models, text is most of a pass.
"""

# B batch  L text tokens  D text width

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class ShortText:
    """A processor for each cross-attention of one transformer, and the bias that they add.

    Outside of `of` the transformer is as it was. Not for checkpointed blocks: they are computed
    again when the bias is gone.
    """

    def __init__(self, network: Any) -> None:
        from diffusers.models.transformers.transformer_wan import WanAttnProcessor

        self._bias: Tensor | None = None
        owner = self

        class Biased(WanAttnProcessor):
            """diffusers' attention with a bias on the text's logits."""

            def __call__(
                self,
                attn: Any,
                hidden_states: Tensor,
                encoder_hidden_states: Tensor | None = None,
                attention_mask: Tensor | None = None,
                rotary_emb: Any = None,
            ) -> Tensor:
                mask = attention_mask if owner._bias is None else owner._bias
                if mask is not None:
                    mask = mask.to(hidden_states.dtype)
                mixed: Tensor = super().__call__(
                    attn, hidden_states, encoder_hidden_states, mask, rotary_emb
                )
                return mixed

        for block in network.blocks:
            block.attn2.set_processor(Biased())

    @contextmanager
    def of(self, text_BLD: Tensor) -> Iterator[Tensor]:
        """Gives the text to ask with; inside, attention counts its padding as `text_BLD` would."""
        short_BLD, self._bias = shorten(text_BLD)
        try:
            yield short_BLD
        finally:
            self._bias = None


def shorten(text_BLD: Tensor) -> tuple[Tensor, Tensor]:
    """Text up to the batch's longest prompt and one token of padding, and the bias (B, 1, 1, l) on
    the logits of what is left of it: log of how many tokens each one stands for."""
    total = text_BLD.shape[1]
    places = torch.arange(1, total + 1, device=text_BLD.device)
    lengths_B = (text_BLD.ne(0).any(-1) * places).amax(1)
    kept = min(total, int(lengths_B.max()) + 1)
    stands_for = (total - lengths_B).double() / (kept - lengths_B).clamp_min(1)
    padding_BL = places[:kept] > lengths_B[:, None]
    bias = torch.where(padding_BL, stands_for[:, None].log(), 0.0)
    return text_BLD[:, :kept], bias[:, None, None]
