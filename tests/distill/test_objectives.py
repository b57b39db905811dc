"""Properties of the losses, in float64."""

import copy

import pytest
import torch
from colibri.core import wan
from colibri.core.wan import rollout, sampler
from colibri.distill.config import (
    DenoiseConfig,
    DmdConfig,
    GuidanceConfig,
    NoiseConfig,
    TrainConfig,
)
from colibri.distill.objectives import Objective
from colibri.distill.objectives.base import Batch, Draws, Round
from colibri.distill.objectives.denoise import denoise
from colibri.distill.objectives.dmd import dmd
from colibri.distill.objectives.scores import guided_x0
from colibri.distill.roles import Separate
from distill_toys import SCHEDULE, SHAPE, Gaussians, batch, part, play
from torch import Tensor


def _gradient(round: Round) -> Tensor:
    """dloss/dx of each sample."""
    x = round.sample_BCTHW.detach().requires_grad_()
    round.__dict__["sample_BCTHW"] = x
    dmd(round, DmdConfig()).loss_B.sum().backward()
    assert x.grad is not None
    return x.grad


# ---- the generator's gradient ----


def test_the_gradient_is_that_of_gaussians_in_closed_form() -> None:
    """E[x0|x] differs by s^2 (m_f - m_r) / ((1 - s)^2 v + s^2) at every x, for equal variances."""
    toy = Gaussians(teacher=0.7, critic=-0.4, variance=0.5)
    of = batch(3)
    round = play(toy, of)
    found = _gradient(round)
    s = next(levels for role, levels, _ in toy.asked if role == "critic")
    difference = s**2 * (-0.4 - 0.7) / ((1 - s) ** 2 * 0.5 + s**2)
    # the normaliser, from the teacher's estimate at the same noisy latents
    x = round.sample_BCTHW.detach()
    level = s.view(-1, 1, 1, 1, 1)
    noisy = (1 - level) * x + level * round.noise("dmd noise")
    real = 0.7 + (1 - level) * 0.5 * (noisy - (1 - level) * 0.7) / (
        (1 - level) ** 2 * 0.5 + level**2
    )
    scale = (x - real).abs().flatten(1).mean(1)
    expected = (difference / scale / x[0].numel()).view(-1, 1, 1, 1, 1).expand_as(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_descending_moves_the_student_towards_the_teacher() -> None:
    for teacher in (-2.0, 2.0):
        toy = Gaussians(teacher=teacher, critic=0.0)
        dmd(play(toy, batch(4)), DmdConfig()).loss_B.mean().backward()
        assert toy.mean.grad is not None
        assert toy.mean.grad.sign() == -torch.tensor(teacher).sign()


def test_no_gradient_when_critic_and_teacher_agree() -> None:
    found = dmd(play(Gaussians(teacher=0.3, critic=0.3), batch(2)), DmdConfig())
    assert found.loss_B.tolist() == [0, 0]
    assert not _gradient(play(Gaussians(teacher=0.3, critic=0.3), batch(2))).any()


def test_the_normaliser_takes_the_scale_of_latents_out() -> None:
    class Scaled(Gaussians):
        def velocity(self, role, x_BCTHW, sigma, text_BLD, **more):  # type: ignore[no-untyped-def]
            return 7 * super().velocity(role, x_BCTHW / 7, sigma, text_BLD, **more)

    one, seven = Gaussians(teacher=1.0, critic=0.0), Scaled(teacher=1.0, critic=0.0)
    first, second = play(one, batch(2)), play(seven, batch(2))
    for round in (first, second):  # the same noise, in each world's units
        plain = round.noise
        size = 7 if round is second else 1
        round.noise = lambda purpose, plain=plain, size=size: size * plain(purpose)  # type: ignore
    second.__dict__["sample_BCTHW"] = 7 * first.sample_BCTHW.detach()
    torch.testing.assert_close(_gradient(second), _gradient(first), rtol=1e-10, atol=1e-14)


def test_a_given_frame_is_out_of_loss_and_normaliser() -> None:
    """Another first frame changes no loss and no gradient where networks look at each latent
    alone; and the gradient is 0 there."""
    toy = Gaussians(teacher=0.7, critic=-0.4)
    one, other = (batch(2, given=(True, False), seed=0) for _ in range(2))
    object.__setattr__(other, "first_BCTHW", one.first_BCTHW + 1000)
    first, second = _gradient(play(toy, one)), _gradient(play(toy, other))
    assert not first[0, :, 0].any()
    assert first[0, :, 1:].all()
    assert first[1].all()
    assert torch.equal(first, second)
    # T2V of the same draws: the mean is over 3 frames in place of 2
    free = _gradient(play(toy, batch(2)))
    assert torch.equal(first[1], free[1])
    loss = [denoise(play(toy, of, "critic"), DenoiseConfig()).loss_B for of in (one, other)]
    assert torch.equal(loss[0], loss[1])


# ---- the critic ----


def test_the_critics_loss_is_least_at_the_students_own_score() -> None:
    """The student's samples are N(0, .5) when it leaves at sigma 1."""
    losses = {}
    for mean in (-0.2, 0.0, 0.2):
        toy = Gaussians(teacher=0.0, critic=mean)
        values = []
        for index in range(60):
            round = play(toy, batch(4), "critic", first=4 * index)
            round.__dict__["exit_step"] = 0
            values.append(denoise(round, DenoiseConfig()).loss_B.mean().item())
        losses[mean] = sum(values) / len(values)
    assert losses[0.0] < losses[-0.2]
    assert losses[0.0] < losses[0.2]


def test_the_error_in_x0_is_that_in_velocity_times_sigma_squared() -> None:
    toy = Gaussians(teacher=0.0, critic=0.5)
    velocity = denoise(play(toy, batch(3), "critic"), DenoiseConfig()).loss_B
    x0 = denoise(play(toy, batch(3), "critic"), DenoiseConfig(target="x0")).loss_B
    sigma = play(toy, batch(3), "critic").sigma("critic level")
    torch.testing.assert_close(x0, sigma**2 * velocity, rtol=1e-12, atol=0)


def test_critic_and_student_draw_their_own_noise() -> None:
    toy = Gaussians(teacher=0.0, critic=0.0)
    one, other = play(toy, batch(1)), play(toy, batch(1), "critic")
    assert not torch.equal(one.noise("start"), other.noise("start"))


# ---- guidance ----


@pytest.mark.parametrize(
    ("form", "weight", "factors"),
    [  # (of c, of u)
        ("standard", 1.0, (1, 0)),
        ("standard", 7.0, (7, -6)),
        ("standard", 0.0, (0, 1)),
        ("extra", 0.0, (1, 0)),
        ("extra", 6.0, (7, -6)),
        ("extra", 3.0, (4, -3)),
    ],
)
def test_forms_of_guidance(form: str, weight: float, factors: tuple[int, int]) -> None:
    class Branches:
        calls = 0

        def velocity(self, role, x, sigma, text_BLD, **more):  # type: ignore[no-untyped-def]
            self.calls += 1
            return text_BLD.mean((1, 2)).view(-1, 1, 1, 1, 1).expand_as(x)

    of = batch(2)
    for batched in (True, False):
        players = Branches()
        round = play(players, of, guidance=GuidanceConfig(form=form), batched_cfg=batched)  # type: ignore[arg-type]
        x, sigma = round.noise("x"), torch.tensor([0.5, 0.25], dtype=torch.float64)
        found = guided_x0(round, "teacher", x, sigma, weight=weight)
        c, u = (text.mean((1, 2)) for text in (of.text_BLD, of.null_BLD))
        velocity = factors[0] * c + factors[1] * u
        torch.testing.assert_close(found, x - (sigma * velocity).view(-1, 1, 1, 1, 1))
        assert players.calls == (2 if factors[1] and not batched else 1)


def test_only_what_guidance_needs_is_asked() -> None:
    toy = Gaussians(teacher=0.0, critic=0.0)
    dmd(play(toy, batch(2), guidance=GuidanceConfig(real=5.0, fake=1.0)), DmdConfig())
    asked = [(role, len(levels)) for role, levels, _ in toy.asked if role != "student"]
    assert asked == [("critic", 2), ("teacher", 4)]


# ---- one schedule for all ----


def test_all_roles_hear_the_same_sigma_in_float64() -> None:
    toy = Gaussians(teacher=0.0, critic=0.0)
    dmd(play(toy, batch(3)), DmdConfig())
    levels = {role: levels for role, levels, _ in toy.asked}
    assert torch.equal(levels["critic"], levels["teacher"])
    assert levels["critic"].dtype == torch.float64
    student = [levels[0].item() for role, levels, _ in toy.asked if role == "student"]
    assert student == list(SCHEDULE.sigmas[: len(student)])


def test_noise_levels_are_shifted_and_kept_within_limits() -> None:
    round = play(Gaussians(teacher=0.0, critic=0.0), batch(2), noise=NoiseConfig(shift=5.0))
    uniform = round.draws.uniform("dmd level")
    expected = (5 * uniform / (1 + 4 * uniform)).clamp(0.02, 0.98)
    assert torch.equal(round.sigma("dmd level"), expected)


# ---- the student's trajectory ----


@pytest.mark.parametrize("given", [False, True])
def test_the_last_exit_gives_what_the_few_step_sampler_gives(
    given: bool, model: wan.WanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and inference are one path, for text alone and with a given frame."""
    network = model.transformer
    of = batch(2, given=(given, given))
    round = play(Separate(student=network, critic=network, teacher=network), of)
    round.__dict__["exit_step"] = SCHEDULE.steps - 1
    with torch.no_grad():
        found = round.sample_BCTHW.float()
    purposes = iter(["start", "step 1", "step 2"])

    def drawn(*_: object, **__: object) -> Tensor:
        return round.noise(next(purposes)).float()

    for module in (rollout, sampler):
        monkeypatch.setattr(module, "draw_noise", drawn)
    expected = rollout.whole_clip(
        network,
        of.text_BLD,
        shape=SHAPE,
        schedule=SCHEDULE,
        generator=torch.Generator(),
        sampler="consistency",
        first_BCTHW=of.first_BCTHW if given else None,
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_only_the_exit_step_is_in_the_graph() -> None:
    class Counted(Gaussians):
        def velocity(self, role, x_BCTHW, sigma, text_BLD, **more):  # type: ignore[no-untyped-def]
            found = super().velocity(role, x_BCTHW, sigma, text_BLD, **more)
            graphs.append((role, found.requires_grad, x_BCTHW.requires_grad))
            return found

    for exit_step in range(3):
        graphs: list[tuple[str, bool, bool]] = []
        round = play(Counted(teacher=0.0, critic=1.0), batch(1))
        round.__dict__["exit_step"] = exit_step
        dmd(round, DmdConfig())
        student = [entry[1:] for entry in graphs if entry[0] == "student"]
        assert student == [(False, False)] * exit_step + [(True, False)]
        assert not any(graph for role, graph, _ in graphs if role != "student")


def test_the_critics_round_leaves_no_graph_in_the_student() -> None:
    toy = Gaussians(teacher=0.0, critic=1.0)
    assert not play(toy, batch(1), "critic").sample_BCTHW.requires_grad


def test_exits_are_uniform_and_alike_for_an_update() -> None:
    exits = [
        Draws(seed=0, keys=("x",), update=f"student/{index}").integer("exit", 3)
        for index in range(300)
    ]
    assert all(70 < exits.count(step) < 130 for step in range(3))
    again = Draws(seed=0, keys=("other", "rank"), update="student/5")
    assert again.integer("exit", 3) == exits[5]


# ---- sums ----


@pytest.mark.parametrize("net", ["student", "critic"])
@pytest.mark.usefixtures("exact")
def test_accumulating_two_halves_is_a_batch_of_two(model: wan.WanModel, net: str) -> None:
    def gradients(batches: list[tuple[int, Batch]]) -> list[Tensor]:
        networks = [copy.deepcopy(model.transformer).double() for _ in range(3)]
        with torch.no_grad():
            for index, network in enumerate(networks):
                for parameter in network.parameters():
                    parameter.add_(0.01 * index)
        players = Separate(student=networks[0], critic=networks[1], teacher=networks[2])
        objective = Objective(TrainConfig())
        for first, of in batches:
            round = play(players, of, net, first=first, guidance=GuidanceConfig())  # type: ignore
            loss, _ = objective.loss(round)
            (loss.sum() / 2).backward()
        own = networks[0 if net == "student" else 1]
        other = networks[1 if net == "student" else 0]
        assert all(parameter.grad is None for parameter in other.parameters())
        return [p.grad for p in own.parameters() if p.grad is not None]

    whole = batch(2, given=(True, False))
    at_once = gradients([(0, whole)])
    in_two = gradients([(0, part(whole, 0)), (1, part(whole, 1))])
    assert len(at_once) == len(in_two) > 20
    scale = max(float(gradient.abs().max()) for gradient in at_once)
    assert scale > 0
    for one, two in zip(at_once, in_two, strict=True):
        assert float((one - two).abs().max()) <= 1e-10 * scale
