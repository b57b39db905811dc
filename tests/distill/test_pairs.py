"""Files of the teacher's paths, and what is learnt from them."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file
from colibri.core.latents import read_latents
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import Causal
from colibri.core.wan.rollout import whole_clip
from colibri.distill.config import (
    GuidanceConfig,
    PairsConfig,
    RegressConfig,
    StudentConfig,
    TrainConfig,
)
from colibri.distill.objectives.base import generator_of
from colibri.distill.pairs import grid
from colibri.distill.setup import open_encoded, write_pairs
from colibri.distill.train import train

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def config(settings: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Paths of five rows in three files."""
    config = replace(
        settings,
        out=tmp_path_factory.mktemp("pairs"),
        rollout="blocks",
        causal=Causal(first_block=1, block=1, sink=1, window=2),
        p_i2v=0.0,
        terms=("regress",),
        regress=RegressConfig(steps=9),
        guidance=GuidanceConfig(real=2.0),
        pairs=PairsConfig(rows=5, shard_rows=2, batch=2, store="float32"),
    )
    assert write_pairs(config).made == 3
    return config


def _bytes(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in sorted(folder.iterdir())}


def test_made_again_they_are_the_same_bytes_and_found_ones_stay(
    config: TrainConfig, tmp_path: Path
) -> None:
    again = replace(config, out=tmp_path)
    write_pairs(again)
    whole = _bytes(config.out / "pairs")
    assert _bytes(tmp_path / "pairs") == whole
    assert write_pairs(again).made == 0
    (tmp_path / "pairs" / "00000.safetensors").unlink()
    cut = tmp_path / "pairs" / "00001.safetensors"
    cut.write_bytes(cut.read_bytes()[:-7])
    (tmp_path / "pairs" / "manifest.json").unlink()
    assert write_pairs(again).made == 2
    assert _bytes(tmp_path / "pairs") == whole


def _run_until_the_first_file(config: TrainConfig) -> None:
    write_pairs(config, on_shard=lambda done, found: os.kill(os.getpid(), signal.SIGKILL))


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(
    config: TrainConfig, tmp_path: Path
) -> None:
    again = replace(config, out=tmp_path)
    process = FORK.Process(target=_run_until_the_first_file, args=(again,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["00000.safetensors"]
    write_pairs(again)
    left = {n: h for n, h in _bytes(tmp_path / "pairs").items() if not n.startswith(".")}
    assert left == {n: h for n, h in _bytes(config.out / "pairs").items() if n[0] != "."}


def test_a_path_is_the_samplers_from_the_seeds_noise_through_the_students_levels(
    config: TrainConfig,
) -> None:
    """Each state leads to the stored end along the rest of the grid, and the first is noise that
    depends on row and seed alone."""
    schedule, places = grid(config)
    student = config.schedule.build()
    assert [schedule.sigmas[place] for place in places] == list(student.sigmas[:-1])
    assert [schedule.timesteps[place] for place in places] == list(student.timesteps)
    model = wan.load(config.teacher, parts=("transformer",))
    family = model.family
    shape = replace(family.latent_shape(family.video), frames=3, height=4, width=4)
    world = _One()
    encoded = open_encoded(config, Path(config.teacher), family, shape, model.vae_hash, world)  # type: ignore[arg-type]
    for name in ("00000", "00002"):
        held = read_latents(config.out / "pairs" / f"{name}.safetensors", vae_hash=model.vae_hash)
        assert held.recipe["guidance"] == 2.0
        for row, path in held.latents.items():
            assert path.shape == (4, 16, 3, 4, 4)
            generator = generator_of(config.seed, "path", row)
            noise = torch.randn((1, 16, 3, 4, 4), generator=generator)
            assert torch.equal(path[:1], noise)
            of = encoded.batch((row,), given=(False,), device="cpu")
            for index, place in enumerate(places):
                rest = FlowSchedule.explicit(schedule.sigmas[place:])
                end = _walk(model.transformer, path[index][None], of.text_BLD, of.null_BLD, rest)
                torch.testing.assert_close(end[0], path[-1], rtol=1e-4, atol=1e-5)
            whole = whole_clip(
                model.transformer,
                of.text_BLD,
                shape=shape,
                schedule=schedule,
                generator=generator_of(config.seed, "path", row),
                sampler="euler",
                guidance=2.0,
                negative_BLD=of.null_BLD,
            )
            torch.testing.assert_close(whole[0], path[-1], rtol=1e-4, atol=1e-5)


class _One:
    rank, size, leads = 0, 1, True


@torch.no_grad()
def _walk(
    model: object,
    x: torch.Tensor,
    text: torch.Tensor,
    null: torch.Tensor,
    schedule: FlowSchedule,
) -> torch.Tensor:
    from colibri.core.wan.transformer import velocity

    for index, sigma in enumerate(schedule.sigmas[:-1]):
        c, u = (velocity(model, x, sigma, words) for words in (text, null))
        x = x + (schedule.sigmas[index + 1] - sigma) * (u + 2.0 * (c - u))
    return x


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"guidance": GuidanceConfig(real=3.0)},
        {"regress": RegressConfig(steps=12)},
        {"pairs": PairsConfig(rows=5, shard_rows=2, batch=2, store="float16")},
    ],
)
def test_other_settings_make_other_paths(
    config: TrainConfig, tmp_path: Path, changes: dict[str, object]
) -> None:
    write_pairs(replace(config, out=tmp_path))
    other = replace(config, out=tmp_path, **changes)  # type: ignore[arg-type]
    assert write_pairs(other).made == 3
    assert write_pairs(other).made == 0


def test_the_loss_falls_and_only_rows_with_a_path_are_read(
    config: TrainConfig, tmp_path: Path
) -> None:
    """The student starts from the teacher's weights, which know nothing of blocks and of jumps."""
    run = replace(
        config,
        out=tmp_path,
        pairs=replace(config.pairs, folder=config.out / "pairs"),
        steps=40,
        batch=4,
        save_every=40,
        student=StudentConfig(lr=3e-3, ema=0.9),
    )
    train(run)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss/regress"] for line in lines]
    assert sum(losses[-8:]) < 0.5 * sum(losses[:8])
    assert "sample/rms" not in lines[0]  # no rollout for the log alone
    about = json.loads((tmp_path / "student" / "distill.json").read_text())
    assert about["rows"] == 5


def test_a_student_that_was_trained_on_other_paths_does_not_go_on(
    config: TrainConfig, tmp_path: Path
) -> None:
    run = replace(config, out=tmp_path, steps=1)
    train(run)
    before = _bytes(tmp_path / "pairs")
    with pytest.raises(UserError, match=r"is of a run with paths"):
        train(replace(run, steps=2, pairs=replace(config.pairs, rows=4)))
    with pytest.raises(UserError, match=r"is of a run with seed"):
        train(replace(run, steps=2, seed=1))
    assert _bytes(tmp_path / "pairs") == before
