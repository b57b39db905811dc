"""Noise levels in float64: one path for the teacher, the student, the critic and the sampler.

Rectified flow: x = (1 - sigma) * x0 + sigma * noise, and the model predicts
velocity = noise - x0. A timestep is what the model is told about sigma: 1000 * sigma.
Knows no model and no sampler; NumPy only.
"""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from colibri.core.errors import UserError

if TYPE_CHECKING:
    import torch

TRAIN_TIMESTEPS = 1000
"""Timesteps of training; sigma 1 is this timestep."""

UNIPC_FIRST = 1e-6
"""How far UniPC's first sigma stays below 1, where its log-SNR would be infinite
(diffusers 0.42 schedulers/scheduling_unipc_multistep.py, set_timesteps)."""

SAME = 1e-6
"""How far sigmas may lie apart that diffusers, with its float32 sigmas, makes one of."""

LEAST_SHIFT = 0.1
"""Of a saved grid; in diffusers' float32 a smaller one no longer begins at 1."""

FORMAT = "colibri-schedule/1"

ArrayT = TypeVar("ArrayT", float, "NDArray[np.float64]", "torch.Tensor")


@dataclass(frozen=True, kw_only=True, slots=True)
class EulerGrid:
    """Settings of diffusers' flow-matching schedulers, as `FlowSchedule.euler` takes them."""

    shift: float
    end: float | None
    """The last level before 0; diffusers calls it shift_terminal."""
    exact: bool
    """Whether they give the sigmas that they were made for, not only near ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSchedule:
    """The noise levels that a sampler visits, and what the model is told at each."""

    sigmas: tuple[float, ...]
    """Strictly falling in [0, 1], one more than the steps; the last is 0."""
    timesteps: tuple[float, ...]
    """One a step, in [0, 1000]: 1000 * sigma, or its whole part where the grid rounds."""
    shift: float
    """The shift that `sigmas` were made with; kept for the record, never applied again."""
    grid: str
    """What made the sigmas: `unipc`, `euler`, `list` or `explicit`."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def steps(self) -> int:
        """Model evaluations (twice as many with CFG)."""
        return len(self.timesteps)

    @classmethod
    def unipc(cls, steps: int, shift: float) -> "FlowSchedule":
        """The grid of diffusers' UniPCMultistepScheduler with `use_flow_sigmas`.

        Evenly from 1 towards 1/1000, the end left out, then shifted. Timesteps are cut to whole
        numbers, as that scheduler does and as the released Wan models are run. The grid is that of
        diffusers 0.37 and later; before, it began at the shifted 999/1000.
        """
        _check_steps(steps, shift)
        sigmas = np.linspace(1, 1 / TRAIN_TIMESTEPS, steps + 1)[:-1]
        sigmas = shift_sigma(sigmas, shift)
        if abs(sigmas[0] - 1) < UNIPC_FIRST:
            sigmas[0] -= UNIPC_FIRST
        return cls(
            sigmas=(*sigmas.tolist(), 0.0),
            timesteps=tuple(np.trunc(sigmas * TRAIN_TIMESTEPS).tolist()),
            shift=float(shift),
            grid="unipc",
        )

    @classmethod
    def euler(cls, steps: int, shift: float, *, end: float | None = None) -> "FlowSchedule":
        """The grid of diffusers' FlowMatchEulerDiscreteScheduler and FlowMatchLCMScheduler.

        Evenly from 1 to the shifted 1/1000, then shifted: the last level is shifted twice there
        (schedulers/scheduling_flow_match_euler_discrete.py, __init__ and set_timesteps). With
        `end`, 1 - sigma is then scaled so that this is the last level; one step stays at 1.
        """
        _check_steps(steps, shift)
        last = shift_sigma(1 / TRAIN_TIMESTEPS, shift)
        sigmas = shift_sigma(np.linspace(1, last, steps), shift)
        sigmas[0] = 1  # which a shift leaves, but for rounding
        if end is not None and steps > 1:
            sigmas = 1 - (1 - sigmas) * (1 - end) / (1 - sigmas[-1])
        return cls.explicit(sigmas.tolist(), shift=shift, grid="euler")

    @classmethod
    def listed(cls, timesteps: Sequence[float], *, shift: float) -> "FlowSchedule":
        """A step list before the shift, as distillation recipes write it: 1000, 750, 500, 250.

        With shift 5 these are the sigmas 1, .9375, .8333, .625.
        """
        _check_steps(len(timesteps), shift)
        raw = np.asarray(timesteps, dtype=np.float64) / TRAIN_TIMESTEPS
        return cls.explicit(shift_sigma(raw, shift).tolist(), shift=shift, grid="list")

    @classmethod
    def explicit(
        cls, sigmas: Sequence[float], *, shift: float = 1.0, grid: str = "explicit"
    ) -> "FlowSchedule":
        """Just these sigmas, already shifted; the final 0 is added where it is missing."""
        levels = [float(sigma) for sigma in sigmas]
        if levels and levels[-1] == 0:
            levels.pop()
        return cls(
            sigmas=(*levels, 0.0),
            timesteps=tuple(sigma * TRAIN_TIMESTEPS for sigma in levels),
            shift=float(shift),
            grid=grid,
        )

    def euler_grid(self) -> EulerGrid:
        """The settings with which `euler` gives these sigmas in as many steps, or comes near.

        They begin at 1, end at the last level and, unless that is too near an end, meet the middle
        one: so all of three steps from 1, and of a list that is even before its shift, as 1000,
        750, 500, 250.
        """
        levels = self.sigmas[:-1]
        shift, end = _euler_shift(levels), None if self.steps == 1 else levels[-1]
        given = FlowSchedule.euler(self.steps, shift, end=end)
        far = np.abs(np.subtract(given.sigmas, self.sigmas)).max()
        late = np.abs(np.subtract(given.timesteps, self.timesteps)).max()
        exact = bool(far <= SAME and late <= SAME * TRAIN_TIMESTEPS)
        return EulerGrid(shift=shift, end=end, exact=exact)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; every float comes back bit for bit."""
        return {
            "format": FORMAT,
            "grid": self.grid,
            "shift": self.shift,
            "sigmas": list(self.sigmas),
            "timesteps": list(self.timesteps),
        }

    @classmethod
    def from_json(cls, value: object, *, where: str = "schedule") -> "FlowSchedule":
        """Undo `to_json` (a dict or its text). UserError says what is wrong with it."""
        try:
            table = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not valid JSON: {error}") from None
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise UserError(f"{where} is not a schedule of the form {FORMAT}")
        try:
            return cls(
                sigmas=tuple(float(sigma) for sigma in table["sigmas"]),
                timesteps=tuple(float(timestep) for timestep in table["timesteps"]),
                shift=float(table["shift"]),
                grid=str(table["grid"]),
            )
        except KeyError as error:
            raise UserError(f"{where} has no {error.args[0]!r}") from None
        except (TypeError, ValueError):
            raise UserError(f"{where} holds something that is not a number") from None


# ---- conversions: for floats, NumPy arrays and tensors; sigma broadcasts against x ----


def shift_sigma(sigma: ArrayT, shift: float) -> ArrayT:
    """Move noise levels towards 1: shift * sigma / (1 + (shift - 1) * sigma); 1 changes nothing."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def add_noise(x0: ArrayT, noise: ArrayT, sigma: ArrayT | float) -> ArrayT:
    """x = (1 - sigma) * x0 + sigma * noise."""
    return (1 - sigma) * x0 + sigma * noise


