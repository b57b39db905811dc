"""Whole trainings in a plane: the critic finds a known score, a three-step student its modes."""

import copy
import math

import pytest
import torch
from colibri.core.geometry import LatentShape
from colibri.core.schedule import FlowSchedule, shift_sigma
from colibri.distill.config import DenoiseConfig, DmdConfig, GuidanceConfig, NoiseConfig
from colibri.distill.objectives.base import Batch, Net, Round
from colibri.distill.objectives.denoise import denoise
from colibri.distill.objectives.dmd import dmd
from torch import Tensor, nn

POINT = LatentShape(channels=2, frames=1, height=1, width=1)
SCHEDULE = FlowSchedule.explicit((1.0, 0.9375, 0.8333))
RADIUS, VARIANCE = 1.4, 0.04
MODES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]) * RADIUS


class Stream:
    """`Draws` from one generator: quicker, where a run need not be split."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self.count = 256

    def noise(
        self, purpose: str, size: tuple[int, ...], *, device: object, dtype: object
    ) -> Tensor:
        return torch.randn(size, generator=self._generator)

    def uniform(self, purpose: str) -> Tensor:
        return torch.rand(self.count, generator=self._generator)

    def integer(self, purpose: str, below: int) -> int:
        return int(torch.randint(below, (), generator=self._generator))


class Net2(nn.Module):
    """x0 of a point at a noise level."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x_B2: Tensor, s_B1: Tensor) -> Tensor:
        return x_B2 + self.layers(torch.cat([x_B2, s_B1, s_B1.square()], dim=1))  # type: ignore[no-any-return]


class Plane:
    """Student and critic are small networks, the teacher is the exact mixture."""

    def __init__(self, student: object, critic: nn.Module) -> None:
        self.nets = {"student": student, "critic": critic, "teacher": _exact}

    def velocity(self, role, x_BCTHW, sigma, text_BLD, **_):  # type: ignore[no-untyped-def]
        x = x_BCTHW.flatten(1)
        s = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x)).reshape(-1, 1)
        return self.nets[role](x, s).view_as(x_BCTHW)


def _exact(x: Tensor, s: Tensor) -> Tensor:
    """The velocity of four Gaussians of one variance."""
    spread = (1 - s) ** 2 * VARIANCE + s**2
    offsets = x[:, None] - (1 - s)[:, :, None] * MODES
    weights = (-offsets.square().sum(-1) / (2 * spread)).softmax(1)
    gain = (1 - s) * VARIANCE / spread
    x0 = (weights[..., None] * (MODES + gain[:, :, None] * offsets)).sum(1)
    return (x - x0) / s


def _play(plane: Plane, draws: Stream, net: Net, count: int) -> Round:
    draws.count = count
    nothing = torch.zeros(count, 1, 1)
    of = Batch(
        ids=("",) * count,
        text_BLD=nothing,
        null_BLD=nothing,
        first_BCTHW=torch.zeros(count, 2, 1, 1, 1),
        given_B=torch.zeros(count, dtype=torch.bool),
        shape=POINT,
    )
    return Round(
        net=net,
        players=plane,
        batch=of,
        draws=draws,  # type: ignore[arg-type]
        schedule=SCHEDULE,
        noise=NoiseConfig(shift=5.0),
        guidance=GuidanceConfig(real=1.0),
    )


def _adam(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.999))


def _fit(net: nn.Module, draws: Stream, updates: int) -> None:
    """Flow matching on the mixture's points: where student and critic start."""
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(updates):
        which = torch.randint(4, (256,), generator=generator)
        points = MODES[which] + math.sqrt(VARIANCE) * torch.randn(256, 2, generator=generator)
        noise = torch.randn(256, 2, generator=generator)
        s = shift_sigma(torch.rand(256, 1, generator=generator), 3.0)
        loss = (net((1 - s) * points + s * noise, s) - (noise - points)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def _mass(plane: Plane) -> tuple[float, float]:
    """Share of three-step samples within 2.45 deviations of a mode (95 % of the mixture's own),
    and the distance of the modes' shares from even."""
    round = _play(plane, Stream(99), "critic", 4000)
    round.__dict__["exit_step"] = SCHEDULE.steps - 1
    points = round.sample_BCTHW.flatten(1)
    distance, nearest = torch.cdist(points, MODES).min(1)
    inside = distance <= 2.45 * math.sqrt(VARIANCE)
    shares = torch.bincount(nearest, minlength=4) / len(points)
    return inside.float().mean().item(), 0.5 * (shares - 0.25).abs().sum().item()


@pytest.mark.slow
def test_the_critic_recovers_the_score_of_a_gaussian_student() -> None:
    """The student makes N((.5, -.5), .09): the flow of that is known in closed form."""
    mean, deviation = torch.tensor([0.5, -0.5]), 0.3
    torch.manual_seed(0)
    critic = Net2(64)
    plane = Plane(lambda x, s: (x - (mean + deviation * torch.randn_like(x))) / s, critic)
    optimiser, draws = torch.optim.Adam(critic.parameters(), lr=3e-3), Stream(0)
    for update in range(1200):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - update / 1200)
        optimiser.zero_grad()
        round = _play(plane, draws, "critic", 512)
        denoise(round, DenoiseConfig()).loss_B.mean().backward()
        optimiser.step()
    generator = torch.Generator().manual_seed(5)
    for sigma in (0.3, 0.6, 0.9):
        points = mean + deviation * torch.randn(2000, 2, generator=generator)
        noise = torch.randn(2000, 2, generator=generator)
        x, s = (1 - sigma) * points + sigma * noise, torch.full((2000, 1), sigma)
        spread = (1 - sigma) ** 2 * deviation**2 + sigma**2
        gain = (1 - sigma) * deviation**2 / spread
        exact = (x - (mean + gain * (x - (1 - sigma) * mean))) / sigma
        with torch.no_grad():
            error = (critic(x, s) - exact).square().mean().sqrt()
        assert error < 0.12, (sigma, float(error))


@pytest.mark.slow
def test_a_three_step_student_finds_the_modes() -> None:
    torch.manual_seed(0)
    draws = Stream(0)
    student = Net2()
    _fit(student, draws, 1500)
    critic = copy.deepcopy(student)
    plane = Plane(student, critic)
    before, _ = _mass(plane)
    optimisers = {"student": _adam(student, 5e-4), "critic": _adam(critic, 1e-3)}
    updates = 3000
    for update in range(updates):
        for net, group in ((n, g) for n, o in optimisers.items() for g in o.param_groups):
            group["lr"] = (5e-4 if net == "student" else 1e-3) * (1 - update / updates)
        for net in ("student", "critic", "critic"):
            optimisers[net].zero_grad()
            round = _play(plane, draws, net, 256)  # type: ignore[arg-type]
            found = dmd(round, DmdConfig()) if net == "student" else denoise(round, DenoiseConfig())
            found.loss_B.mean().backward()
            optimisers[net].step()
    after, uneven = _mass(plane)
    assert before < 0.25
    assert after >= 0.6, after
    assert uneven <= 0.08, uneven
