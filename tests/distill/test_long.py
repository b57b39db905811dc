"""Students that make clips block after block: their rollouts, their losses, their runs."""

import copy
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape
from colibri.core.hashing import hash_file
from colibri.core.wan.cache import KVCache
from colibri.core.wan.causal import block_velocity, extend, recached
from colibri.core.wan.family import Causal
from colibri.core.wan.rollout import block_rollout, seeded_noise
from colibri.distill import checkpoint
from colibri.distill.config import (
    ConsistencyConfig,
    PairsConfig,
    RegressConfig,
    StreamConfig,
    StudentConfig,
    TrainConfig,
)
from colibri.distill.objectives.base import Batch, Draws, Net, Round
from colibri.distill.objectives.consistency import consistency
from colibri.distill.objectives.dmd import dmd
from colibri.distill.objectives.regress import regress
from colibri.distill.objectives.rollouts import Stream, in_blocks
from colibri.distill.roles import Separate, Shared, merge
from colibri.distill.train import train
from distill_toys import SCHEDULE, batch, play
from torch import Tensor

CAUSAL = Causal(first_block=1, block=1, sink=1, window=2)
FORK = multiprocessing.get_context("fork")
SHAPE = LatentShape(channels=16, frames=3, height=4, width=4)


@pytest.fixture
def roles(model: wan.WanModel) -> Separate:
    """Three networks in float64, apart by a little noise; the student is causal."""
    made = Separate.of(copy.deepcopy(model.transformer), precision="fp64")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for weight in (
            *made.network("student").parameters(),
            *made.network("critic").parameters(),
        ):
            weight += 0.02 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    made.make_student_causal(CAUSAL)
    return made


def _batch(count: int = 2, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(count, 5, 64, generator=generator, dtype=torch.float64)
    return Batch(
        ids=tuple(f"row{index}" for index in range(count)),
        text_BLD=text,
        null_BLD=torch.zeros(count, 5, 64, dtype=torch.float64),
        first_BCTHW=torch.zeros(count, 16, 1, 4, 4, dtype=torch.float64),
        given_B=torch.zeros(count, dtype=torch.bool),
        shape=SHAPE,
    )


def _round(
    players: Any,
    of: Batch,
    make: Callable[[Round], Tensor] | None = in_blocks,
    *,
    net: Net = "student",
    update: int = 0,
    exit_step: int | None = None,
) -> Round:
    plain = play(players, of)
    round = Round(
        net=net,
        players=players,
        batch=of,
        draws=Draws(
            seed=3,
            keys=tuple(f"{net}/{update * len(of.ids) + index}" for index in range(len(of.ids))),
            update=f"{net}/{update}",
        ),
        schedule=SCHEDULE,
        noise=plain._levels,
        guidance=plain.guidance,
        dtype=torch.float64,
        causal=CAUSAL,
        make=make,
    )
    if exit_step is not None:
        round.__dict__["exit_step"] = exit_step
    return round


def _gradients(network: Any) -> dict[str, Tensor]:
    found = {n: w.grad.clone() for n, w in network.named_parameters() if w.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


# ---- self-forcing: what has a graph ----


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("exit_step", [0, 2])
def test_the_gradient_is_that_of_each_blocks_exit_step_alone(
    roles: Separate, exit_step: int
) -> None:
    """Against exit steps that are asked again, from inputs and caches made without a graph."""
    of, student = _batch(), roles.network("student")
    round = _round(roles, of, exit_step=exit_step)
    made = round.sample_BCTHW
    weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(2), dtype=made.dtype)
    (made * weights).sum().backward()
    found = _gradients(student)

    total = torch.zeros((), dtype=torch.float64)
    cache = KVCache(causal=CAUSAL)
    for index in range(SHAPE.frames):
        noises = [
            round.draws.noise(
                f"block {index} step {step}", (2, 16, 1, 4, 4), device="cpu", dtype=torch.float64
            )
            for step in range(exit_step + 1)
        ]
        x = noises[0]
        for step in range(exit_step + 1):
            level = SCHEDULE.sigmas[step]
            with torch.set_grad_enabled(step == exit_step):
                estimate = x - level * block_velocity(student, x, level, of.text_BLD, cache)
            if step < exit_step:
                following = SCHEDULE.sigmas[step + 1]
                x = (1 - following) * estimate + following * noises[step + 1]
        torch.testing.assert_close(estimate, made[:, :, index : index + 1], rtol=1e-9, atol=1e-10)
        total = total + (estimate * weights[:, :, index : index + 1]).sum()
        with torch.no_grad():
            _, cache = extend(student, estimate, of.text_BLD, cache)
    total.backward()
    expected = _gradients(student)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-10)