def velocity_of(x0: ArrayT, noise: ArrayT) -> ArrayT:
    """What a flow model learns: noise - x0, the same at every sigma."""
    return noise - x0


def x0_from_velocity(x: ArrayT, velocity: ArrayT, sigma: ArrayT | float) -> ArrayT:
    """Noise-free estimate x0 = x - sigma * velocity."""
    return x - sigma * velocity


def _euler_shift(levels: Sequence[float]) -> float:
    """Shift s of the `euler` grid that ends at the last of `levels` and meets the middle one.

    Of x of the way, q = m (s - 1) / s and m = (1 - e) / (1 - e + e s), the grid's length before its
    shift (e = 1/1000), it has 1 - sigma = (1 - end) x (1 - q) / (1 - x q). The middle level gives
    q, and s solves e q s^2 - (1 - e) (1 - q) s + (1 - e) = 0.
    """
    middle = (len(levels) - 1) // 2
    if middle == 0:
        return 1.0
    x = middle / (len(levels) - 1)
    ratio = (1 - levels[middle]) / (1 - levels[-1])
    q = (x - ratio) / (x * (1 - ratio))
    e = 1 / TRAIN_TIMESTEPS
    half = (1 - e) * (1 - q)
    inside = half**2 - 4 * e * q * (1 - e)
    if inside < 0:  # no such grid has its middle so near to 1
        return math.sqrt((1 - e) / (e * q))
    return max(LEAST_SHIFT, 2 * (1 - e) / (half + math.sqrt(inside)))


# ---- checks ----


def _check_steps(steps: int, shift: float) -> None:
    if steps < 1:
        raise UserError(f"{steps} steps are too few", hint="use 1 or more")
    if not shift > 0:
        raise UserError(f"a shift of {shift} is not positive")


def _check(schedule: FlowSchedule) -> None:
    sigmas, timesteps = schedule.sigmas, schedule.timesteps
    if len(sigmas) < 2 or len(sigmas) != len(timesteps) + 1:
        raise UserError(
            f"a schedule needs one sigma more than timesteps, found {len(sigmas)} sigmas and "
            f"{len(timesteps)} timesteps"
        )
    if sigmas[-1] != 0 or not 0 < sigmas[0] <= 1:
        raise UserError(f"sigmas go from at most 1 to 0, found {sigmas[0]} to {sigmas[-1]}")
    for higher, lower in itertools.pairwise(sigmas):
        if not lower < higher:
            raise UserError(f"sigmas have to fall, found {lower} after {higher}")
    for sigma, timestep in zip(sigmas, timesteps, strict=False):
        if not abs(timestep - sigma * TRAIN_TIMESTEPS) <= 1:
            raise UserError(
                f"timestep {timestep} is not that of sigma {sigma}",
                hint=f"it has to be {sigma * TRAIN_TIMESTEPS:g}, or its whole part",
            )
