"""Losses by name, and their sum for one network.

Adding one: a file with a function `(round, config) -> TermLoss`, a part of `TrainConfig` for its
weight and settings, and a line in `TERMS`. `module:attribute` names a `TermKind` from outside.
"""

import importlib
from collections.abc import Sequence

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.distill.config import TrainConfig
from colibri.distill.objectives.base import Net, Round, TermKind, merge_figures
from colibri.distill.objectives.consistency import consistency
from colibri.distill.objectives.denoise import denoise
from colibri.distill.objectives.diversity import diversity
from colibri.distill.objectives.dmd import dmd
from colibri.distill.objectives.gan import adversary, discriminate
from colibri.distill.objectives.regress import regress

TERMS: dict[str, TermKind] = {
    "dmd": TermKind(net="student", loss=dmd, config=lambda c: c.dmd, needs_critic=True),
    "denoise": TermKind(net="critic", loss=denoise, config=lambda c: c.denoise),
    "consistency": TermKind(
        net="student",
        loss=consistency,
        config=lambda c: c.consistency,
        needs_clips=lambda c: bool(c.of == "clips"),
    ),
    "regress": TermKind(net="student", loss=regress, config=lambda c: c.regress),
    "diversity": TermKind(net="student", loss=diversity, config=lambda c: c.diversity),
    "adversary": TermKind(
        net="student",
        loss=adversary,
        config=lambda c: c.adversary,
        needs_critic=True,
        needs_head=True,
    ),
    "discriminate": TermKind(
        net="critic",
        loss=discriminate,
        config=lambda c: c.discriminate,
        needs_head=True,
        needs_clips=lambda _: True,
    ),
}


class Objective:
    """The terms of a run; knows which networks a step trains and the loss of each."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._terms = {name: find_term(name) for name in config.terms}
        kinds = self._terms.values()
        trained = {kind.net for kind in kinds}
        missing: Net | None = None if "student" in trained else "student"
        if any(kind.needs_critic for kind in kinds) and "critic" not in trained:
            missing = "critic"
        if missing:
            raise UserError(
                f"--terms {','.join(config.terms)} has no loss for the {missing}",
                hint="the default is dmd,denoise",
            )
        self._critic = "critic" in trained
        self.head = any(kind.needs_head for kind in kinds)
        """Whether a head judges the critic's features."""
        self.clips = any(kind.needs_clips(kind.config(config)) for kind in kinds)
        """Whether batches need real clips."""
        if self.head and not {"adversary", "discriminate"} <= set(config.terms):
            raise UserError("--terms adversary and discriminate come together, or neither")

    @property
    def every(self) -> int:
        """Steps from one update of the student to the next."""
        return self._config.student.every if self._critic else 1

    def nets(self, step: int) -> tuple[Net, ...]:
        """The networks that step `step` trains, in order: the critic always where a term trains
        it, the student first at every `every`-th step."""
        student: tuple[Net, ...] = ("student",) if step % self.every == 0 else ()
        return (*student, "critic") if self._critic else student

    def loss(self, round: Round) -> tuple[Tensor, dict[str, list[float]]]:
        """The weighted sum of the terms of `round.net`, by sample (B,), and figures for the log."""
        total: Tensor | None = None
        figures: dict[str, list[float]] = {}
        for name, kind in self._terms.items():
            if kind.net != round.net:
                continue
            settings = kind.config(self._config)
            found = kind.loss(round, settings)
            weighted = settings.weight * found.loss_B
            total = weighted if total is None else total + weighted
            merge_figures(figures, {f"loss/{name}": found.loss_B.detach().tolist()})
            merge_figures(figures, found.figures)
        assert total is not None
        if round.net == "student" and round.sampled:
            merge_figures(figures, _statistics(round))
        return total, figures


def find_term(name: str) -> TermKind:
    """A row of `TERMS`, or `module:attribute` from outside."""
    if name in TERMS:
        return TERMS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(f"there is no loss {name!r}", hint=f"one of {', '.join(TERMS)}")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"the loss {name!r} cannot be imported: {error}") from None
    if not isinstance(kind, TermKind):
        raise UserError(f"{name} is not a colibri.distill.objectives.base.TermKind")
    return kind


@torch.no_grad()
def _statistics(round: Round) -> dict[str, list[float]]:
    """Signs of collapse in the student's samples: spread, saturation, motion; by sample."""
    batch, x = round.batch, round.sample_BCTHW.detach()
    spread: Sequence[float] = batch.mean(x.square()).sqrt().tolist()
    saturated: Sequence[float] = (100 * batch.mean((x.abs() > 4).to(x.dtype))).tolist()
    channels = x.mean((2, 3, 4)).abs().amax(1)
    figures = {
        "sample/rms": list(spread),
        "sample/saturated_percent": list(saturated),
        "sample/channel_mean": channels.tolist(),
    }
    if x.shape[2] > 1:
        moved = (x[:, :, 1:] - x[:, :, :-1]).square().flatten(1).mean(1)
        figures["sample/motion"] = moved.tolist()
    return figures
