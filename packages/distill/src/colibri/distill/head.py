"""A head on a transformer's features: is this clip real? For `objectives.gan`."""

# B batch  S video tokens  D width of the transformer  K kinds of features

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """One logit a clip from the outputs of some blocks: each is normalised, narrowed and averaged
    over its tokens; a small network reads them together. Its last layer starts at 0."""

    def __init__(self, network: Any, *, layers: Sequence[int], width: int) -> None:
        super().__init__()
        config = network.config
        inner = int(config.num_attention_heads) * int(config.attention_head_dim)
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, width), nn.SiLU()) for _ in layers
        )
        self.join, self.logit = nn.Linear(width * len(layers), width), nn.Linear(width, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)
        self._caught: list[Tensor] = []
        self._catching = False
        for layer in layers:
            network.blocks[layer].register_forward_hook(self._catch)

    def _catch(self, block: Any, inputs: Any, output: Tensor) -> None:
        if self._catching:
            self._caught.append(output)

    def __enter__(self) -> "Head":
        """From here to the exit, what the blocks put out is kept for `forward`."""
        self._caught, self._catching = [], True
        return self

    def __exit__(self, *_: object) -> None:
        self._catching = False

    def forward(self) -> Tensor:
        """Logits (B,) of the pass that was caught."""
        caught, self._caught = self._caught, []
        dtype = self.logit.weight.dtype
        narrowed = [
            narrow(tokens_BSD.to(dtype)).mean(1)
            for narrow, tokens_BSD in zip(self.narrow, caught, strict=True)
        ]
        read = nn.functional.silu(self.join(torch.cat(narrowed, dim=1)))
        logits: Tensor = self.logit(read).squeeze(1)
        return logits
