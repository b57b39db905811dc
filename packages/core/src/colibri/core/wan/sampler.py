"""Samplers: from noise to latents along a schedule. Functions; they know no model, text or file.

`predict(x, sigma, timestep)` gives the velocity. The state is float32 whatever the model computes
in. Gradients are left to the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.schedule import TRAIN_TIMESTEPS, FlowSchedule, x0_from_velocity

Predict = Callable[[Tensor, float, float], Tensor]
"""(x_BCTHW, sigma, timestep) -> velocity_BCTHW."""

Generators = torch.Generator | Sequence[torch.Generator]
"""One for the batch, or one a sample: then a sample is the same in any batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What `on_step` hears after each step."""

    index: int
    """From 0."""
    steps: int
    sigma: float
    """The level that was just left."""
    x_BCTHW: Tensor
    """The state after the step."""
    x0_BCTHW: Tensor
    """The noise-free estimate from before the step: a preview."""


OnStep = Callable[[Step], object]


class Sampler(Protocol):
    """The shape of every function in `SAMPLERS`."""

    def __call__(
        self,
        predict: Predict,
        noise_BCTHW: Tensor,
        schedule: FlowSchedule,
        *,
        generator: Generators | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor: ...


def euler(
    predict: Predict,
    noise_BCTHW: Tensor,
    schedule: FlowSchedule,
    *,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """First-order ODE steps: x + (next sigma - sigma) * velocity. Draws no noise."""
    x = noise_BCTHW
    for index, timestep in enumerate(schedule.timesteps):
        sigma, following = schedule.sigmas[index : index + 2]
        velocity = predict(x, sigma, timestep)
        x0 = x0_from_velocity(x, velocity, sigma)
        x = x + (following - sigma) * velocity
        _tell(on_step, index, schedule, x, x0)
    return x


def unipc(
    predict: Predict,
    noise_BCTHW: Tensor,
    schedule: FlowSchedule,
    *,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """diffusers' UniPC, order 2 with corrector, on our sigmas. Draws no noise.

    Its solver settings are those that the released Wan models are saved with.
    """
    solver = _unipc_solver(schedule)
    x = noise_BCTHW
    for index, timestep in enumerate(schedule.timesteps):
        sigma = schedule.sigmas[index]
        velocity = predict(x, sigma, timestep)
        x0 = x0_from_velocity(x, velocity, sigma)
        # The solver counts its steps itself; it never reads the timestep.
        x = solver.step(velocity, timestep, x, return_dict=False)[0]
        _tell(on_step, index, schedule, x, x0)
    return x


def consistency(
    predict: Predict,
    noise_BCTHW: Tensor,
    schedule: FlowSchedule,
    *,
    generator: Generators | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Few-step sampling: jump to x0, put fresh noise on it at the next level, again.

    What diffusers' FlowMatchLCMScheduler does, without its draw after the last step.
    """
    if generator is None and schedule.steps > 1:
        raise UserError("the consistency sampler draws noise at every step and needs a generator")
    x = noise_BCTHW
    for index, timestep in enumerate(schedule.timesteps):
        sigma, following = schedule.sigmas[index : index + 2]
        x0 = x0_from_velocity(x, predict(x, sigma, timestep), sigma)
        if following and generator is not None:
            fresh = draw_noise(tuple(x.shape), generator, device=x.device, dtype=x.dtype)
            x = (1 - following) * x0 + following * fresh
        else:
            x = x0
        _tell(on_step, index, schedule, x, x0)
    return x


SAMPLERS: dict[str, Sampler] = {"unipc": unipc, "euler": euler, "consistency": consistency}


def schedule_for(sampler: str, steps: int, shift: float) -> FlowSchedule:
    """The grid that diffusers gives this sampler; a student's own schedule goes before it."""
    make = FlowSchedule.unipc if sampler == "unipc" else FlowSchedule.euler
    return make(steps, shift)


def guided(conditional: Predict, unconditional: Predict | None, guidance: float) -> Predict:
    """Classifier-free guidance, standard form: u + w * (c - u). At w = 1 only c is asked."""
    if guidance == 1:
        return conditional
    if unconditional is None:
        raise UserError(
            f"guidance {guidance:g} needs a negative prompt, which may be empty",
            hint="or use guidance 1",
        )
    without = unconditional

    def predict(x_BCTHW: Tensor, sigma: float, timestep: float) -> Tensor:
        c = conditional(x_BCTHW, sigma, timestep)
        u = without(x_BCTHW, sigma, timestep)
        return u + guidance * (c - u)

    return predict


def draw_noise(
    shape: tuple[int, ...],
    generator: Generators,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise from CPU generators, so that every device starts from the same."""
    if isinstance(generator, torch.Generator):
        noise = torch.randn(shape, generator=_on_cpu(generator), dtype=dtype)
    else:
        if len(generator) != shape[0]:
            raise UserError(f"{shape[0]} samples need as many seeds, found {len(generator)}")
        noise = torch.cat(
            [torch.randn((1, *shape[1:]), generator=_on_cpu(one), dtype=dtype) for one in generator]
        )
    return noise.to(device)


def seeds(first: int, count: int) -> list[torch.Generator]:
    """`count` CPU generators, seeded `first`, `first` + 1, ..."""
    return [torch.Generator().manual_seed(first + index) for index in range(count)]


def _on_cpu(generator: torch.Generator) -> torch.Generator:
    assert generator.device.type == "cpu", "seeds are CPU generators, on every device"
    return generator


def _unipc_solver(schedule: FlowSchedule) -> Any:
    from diffusers import UniPCMultistepScheduler

    solver: Any = UniPCMultistepScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=1.0,  # our sigmas are shifted already
    )
    solver.set_timesteps(sigmas=np.asarray(schedule.sigmas[:-1]))
    solver.set_begin_index(0)
    return solver


def _tell(
    on_step: OnStep | None, index: int, schedule: FlowSchedule, x: Tensor, x0: Tensor
) -> None:
    if on_step is not None:
        on_step(
            Step(
                index=index,
                steps=schedule.steps,
                sigma=schedule.sigmas[index],
                x_BCTHW=x,
                x0_BCTHW=x0,
            )
        )