def test_no_graph_leads_from_a_block_to_those_before_it(roles: Separate) -> None:
    """Each block's graph ends at its own pass: nothing flows through the cache."""
    of = _batch(1)
    made = list(
        roles.blocks(
            of.text_BLD,
            shape=SHAPE,
            schedule=SCHEDULE,
            noise=seeded_noise([0], dtype=torch.float64),
            blocks=3,
            train=True,
        )
    )
    for block in made:
        assert block.latents_BCTHW.requires_grad
        assert not any(
            kept.values_BSND.requires_grad for layer in block.cache.layers for kept in layer
        )
    (through,) = torch.autograd.grad(
        made[2].latents_BCTHW.sum(), made[0].latents_BCTHW, allow_unused=True
    )
    assert through is None


def test_a_critics_round_leaves_no_graph(roles: Separate) -> None:
    assert not _round(roles, _batch(), net="critic").sample_BCTHW.requires_grad


def test_blocks_that_are_computed_again_have_the_same_gradient(
    roles: Separate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache a block saw is an argument of its pass: later blocks do not change it."""
    monkeypatch.setattr("colibri.distill.roles.FEW_PLACES", 0)  # one kernel for both
    found = []
    for checkpointing in (False, True):
        student = roles.network("student")
        if checkpointing:
            student.enable_gradient_checkpointing()
        made = _round(roles, _batch(), exit_step=1).sample_BCTHW
        made.square().sum().backward()
        found.append(_gradients(student))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name])


def test_all_blocks_leave_at_one_exit_step_drawn_for_the_update(roles: Separate) -> None:
    """Passes are counted by their noise level: every block asks the levels up to the exit, then
    writes its cache at level 0."""
    asked: list[float] = []
    student = roles.network("student")
    handle = student.condition_embedder.register_forward_pre_hook(
        lambda module, inputs: asked.append(float(inputs[0].flatten()[0]))
    )
    exits = set()
    for update in range(8):
        asked.clear()
        round = _round(roles, _batch(1), update=update)
        _ = round.sample_BCTHW
        levels = [1000 * sigma for sigma in SCHEDULE.sigmas[: round.exit_step + 1]]
        assert asked == pytest.approx([*levels, 0.0] * 3)
        exits.add(round.exit_step)
    handle.remove()
    assert exits == {0, 1, 2}


def test_teacher_and_critic_see_the_clip_whole(roles: Separate) -> None:
    """A change in the last frame changes what they say of the first; the student's answer stays."""
    x = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    other = x.clone()
    other[:, :, 2] += 1
    for role in ("teacher", "critic", "student"):
        one, two = (roles.velocity(role, of, 0.5, _batch(1).text_BLD)[:, :, 0] for of in (x, other))  # type: ignore[arg-type]
        assert torch.equal(one, two) == (role == "student")


def test_adapters_on_one_base_roll_out_as_a_network_of_their_own(model: wan.WanModel) -> None:
    """The student's adapter is on in every pass of its rollout, short text or not, and the base is
    the teacher again afterwards."""
    base = copy.deepcopy(model.transformer)
    shared = Shared(base, student_rank=2, critic_rank=2, precision="fp64")
    alone = Separate.of(copy.deepcopy(model.transformer), precision="fp64")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in shared.trained("student").values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    adapter = {name: w.detach() for name, w in shared.trained("student").items()}
    merge(alone.network("student"), adapter, rank=2)
    for players in (shared, alone):
        players.make_student_causal(CAUSAL)
    shared.shorten_text()
    of = _batch(1)
    of.text_BLD[:, 3:] = 0
    one, two = (_round(p, of, exit_step=1).sample_BCTHW for p in (shared, alone))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    x = torch.randn(1, 16, 3, 4, 4, generator=generator).double()
    teachers = [p.velocity("teacher", x, 0.5, of.text_BLD) for p in (shared, alone)]
    torch.testing.assert_close(teachers[0], teachers[1], rtol=1e-4, atol=1e-5)


# ---- streaming long tuning ----

LONG = TrainConfig(
    rollout="stream", causal=CAUSAL, p_i2v=0.0, stream=StreamConfig(rounds=3, blocks=2)
)


@torch.no_grad()
def _stream(
    roles: Any, stream: Stream, updates: range, of: Batch | None = None
) -> list[tuple[Round, int]]:
    rounds = []
    for update in updates:
        turn = stream.turn("student", update, 0)
        batch = replace(of or _batch(1, seed=turn.prompts), held=turn.held)
        round = _round(roles, batch, turn.make, update=update, exit_step=2)
        _ = round.sample_BCTHW
        rounds.append((round, turn.held))
    return rounds


def test_rounds_of_a_stream_are_one_rollout_with_one_cache(roles: Separate) -> None:
    """Past the teacher's length, and past what the window holds."""
    stream = Stream(LONG, frames=3)
    rounds = _stream(roles, stream, range(3))
    assert [held for _, held in rounds] == [0, 1, 1]

    def noise(block: int, step: int, size: tuple[int, ...]) -> Tensor:
        update = 0 if block < 3 else 1 + (block - 3) // 2
        draws = rounds[update][0].draws
        return draws.noise(f"block {block} step {step}", size, device="cpu", dtype=torch.float64)

    with torch.no_grad():
        text = _batch(1).text_BLD
        whole = torch.cat(
            [
                block.latents_BCTHW
                for block in roles.blocks(
                    text, shape=SHAPE, schedule=SCHEDULE, noise=noise, blocks=7
                )
            ],
            dim=2,
        )
    for index, (round, _) in enumerate(rounds):
        end = 3 + 2 * index
        assert torch.equal(round.sample_BCTHW, whole[:, :, end - 3 : end])
    fresh, _ = _stream(roles, stream, range(3, 4))[0]
    assert stream.turn("student", 3, 0).prompts == 1
    assert not torch.equal(fresh.sample_BCTHW, whole[:, :, :3])


def test_a_stream_that_was_saved_goes_on_with_the_same_bits(roles: Separate) -> None:
    one = Stream(LONG, frames=3)
    _stream(roles, one, range(2))
    other = Stream(LONG, frames=3)
    other.restore({name: tensor.clone() for name, tensor in one.tensors().items()})
    made = [_stream(roles, stream, range(2, 3))[0][0].sample_BCTHW for stream in (one, other)]
    assert torch.equal(made[0], made[1])


def test_only_what_a_round_added_has_a_gradient_and_counts(roles: Separate) -> None:
    stream = Stream(LONG, frames=3)
    _stream(roles, stream, range(1))
    turn = stream.turn("student", 1, 0)
    of = replace(_batch(1), held=turn.held)
    round = _round(roles, of, turn.make, update=1, exit_step=0)
    x = round.sample_BCTHW
    assert x.requires_grad
    x.retain_grad()
    dmd(round, LONG.dmd).loss_B.sum().backward()
    assert x.grad is not None
    assert not x.grad[:, :, 0].any()
    assert x.grad[:, :, 1:].all()
    assert torch.equal(of.mask_B1T11.flatten(), torch.tensor([False, True, True]))


def test_another_prompt_computes_a_past_of_last_steps_again(roles: Separate) -> None:
    causal = replace(CAUSAL, past="last_step")
    roles.make_student_causal(causal)
    config = replace(LONG, causal=causal, stream=StreamConfig(rounds=3, blocks=2, switch=1))
    asked: list[float] = []
    roles.network("student").condition_embedder.register_forward_hook(
        lambda module, inputs, output: asked.append(float(inputs[0][0]))
    )
    stream = Stream(config, frames=3)
    _stream(roles, stream, range(2))
    steps = list(SCHEDULE.timesteps)
    again = [steps[-1]] * 2  # the sink, and the latest
    assert asked == [*steps * 3, *again, *steps * 2]


def test_another_prompt_computes_the_cache_again(roles: Separate) -> None:
    config = replace(LONG, stream=StreamConfig(rounds=3, blocks=2, switch=1))
    stream = Stream(config, frames=3)
    assert [stream.turn("student", update, 0).prompts for update in range(7)] == [
        *(0, 1, 1),
        *(2, 3, 3),
        4,
    ]
    first, _ = _stream(roles, stream, range(1))[0]
    before = {name: tensor.clone() for name, tensor in stream.tensors().items()}
    (second, _) = _stream(roles, stream, range(1, 2))[0]
    old = Stream(config, frames=3)
    old.restore(before)
    cache = old._clips["student/0"].cache
    latents = first.sample_BCTHW
    held = torch.cat([latents[:, :, :1], latents[:, :, 2:]], dim=2)  # the sink, and one more
    assert cache.held == 2
    with torch.no_grad():
        cache = recached(roles.network("student"), held, second.batch.text_BLD, cache)
        made = roles.blocks(
            second.batch.text_BLD,
            shape=SHAPE,
            schedule=SCHEDULE,
            noise=lambda block, step, size: second.draws.noise(
                f"block {block} step {step}", size, device="cpu", dtype=torch.float64
            ),
            blocks=2,
            cache=cache,
        )
        expected = torch.cat([block.latents_BCTHW for block in made], dim=2)
    torch.testing.assert_close(second.sample_BCTHW[:, :, 1:], expected, rtol=1e-6, atol=1e-7)


# ---- where a causal student starts ----


class Straight:
    """The teacher's velocity is 0.8 everywhere; the student's 1.3. Remembers what it was asked."""

    def __init__(self) -> None:
        self.levels: list[Tensor] = []
        self.clean: list[Tensor | None] = []

    def velocity(self, role, x, sigma, text, *, clean_BCTHW=None, **_):  # type: ignore[no-untyped-def]
        if role == "student":
            self.levels.append(torch.as_tensor(sigma))
            self.clean.append(clean_BCTHW)
        return torch.full_like(x, 1.3 if role == "student" else 0.8)


def test_each_block_is_regressed_from_a_level_of_its_own() -> None:
    levels = set()
    for update in range(6):
        toy = Straight()
        found = regress(_round(toy, batch(2), update=update), RegressConfig()).loss_B
        (sigma_BT,) = toy.levels
        expected = (0.5 * sigma_BT).square().mean(1)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
        levels |= {tuple(row) for row in sigma_BT.tolist()}
    assert {level for row in levels for level in row} == set(SCHEDULE.sigmas[:-1])
    assert any(len(set(row)) > 1 for row in levels)


@pytest.mark.parametrize("context", ["clean", "noisy"])
def test_a_path_from_a_file_says_what_blocks_see_and_aim_at(context: str) -> None:
    of, toy = batch(2), Straight()
    generator = torch.Generator().manual_seed(0)
    path = torch.randn((2, 4, *of.size[1:]), generator=generator, dtype=torch.float64)
    round = _round(toy, replace(of, path_BKCTHW=path))
    found = regress(round, RegressConfig(context=context)).loss_B  # type: ignore[arg-type]
    (sigma_BT,), (clean,) = toy.levels, toy.clean
    if context == "clean":
        assert clean is not None
        assert torch.equal(clean, path[:, -1])
    else:
        assert clean is None
    expected = torch.zeros(2, dtype=torch.float64)
    for sample in range(2):
        for frame in range(3):
            sigma = float(sigma_BT[sample, frame])
            state = path[sample, SCHEDULE.sigmas.index(sigma), :, frame]
            error = state - 1.3 * sigma - path[sample, -1, :, frame]
            expected[sample] += error.square().mean() / 3
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_causal_consistency_starts_from_real_clips_and_sees_them_clean() -> None:
    of, toy = batch(2), Straight()
    clip = torch.randn(of.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    round = _round(toy, replace(of, clip_BCTHW=clip))
    found = consistency(round, ConsistencyConfig(of="clips", grid=10)).loss_B
    assert not round.sampled
    assert all(seen is not None and torch.equal(seen, clip) for seen in toy.clean)
    low, high = toy.levels
    # x_m = x_n - (high - low) 0.8; x0 jumps by 1.3 sigma; at the end x_m itself is the target
    expected = (0.5 * (high - low)).square()
    torch.testing.assert_close(found, expected.double(), rtol=1e-9, atol=1e-12)


# ---- runs ----


@pytest.fixture(scope="module")
def causal_settings(settings: TrainConfig) -> TrainConfig:
    return replace(settings, rollout="blocks", causal=CAUSAL, p_i2v=0.0, batch=1, steps=2)


def _bytes(out: Path) -> dict[str, str]:
    newest = checkpoint.latest(out / "checkpoints")
    assert newest is not None
    files = [*newest.iterdir(), *(out / "student" / "transformer").iterdir()]
    return {path.name: hash_file(path) for path in sorted(files)}


def _run_until(config: TrainConfig, step: int) -> None:
    """Killed after a step that is in the log and in no checkpoint."""

    def say(line: str) -> None:
        if line.startswith(f"step {step} "):
            os.kill(os.getpid(), signal.SIGKILL)

    train(config, say=say)


@pytest.mark.parametrize("rollout", ["blocks", "stream"])
def test_killed_and_resumed_is_undisturbed_bit_for_bit(
    causal_settings: TrainConfig, tmp_path: Path, rollout: str
) -> None:
    """A stream goes on in the middle of a clip, from the cache in its checkpoint."""
    config = replace(
        causal_settings,
        rollout=rollout,  # type: ignore[arg-type]
        steps=2 if rollout == "blocks" else 5,
        save_every=1,
        stream=StreamConfig(rounds=3, blocks=1),
        student=replace(causal_settings.student, every=1),
    )
    train(replace(config, out=tmp_path / "whole"))
    again = replace(config, out=tmp_path / "again")
    process = FORK.Process(target=_run_until, args=(again, config.steps - 1))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    train(again)
    assert _bytes(tmp_path / "again") == _bytes(tmp_path / "whole")


def test_the_folder_has_the_causal_form_and_rolls_out_past_its_length(
    causal_settings: TrainConfig, tmp_path: Path
) -> None:
    config = replace(causal_settings, out=tmp_path)
    folder = train(config)
    assert folder is not None
    student = wan.load(folder, parts=("transformer",))
    assert student.family.causal == CAUSAL
    assert student.schedule == config.schedule.build()
    frames = [
        block.latents_BCTHW
        for block in block_rollout(
            student.transformer,
            torch.zeros(1, 4, 64),
            shape=SHAPE,
            causal=CAUSAL,
            schedule=student.schedule,
            noise=seeded_noise([0]),
            blocks=8,
        )
    ]
    assert torch.cat(frames, dim=2).shape == (1, 16, 8, 4, 4)
    assert torch.cat(frames, dim=2).isfinite().all()
    assert "see the latest 2" in (folder / "README.md").read_text()


def test_a_run_starts_from_the_average_and_the_critic_of_another(
    causal_settings: TrainConfig, tmp_path: Path
) -> None:
    """Without any learning rate, both come out as they went in."""
    first = replace(causal_settings, out=tmp_path / "first")
    train(first)
    still = StudentConfig(lr=0.0, every=1, ema=0.9)
    config = replace(
        first,
        out=tmp_path / "second",
        start=first.out,
        steps=1,
        student=still,
        critic=replace(first.critic, lr=0.0),
    )
    train(config)
    held, before = (
        checkpoint.read_tensors(checkpoint.latest(out / "checkpoints"), world=_One())  # type: ignore[arg-type]
        for out in (config.out, first.out)
    )
    for name in ("blocks.0.attn1.to_q.weight", "blocks.1.ffn.net.2.weight"):
        assert torch.equal(held[f"student/{name}"], before[f"ema/{name}"])
        assert torch.equal(held[f"critic/{name}"], before[f"critic/{name}"])
        assert not torch.equal(before[f"ema/{name}"], before[f"critic/{name}"])
    train(replace(config, out=tmp_path / "third", start=first.out / "student"))
    third = checkpoint.read_tensors(
        tmp_path / "third" / "checkpoints" / "step-00000001",
        world=_One(),  # type: ignore[arg-type]
    )
    assert torch.equal(third[f"student/{name}"], before[f"ema/{name}"])


class _One:
    rank, size = 0, 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_i2v": 0.5}, "blocks trains text to video alone"),
        ({"compile": True}, "--compile has no form for --rollout blocks"),
        ({"rollout": "stream", "terms": ("regress",)}, "needs --terms dmd,denoise"),
        ({"rollout": "stream", "stream": StreamConfig(switch=8)}, r"stream\.switch 8 is not"),
        ({"rollout": "stream", "stream": StreamConfig(blocks=3)}, "nothing would join two rounds"),
        ({"causal": Causal(block=3)}, "--frames 9: 3 latent frames do not end with a causal block"),
        ({"start": Path("nowhere")}, "no model folder 'nowhere'"),
        ({"terms": ("regress",), "pairs": PairsConfig(rows=99)}, "rows 99, but .* has 12 rows"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(
    changes: dict[str, Any], message: str, causal_settings: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(causal_settings, out=tmp_path, **changes))


def test_validation_samples_are_the_causal_rollout(
    causal_settings: TrainConfig, tmp_path: Path
) -> None:
    config = replace(
        causal_settings,
        out=tmp_path,
        validate_every=2,
        validate_rows=1,
        teacher_steps=2,
    )
    train(config)
    assert (tmp_path / "samples" / "step-00000002" / "text-0.mp4").is_file()
    assert not (tmp_path / "samples" / "step-00000002" / "image-0.mp4").exists()
