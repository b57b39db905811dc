"""An exponential average of the student's weights, in their own dtype, sharded as they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """average = decay * average + (1 - decay) * weight after each update from `start` on; before,
    the average is the weights themselves."""

    def __init__(self, weights: Mapping[str, Tensor], *, decay: float, start: int = 0) -> None:
        self._decay, self._start = decay, start
        self.weights = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], *, updates: int) -> None:
        """After the `updates`-th update of the student, counted from 1."""
        for name, average in self.weights.items():
            if updates <= self._start:
                average.copy_(weights[name])
            else:
                average.lerp_(weights[name].detach(), 1 - self._decay)

    @contextmanager
    def swapped(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, `weights` hold the average and the average the weights; then both come back."""
        self._swap(weights)
        try:
            yield
        finally:
            self._swap(weights)

    @torch.no_grad()
    def _swap(self, weights: Mapping[str, Tensor]) -> None:
        for name, average in self.weights.items():
            kept = weights[name].detach().clone()
            weights[name].detach().copy_(average)
            average.copy_(kept)
