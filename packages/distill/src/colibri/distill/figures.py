"""What a validation says of a student's clips beside its teacher's. Pure: tensors in, numbers out.

Figures are ratios to the teacher, so that each has one right value: an over-exposed student has a
spread above 1 and a shifted mean, a frozen one no motion, a collapsed one no variety. `score` is
the worst of them, in [0, 1]: no figure can be bought with another.
"""

# K clips of one prompt, of other seeds  R prompts  C channels  T H W frames, rows, columns

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from colibri.distill.config import WatchConfig


def compare(student_RKCTHW: Tensor, teacher_RKCTHW: Tensor) -> dict[str, float]:
    """Ratios and distances between two sets of normalised latents for the same prompts.

    motion: mean square change from frame to frame; flicker: that of the second difference;
    spread: deviation of all values; shift: the greatest distance of a channel's mean, in the
    teacher's deviations of that channel; variety: mean square distance between clips of one prompt
    (only with 2 or more); frechet: distance of Gaussians fitted to each channel, summed;
    saturated_percent: values beyond 4.
    """
    made, true = student_RKCTHW.double(), teacher_RKCTHW.double()
    axes = (0, 1, 3, 4, 5)
    mean, other = made.mean(axes), true.mean(axes)
    deviation, theirs = (x.std(axes).clamp_min(1e-6) for x in (made, true))
    found = {
        "spread": float(made.std() / true.std().clamp_min(1e-6)),
        "shift": float(((mean - other).abs() / theirs).max()),
        "frechet": float((mean - other).square().sum() + (deviation - theirs).square().sum()),
        "saturated_percent": float(100 * (made.abs() > 4).double().mean()),
    }
    if made.shape[3] > 1:
        found["motion"] = _ratio(*(x.diff(dim=3).square().mean() for x in (made, true)))
    if made.shape[3] > 2:
        found["flicker"] = _ratio(*(x.diff(n=2, dim=3).square().mean() for x in (made, true)))
    if made.shape[1] > 1:
        found["variety"] = _ratio(*(x.var(dim=1).mean() for x in (made, true)))
    found["score"] = score(found)
    return found


def score(figures: Mapping[str, float]) -> float:
    """1 for a student whose figures are its teacher's, towards 0 with its worst one: motion,
    spread and flicker fall off by their ratio either way, shift and variety one way."""
    parts = [_near(figures["spread"]) ** 2, math.exp(-max(0.0, figures["shift"] - 0.2))]
    parts += [_near(figures[name]) for name in ("motion", "flicker") if name in figures]
    if "variety" in figures:
        parts.append(min(1.0, figures["variety"]))
    return min(parts)


def complaint(figures: Mapping[str, float], limits: WatchConfig) -> str | None:
    """What is wrong with a student, in words; None where it is within the limits."""
    spread, motion = figures["spread"], figures.get("motion", 1.0)
    if not all(map(math.isfinite, figures.values())):
        return "its clips have values that are not finite"
    if spread > limits.spread:
        return f"it is over-exposed: {spread:.2f} of the teacher's deviation"
    if spread < 1 / limits.spread:
        return f"it is washed out: {spread:.2f} of the teacher's deviation"
    if motion < limits.motion:
        return f"it is frozen: {motion:.2f} of the teacher's motion"
    if figures["shift"] > limits.shift:
        return f"its colours have moved: a channel's mean by {figures['shift']:.1f} deviations"
    if figures.get("variety", 1.0) < limits.variety:
        return f"it repeats itself: {figures['variety']:.2f} of the teacher's variety"
    return None


def prompt_accuracy(errors_RK: Tensor) -> float:
    """Share of clips whose own prompt explains them better than another one: `errors_RK[r, k]` is
    the teacher's denoising error on clip r with the k-th prompt, its own at k = r."""
    own = errors_RK.diagonal()
    others = errors_RK + torch.diag(torch.full_like(own, math.inf))
    return float((own < others.amin(1)).double().mean())


def _ratio(made: Tensor, true: Tensor) -> float:
    return float(made / true.clamp_min(1e-12))


def _near(ratio: float) -> float:
    return min(ratio, 1 / ratio) if ratio > 0 and math.isfinite(ratio) else 0.0
