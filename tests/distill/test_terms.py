"""Each optional loss against what it has to be, in float64."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.distill.config import (
    AdversaryConfig,
    ConsistencyConfig,
    DiscriminateConfig,
    DiversityConfig,
    EncodeConfig,
    RegressConfig,
    TrainConfig,
)
from colibri.distill.embedded import write_embedded
from colibri.distill.encode import encode
from colibri.distill.objectives import Objective
from colibri.distill.objectives.consistency import consistency
from colibri.distill.objectives.diversity import diversity
from colibri.distill.objectives.gan import adversary, discriminate
from colibri.distill.objectives.regress import path_levels, regress
from colibri.distill.roles import HEAD, Separate
from colibri.distill.train import train
from distill_toys import SCHEDULE, batch, play
from torch import Tensor

# ---- consistency ----


class Solved:
    """The teacher's latents are N(m, v): its path x_s = (1 - s) m + sqrt((1 - s)^2 v + s^2) z is
    known, and so is where it leads: m + sqrt(v) z. The student jumps there, plus `error`."""

    m, v = 0.3, 0.25

    def __init__(self, error: float = 0.0) -> None:
        self.error = torch.tensor(error, dtype=torch.float64, requires_grad=True)
        self.graphs: list[bool] = []

    def velocity(self, role, x, sigma, text, **_):  # type: ignore[no-untyped-def]
        s = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x)).view(-1, 1, 1, 1, 1)
        away, spread = x - (1 - s) * self.m, (1 - s) ** 2 * self.v + s**2
        if role == "teacher":
            x0 = self.m + (1 - s) * self.v * away / spread
        else:
            # wrong by `error` at noise, and right at the clip, as any network of this form is
            x0 = self.m + self.v**0.5 * away / spread.sqrt() + self.error * s
            self.graphs.append(x0.requires_grad)
        return (x - x0) / s.clamp_min(1e-9)


def _consistency(toy: Solved, grid: int) -> float:
    of = batch(1)
    losses = []
    for first in range(40):
        round = play(toy, of, first=first)
        round.__dict__["sample_BCTHW"] = round.noise("clip") * toy.v**0.5 + toy.m
        losses.append(consistency(round, ConsistencyConfig(grid=grid)).loss_B.item())
    return sum(losses) / len(losses)


def test_the_solution_of_the_teachers_path_is_consistent() -> None:
    """What is left is the error of an Euler step, of second order: squared, 16 times less at half
    the step."""
    coarse, fine = (_consistency(Solved(), grid) for grid in (50, 100))
    assert fine < 1e-5
    assert 8 < coarse / fine < 32


def test_a_student_that_jumps_elsewhere_is_not_consistent() -> None:
    """x0 is wrong by error * s: neighbours differ by error times the step between levels."""
    assert _consistency(Solved(error=3.0), 50) > 5 * _consistency(Solved(), 50)


def test_only_the_upper_neighbour_has_a_gradient() -> None:
    toy = Solved()
    round = play(toy, batch(2))
    round.__dict__["sample_BCTHW"] = round.noise("clip")
    consistency(round, ConsistencyConfig()).loss_B.sum().backward()
    assert toy.graphs == [False, True]
    assert toy.error.grad is not None


# ---- regression and diversity: a teacher whose paths are straight ----


class Straight:
    """The teacher's velocity is 0.8 everywhere, so that every path ends at noise - 0.8."""

    def __init__(self, student: float) -> None:
        self.student = student
        self.levels: list[float] = []

    def velocity(self, role, x, sigma, text, **_):  # type: ignore[no-untyped-def]
        if role == "student":
            self.levels.append(float(torch.as_tensor(sigma, dtype=torch.float64).flatten()[0]))
        return torch.full_like(x, self.student if role == "student" else 0.8)


@pytest.mark.parametrize("given", [False, True])
def test_regression_is_the_error_at_the_ends_of_paths(given: bool) -> None:
    of = batch(2, given=(given, given))
    exact = regress(play(Straight(0.8), of), RegressConfig()).loss_B
    torch.testing.assert_close(exact, torch.zeros_like(exact), rtol=0, atol=1e-20)
    toy = Straight(0.8 + 0.5)
    found = regress(play(toy, of), RegressConfig()).loss_B
    levels = SCHEDULE.sigmas[:-1]
    expected = sum((sigma * 0.5) ** 2 for sigma in levels) / len(levels)
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-10, atol=0)
    assert toy.levels == list(levels)


def test_paths_pass_through_every_level_of_the_student() -> None:
    for steps in (1, 15, 50):
        levels, places = path_levels(SCHEDULE.sigmas, steps)
        assert [levels[place] for place in places] == list(SCHEDULE.sigmas[:-1])
        assert (levels[0], levels[-1]) == (1.0, 0.0)
        assert len(levels) - 1 >= steps
        assert levels == sorted(levels, reverse=True)


@pytest.mark.parametrize("given", [False, True])
def test_diversity_holds_the_first_step_to_the_mean_velocity_of_the_path(given: bool) -> None:
    of = batch(2, given=(given, given))
    exact = diversity(play(Straight(0.8), of), DiversityConfig()).loss_B
    torch.testing.assert_close(exact, torch.zeros_like(exact), rtol=0, atol=1e-20)
    toy = Straight(0.8 - 0.3)
    found = diversity(play(toy, of), DiversityConfig()).loss_B
    torch.testing.assert_close(found, torch.full_like(found, 0.09), rtol=1e-9, atol=0)
    assert toy.levels == [SCHEDULE.sigmas[0]]


