"""Noise schedules: agreement with diffusers' schedulers, conversions, JSON."""

import json

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.core.schedule import (
    FlowSchedule,
    add_noise,
    velocity_of,
    x0_from_velocity,
)

STEPS = (1, 2, 3, 4, 10, 20, 50)
SHIFTS = (1.0, 3.0, 5.0, 8.0)

FLOAT32 = 2.0**-23
"""diffusers passes its sigmas (at most 1) through float32 two or three times on the way, half a
unit in the last place (2**-24) each; ours are rounded once, at the very end."""


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"])
def test_the_euler_grid_is_that_of_diffusers(name: str, steps: int, shift: float) -> None:
    import diffusers

    theirs = getattr(diffusers, name)(shift=shift)
    theirs.set_timesteps(steps)
    ours = FlowSchedule.euler(steps, shift)
    assert np.abs(np.array(ours.sigmas) - theirs.sigmas.double().numpy()).max() <= FLOAT32
    difference = np.abs(np.array(ours.timesteps) - theirs.timesteps.double().numpy()).max()
    assert difference <= 1000 * FLOAT32


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", STEPS)
def test_the_unipc_grid_is_that_of_diffusers_to_the_last_bit(steps: int, shift: float) -> None:
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    theirs.set_timesteps(steps)
    ours = FlowSchedule.unipc(steps, shift)
    # Float64 on both sides until the last rounding to float32.
    assert (np.float32(ours.sigmas) == theirs.sigmas.numpy()).all()
    assert list(ours.timesteps) == theirs.timesteps.tolist()


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_step_list_is_what_the_few_step_scheduler_makes_of_it(shift: float) -> None:
    from diffusers import FlowMatchLCMScheduler

    steps = [1000, 750, 500]
    theirs = FlowMatchLCMScheduler(shift=shift)
    theirs.set_timesteps(sigmas=[step / 1000 for step in steps])
    ours = FlowSchedule.listed(steps, shift=shift)
    assert np.abs(np.array(ours.sigmas) - theirs.sigmas.double().numpy()).max() <= FLOAT32


def _of_diffusers(schedule: FlowSchedule) -> tuple[float, float]:
    """Greatest distance of sigmas and timesteps of the few-step scheduler with `euler_grid`."""
    from diffusers import FlowMatchLCMScheduler

    grid = schedule.euler_grid()
    theirs = FlowMatchLCMScheduler(shift=grid.shift, shift_terminal=grid.end)
    theirs.set_timesteps(schedule.steps)
    sigmas, timesteps = theirs.sigmas.double().numpy(), theirs.timesteps.double().numpy()
    return (
        float(np.abs(np.array(schedule.sigmas) - sigmas).max()),
        float(np.abs(np.array(schedule.timesteps) - timesteps).max()),
    )


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize(
    "steps",
    [
        [1000],
        [1000, 500],
        [1000, 750, 500],
        [1000, 757, 522],
        [1000, 750, 500, 250],
        [1000, 800, 600, 400, 200],
    ],
    ids=str,
)
def test_a_step_list_is_a_grid_of_the_few_step_scheduler(steps: list[int], shift: float) -> None:
    schedule = FlowSchedule.listed(steps, shift=shift)
    assert schedule.euler_grid().exact
    sigmas, timesteps = _of_diffusers(schedule)
    assert sigmas <= FLOAT32
    assert timesteps <= 1000 * FLOAT32


@pytest.mark.parametrize(
    ("sigmas", "far"),
    [
        ([1.0, 0.96, 0.889, 0.727], 2e-4),
        ([0.999, 0.9375, 0.8333], 1.1e-3),
        ([1.0, 0.999, 0.5], 0.03),
        ([1.0, 0.1001, 0.1], 0.09),
    ],
    ids=str,
)
def test_a_list_that_is_no_grid_has_one_near(sigmas: list[float], far: float) -> None:
    schedule = FlowSchedule.explicit(sigmas)
    assert not schedule.euler_grid().exact
    assert FLOAT32 < _of_diffusers(schedule)[0] <= far
    assert not FlowSchedule.unipc(3, 5.0).euler_grid().exact  # its timesteps are whole numbers


