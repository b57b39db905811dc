"""Samplers against closed forms and against diffusers' schedulers, without a network."""

from typing import Any

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.sampler import (
    SAMPLERS,
    Step,
    consistency,
    draw_noise,
    euler,
    guided,
    schedule_for,
    seeds,
    unipc,
)

SHAPE = (2, 3, 2, 4, 4)
MEAN, STD = 0.5, 0.3


def gaussian(x: torch.Tensor, sigma: float, timestep: float) -> torch.Tensor:
    """The exact velocity where the data are N(MEAN, STD**2): E[noise - x0 | x]."""
    a = 1 - sigma
    spread = a**2 * STD**2 + sigma**2
    rest = x - a * MEAN
    return sigma * rest / spread - (MEAN + a * STD**2 * rest / spread)


def _theirs(scheduler: Any, noise: torch.Tensor, **step: Any) -> torch.Tensor:
    x = noise
    for index, timestep in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index].item()
        velocity = gaussian(x, sigma, timestep.item())
        x = scheduler.step(velocity, timestep, x, return_dict=False, **step)[0]
    return x


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_euler_steps_are_those_of_diffusers(steps: int, shift: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    noise = draw_noise(SHAPE, torch.Generator().manual_seed(0))
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    ours = euler(gaussian, noise, FlowSchedule.euler(steps, shift))
    # Their step sizes are differences of float32 sigmas, ours of float64 ones.
    assert (ours - _theirs(theirs, noise)).abs().max() <= 2e-6


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_unipc_steps_are_those_of_diffusers_to_the_last_bit(steps: int, shift: float) -> None:
    from diffusers import UniPCMultistepScheduler

    noise = draw_noise(SHAPE, torch.Generator().manual_seed(0))
    theirs = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    theirs.set_timesteps(steps)

    def rounded(x: torch.Tensor, sigma: float, timestep: float) -> torch.Tensor:
        return gaussian(x, torch.tensor(sigma).item(), timestep)  # float32, as theirs

    ours = unipc(rounded, noise, FlowSchedule.unipc(steps, shift))
    assert torch.equal(ours, _theirs(theirs, noise))


def test_consistency_steps_are_those_of_the_lcm_scheduler() -> None:
    from diffusers import FlowMatchLCMScheduler

    noise = draw_noise(SHAPE, torch.Generator().manual_seed(0))
    theirs = FlowMatchLCMScheduler(shift=5.0)
    theirs.set_timesteps(sigmas=[1.0, 0.75, 0.5])
    wanted = _theirs(theirs, noise, generator=torch.Generator().manual_seed(1))
    ours = consistency(
        gaussian,
        noise,
        FlowSchedule.listed([1000, 750, 500], shift=5.0),
        generator=torch.Generator().manual_seed(1),
    )
    assert (ours - wanted).abs().max() <= 2e-6  # float32 sigmas there


@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_many_steps_find_the_distribution(name: str) -> None:
    noise = draw_noise((64, 1, 1, 8, 8), torch.Generator().manual_seed(0))
    x = SAMPLERS[name](gaussian, noise, schedule_for(name, 200, 1.0))
    # The flow of a Gaussian is the affine map from noise to data; 200 Euler steps come this near.
    assert (x - (MEAN + STD * noise)).abs().max() < 0.03


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_single_point_is_found_from_anywhere(name: str) -> None:
    point = torch.full(SHAPE, 0.7)

    def predict(x: torch.Tensor, sigma: float, timestep: float) -> torch.Tensor:
        return (x - point) / sigma

    noise = draw_noise(SHAPE, torch.Generator().manual_seed(0))
    x = SAMPLERS[name](predict, noise, schedule_for(name, 4, 5.0), generator=torch.Generator())
    assert (x - point).abs().max() < 1e-5


@pytest.mark.parametrize("name", SAMPLERS)
def test_progress_hears_every_step(name: str) -> None:
    heard: list[Step] = []
    schedule = schedule_for(name, 3, 5.0)
    noise = draw_noise(SHAPE, torch.Generator().manual_seed(0))
    x = SAMPLERS[name](gaussian, noise, schedule, generator=torch.Generator(), on_step=heard.append)
    assert [(step.index, step.steps, step.sigma) for step in heard] == [
        (index, 3, schedule.sigmas[index]) for index in range(3)
    ]
    assert torch.equal(heard[-1].x_BCTHW, x)
    assert torch.equal(
        heard[0].x0_BCTHW, noise - heard[0].sigma * gaussian(noise, heard[0].sigma, 0)
    )


def test_a_students_list_from_sigma_one_runs_in_every_sampler() -> None:
    noise = draw_noise(SHAPE, torch.Generator().manual_seed(0))
    schedule = FlowSchedule.listed([1000, 750, 500], shift=5)
    for sampler in SAMPLERS.values():
        x = sampler(gaussian, noise, schedule, generator=torch.Generator().manual_seed(0))
        assert x.isfinite().all()


def test_guidance_is_the_standard_form() -> None:
    def c(x: torch.Tensor, sigma: float, timestep: float) -> torch.Tensor:
        return torch.full_like(x, 3.0)

    def u(x: torch.Tensor, sigma: float, timestep: float) -> torch.Tensor:
        return torch.full_like(x, 1.0)

    x = torch.zeros(1)
    values = [guided(c, u, w)(x, 0.5, 500).item() for w in (0.0, 0.5, 1.0, 5.0)]
    assert values == [1, 2, 3, 11]
    assert guided(c, None, 1.0) is c
    with pytest.raises(UserError, match="negative prompt"):
        guided(c, None, 5.0)


def test_seeds_give_a_sample_the_same_noise_in_any_batch() -> None:
    batch = draw_noise(SHAPE, seeds(10, 2))
    assert torch.equal(batch[1:], draw_noise((1, *SHAPE[1:]), seeds(11, 1)))
    with pytest.raises(UserError, match="2 samples need as many seeds"):
        draw_noise(SHAPE, seeds(0, 3))


def test_the_consistency_sampler_needs_a_generator() -> None:
    with pytest.raises(UserError, match="needs a generator"):
        consistency(gaussian, torch.zeros(SHAPE), FlowSchedule.listed([1000, 500], shift=5))
