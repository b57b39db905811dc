"""Muon: momentum, then the nearest orthogonal matrix as the update (Keller Jordan, Muon, 2024).

Kernels of any rank are taken as (out, rest). The rest of a model's parameters belong to AdamW.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """`lr` is the root-mean-square size of one update's entries, as Adam's is."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                velocity = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(velocity, group["momentum"])
                update = orthogonal(ahead.flatten(1))
                # entries of an orthogonal (m, n) matrix have mean square 1 / max(m, n)
                size = group["lr"] * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Singular values brought near 1 by five Newton-Schulz steps in bfloat16."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    x = (matrix / (matrix.norm() + 1e-12)).bfloat16()
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(
            x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445
        )
    return x.float()


def split_parameters(
    model: nn.Module, ends: tuple[str, ...] = ()
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(for Muon, for AdamW): matrices and kernels that are no model ends, and everything else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        inner = weight.ndim >= 2 and weight.shape[0] > 1 and not name.startswith(ends)
        flat = min(weight.shape[0], weight[0].numel()) if inner else 0
        (matrices if flat >= 8 else others).append(weight)
    return matrices, others