def test_explicit_sigmas_are_taken_as_they_are() -> None:
    from diffusers import FlowMatchLCMScheduler

    sigmas = [1.0, 0.9375, 5 / 6, 0.625]
    theirs = FlowMatchLCMScheduler(shift=1.0)
    theirs.set_timesteps(sigmas=sigmas)
    ours = FlowSchedule.explicit(sigmas)
    assert ours.sigmas == (*sigmas, 0.0)
    assert (np.float32(ours.sigmas) == theirs.sigmas.numpy()).all()
    assert (np.float32(ours.timesteps) == theirs.timesteps.numpy()).all()
    assert FlowSchedule.explicit([*sigmas, 0.0]) == ours


def test_timesteps_of_a_step_list_keep_their_fractions() -> None:
    # In bfloat16 these are 936, 832 and 624.
    schedule = FlowSchedule.listed([1000, 750, 500, 250], shift=5)
    assert schedule.timesteps == pytest.approx((1000, 937.5, 2500 / 3, 625), abs=1e-9)
    assert schedule.sigmas == pytest.approx((1, 0.9375, 5 / 6, 0.625, 0), abs=1e-12)
    assert schedule.steps == 4


@pytest.mark.parametrize(
    "schedule",
    [
        FlowSchedule.unipc(50, 5.0),
        FlowSchedule.euler(7, 3.0),
        FlowSchedule.listed([1000, 757, 522], shift=8),
        FlowSchedule.explicit([0.999, 1 / 3]),
    ],
    ids=lambda schedule: schedule.grid,
)
def test_json_brings_every_float_back(schedule: FlowSchedule) -> None:
    assert FlowSchedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule
    assert FlowSchedule.from_json(json.dumps(schedule.to_json())) == schedule


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "other/1"}, "not a schedule"),
        ({"sigmas": [1.0, 0.5, 0.7, 0.0]}, "have to fall"),
        ({"sigmas": [1.0, 0.5, 0.25, 0.1]}, "to 0"),
        ({"sigmas": [1.0, 0.0]}, "one sigma more"),
        ({"sigmas": [1.5, 0.5, 0.25, 0.0]}, "at most 1"),
        ({"timesteps": [1000.0, 500.0, 240.0]}, "timestep 240.0 is not that of sigma 0.25"),
        ({"timesteps": [1000.0, "x", 250.0]}, "not a number"),
        ({"sigmas": None}, "not a number"),
    ],
)
def test_a_bad_schedule_is_refused_in_a_sentence(change: dict[str, object], says: str) -> None:
    table = FlowSchedule.explicit([1.0, 0.5, 0.25]).to_json() | change
    with pytest.raises(UserError, match=says):
        FlowSchedule.from_json(table)


def test_text_that_is_no_json_and_a_missing_key_are_refused() -> None:
    with pytest.raises(UserError, match="not valid JSON"):
        FlowSchedule.from_json("{")
    table = FlowSchedule.explicit([1.0]).to_json()
    del table["shift"]
    with pytest.raises(UserError, match="has no 'shift'"):
        FlowSchedule.from_json(table, where="student/colibri.json")


@pytest.mark.parametrize(("steps", "shift"), [(0, 5.0), (4, 0.0), (4, -1.0), (4, float("nan"))])
def test_steps_and_shift_have_to_be_positive(steps: int, shift: float) -> None:
    for make in (FlowSchedule.unipc, FlowSchedule.euler):
        with pytest.raises(UserError):
            make(steps, shift)


def test_conversions_undo_each_other() -> None:
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 8, 5))
    sigma = np.linspace(0.01, 0.99, 8)[:, None]
    x, velocity = add_noise(x0, noise, sigma), velocity_of(x0, noise)
    assert np.abs(x0_from_velocity(x, velocity, sigma) - x0).max() < 1e-12


def test_conversions_take_tensors_and_keep_the_precision_of_sigma() -> None:
    import torch

    x0, noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([1 / 3], dtype=torch.float64)
    assert add_noise(x0, noise, sigma).dtype == torch.float64
    x = add_noise(x0, noise, 1 / 3)
    assert x.dtype == torch.float32
    assert torch.allclose(x0_from_velocity(x, velocity_of(x0, noise), 1 / 3), x0, atol=1e-6)