def test_diversity_tells_seeds_apart() -> None:
    """A student that sends every noise to one clip pays the variance of the teacher's ends."""

    class One(Straight):
        def velocity(self, role, x, sigma, text, **more):  # type: ignore[no-untyped-def]
            return x if role == "student" else super().velocity(role, x, sigma, text, **more)

    found = diversity(play(One(0.0), batch(4)), DiversityConfig()).loss_B.mean()
    assert found > 0.8  # (noise - .8)^2, noise of variance 1


# ---- the GAN ----


@pytest.fixture
def judged(model: wan.WanModel) -> Separate:
    roles = Separate.of(copy.deepcopy(model.transformer), precision="fp32")
    roles.add_head(layers=(0, 1), width=8, seed=0)
    return roles


def _clips(roles: Separate, net: str, *, first: int = 0):  # type: ignore[no-untyped-def]
    """Real clips are bright, made ones dark."""
    of = batch(4)
    of = replace(of, text_BLD=of.text_BLD.float(), null_BLD=of.null_BLD.float())
    object.__setattr__(of, "clip_BCTHW", torch.ones(of.size))
    round = play(roles, of, net, first=first)  # type: ignore[arg-type]
    round.dtype = torch.float32
    round.__dict__["sample_BCTHW"] = torch.full(of.size, -1.0, requires_grad=True)
    return round


def test_a_new_head_cannot_tell(judged: Separate) -> None:
    made = adversary(_clips(judged, "student"), AdversaryConfig()).loss_B
    torch.testing.assert_close(made, torch.full_like(made, math.log(2)))
    both = discriminate(_clips(judged, "critic"), DiscriminateConfig()).loss_B
    torch.testing.assert_close(both, torch.full_like(both, 2 * math.log(2)))


def test_the_head_learns_and_pulls_the_student_towards_real_clips(judged: Separate) -> None:
    weights = {k: w for k, w in judged.trained("critic").items() if k.startswith(HEAD)}
    assert len(weights) == sum(1 for _ in judged.head.parameters())  # type: ignore[union-attr]
    optimiser = torch.optim.Adam(weights.values(), lr=0.02)
    for update in range(60):
        optimiser.zero_grad()
        found = discriminate(_clips(judged, "critic", first=4 * update), DiscriminateConfig())
        found.loss_B.mean().backward()
        optimiser.step()
    right: list[float] = []
    for first in range(1000, 1040, 4):
        found = discriminate(_clips(judged, "critic", first=first), DiscriminateConfig())
        right += found.figures["gan/head_right"]
    assert sum(right) / len(right) > 0.75
    round = _clips(judged, "student", first=2000)
    adversary(round, AdversaryConfig()).loss_B.sum().backward()
    dark: Tensor = round.sample_BCTHW
    assert dark.grad is not None
    assert dark.grad.mean() < 0  # a brighter clip has less loss


def test_a_layer_that_is_not_there_is_refused(model: wan.WanModel) -> None:
    with pytest.raises(UserError, match=r"layers 7: the teacher has blocks 0 to 1"):
        Separate.of(copy.deepcopy(model.transformer)).add_head(layers=(7,), width=8, seed=0)


GAN = ("dmd", "adversary", "denoise", "discriminate")


def test_a_gan_trains_on_encoded_clips_and_resumes(
    settings: TrainConfig, folder: str, tmp_path: Path
) -> None:
    shards = write_embedded(tmp_path / "shards", rows=4, videos=True)
    (tmp_path / "shards" / "0" / "000003.mp4").unlink()
    config = EncodeConfig(
        shards=shards, out=tmp_path / "encoded", model=folder, size=(32, 32), clips=9
    )
    (shard,) = encode(config).manifest.shards
    path = tmp_path / "encoded" / "clips" / shard.name
    before = path.stat().st_mtime_ns
    assert encode(config).found == 4
    assert path.stat().st_mtime_ns == before
    base = replace(settings, encoded=tmp_path / "encoded", terms=GAN, steps=4, save_every=2)
    train(replace(base, out=tmp_path / "whole"))
    train(replace(base, out=tmp_path / "parts"), stop_at=2)
    train(replace(base, out=tmp_path / "parts"))
    held = [
        (tmp_path / name / "checkpoints/step-00000004/rank-00000.safetensors").read_bytes()
        for name in ("whole", "parts")
    ]
    assert held[0] == held[1]
    assert HEAD.encode() in held[0]


def test_a_gan_without_clips_is_refused(settings: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no clips.*distill encode with --clips"):
        train(replace(settings, out=tmp_path, terms=GAN))
    with pytest.raises(UserError, match="come together"):
        Objective(replace(settings, terms=("dmd", "adversary", "denoise")))


# ---- which networks a step trains ----


def test_without_a_critic_every_step_is_the_students(settings: TrainConfig, tmp_path: Path) -> None:
    objective = Objective(replace(settings, terms=("regress",)))
    assert [objective.nets(step) for step in range(3)] == [("student",)] * 3
    usual = Objective(settings)
    both = ("student", "critic")
    assert [usual.nets(step) for step in range(3)] == [both, ("critic",), both]
    terms = ("dmd", "consistency", "diversity", "denoise")
    cards = (("regress",), "2; each updates the student"), (terms, "2; one in 2 updates")
    for index, (chosen, said) in enumerate(cards):
        folder = train(replace(settings, terms=chosen, steps=2, out=tmp_path / str(index)))
        assert folder is not None
        assert said in (folder / "README.md").read_text()
