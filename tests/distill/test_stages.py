"""Recipes of several stages: one command, each stage resumed or skipped."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file
from colibri.core.wan.family import TINY_T2V
from colibri.core.wan.text import word_tokenizer
from colibri.distill import checkpoint, cli, setup
from colibri.distill.stages import Stages, read_stages, train_stages

FORK = multiprocessing.get_context("fork")

RECIPE = """
size = "32x32"
frames = 9
batch = 1
p_i2v = 0.0
save_every = 1
device = "cpu"

[causal]
first_block = 1
block = 1
sink = 1
window = 2

[regress]
steps = 3

[student]
lr = 1e-3
every = 2

[[stages]]
name = "start"
rollout = "blocks"
terms = ["regress"]
steps = 2

[stages.pairs]
rows = 3
shard_rows = 1

[[stages]]
name = "forcing"
rollout = "blocks"
steps = 2

[[stages]]
name = "long"
rollout = "stream"
steps = 3

[stages.student]
every = 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    return path


def _bytes(out: Path) -> dict[str, str]:
    found = {}
    for name in ("start", "forcing", "long"):
        newest = checkpoint.latest(out / name / "checkpoints")
        assert newest is not None
        for path in (*newest.iterdir(), out / name / "student/transformer/config.json"):
            found[f"{name}/{path.name}"] = hash_file(path)
    return found


def test_one_command_trains_every_stage_from_the_one_before_and_then_skips_them(
    recipe: Path, folder: str, encoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["train", "--config", str(recipe), "--teacher", folder, "--encoded", str(encoded)]
    command += ["--out", str(out)]
    assert cli.main(["ode-pairs", *command[1:]]) == 0
    assert "3 paths, 3 files made now" in capsys.readouterr().out
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"student   {out}/long/student\n")
    assert [wan.describe(out / n / "student")[0].causal is None for n in ("start", "long")] == [
        False,
        False,
    ]
    before = _bytes(out)
    held = {
        name: checkpoint.read_tensors(
            checkpoint.latest(out / name / "checkpoints"),  # type: ignore[arg-type]
            world=_One(),  # type: ignore[arg-type]
        )
        for name in ("start", "forcing", "long")
    }
    weight = "blocks.0.attn1.to_q.weight"
    assert len({held[name][f"ema/{weight}"].sum().item() for name in held}) == 3
    assert cli.main(command) == 0
    again = capsys.readouterr().out
    assert [f"stage {name}: done" in again for name in ("start", "forcing", "long")] == [True] * 3
    assert "step 0" not in again
    assert _bytes(out) == before

    # killed while paths are made, and in every stage at a step that no checkpoint holds
    other = tmp_path / "other"
    stages = read_stages(
        recipe, ["--teacher", folder, "--encoded", str(encoded), "--out", str(other)]
    )
    for where in ("paths", "start", "forcing", "long"):
        process = FORK.Process(target=_train_until_killed, args=(stages, where))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        if where == "paths":
            assert len(list((other / "pairs").glob("*.safetensors"))) == 1
    train_stages(stages, say=str)
    assert _bytes(other) == before

    # a first stage that is made anew refuses what stood on it
    stages["start"] = replace(stages["start"], steps=3)
    with pytest.raises(UserError, match=r"forcing.* is of a run with started_from"):
        train_stages(stages, say=str)


class _One:
    rank, size = 0, 1


def _train_until_killed(stages: Stages, where: str) -> None:
    stage = ""

    def say(line: str) -> None:
        nonlocal stage
        if line.startswith("stage "):
            stage = line.split()[1].rstrip(":")
        if stage == where and line.startswith("step 1 "):
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "paths":
        setup._say_pairs = lambda done, found: os.kill(os.getpid(), signal.SIGKILL)
    train_stages(stages, say=say)


def test_a_teacher_of_the_older_layout_and_a_start_without_files_of_paths(
    recipe: Path, tmp_path: Path
) -> None:
    """Wan2.1's layout, and causal consistency on real clips of the embedded world."""
    small = dict(TINY_T2V.transformer) | {"num_layers": 1, "num_attention_heads": 1}
    family = replace(TINY_T2V, transformer=small, vae=dict(TINY_T2V.vae) | {"base_dim": 4})
    wan.save(wan.build(family, seed=0, tokenizer=word_tokenizer(["a"])), tmp_path / "teacher")
    given = ["--teacher", str(tmp_path / "teacher"), "--out", str(tmp_path / "out")]
    flags = ["terms", "consistency", "consistency.of", "clips", "pairs.rows", "0", "steps", "1"]
    given += [f"--stages.start.{a}" if n % 2 == 0 else a for n, a in enumerate(flags)]
    setup.EMBEDDED_ROWS, rows = 4, setup.EMBEDDED_ROWS
    try:
        folder = train_stages(read_stages(recipe, given), say=str)
    finally:
        setup.EMBEDDED_ROWS = rows
    assert folder is not None
    assert wan.describe(folder)[0].name == "tiny-t2v"
    assert not (tmp_path / "out" / "pairs").exists()


def test_flags_are_for_all_stages_or_for_one(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--seed", "5", "--stages.forcing.steps", "9", "--stages.long.stream.rounds=4"]
    assert cli.main(["train", "--config", str(recipe), *flags, "--print-config"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {name: one["seed"] for name, one in shown.items()} == dict.fromkeys(shown, 5)
    assert [one["steps"] for one in shown.values()] == [2, 9, 3]
    assert shown["long"]["stream"]["rounds"] == 4
    assert shown["long"]["student"] == shown["forcing"]["student"] | {"every": 1}


def test_a_flag_means_the_same_with_stages_and_without(recipe: Path) -> None:
    plain = recipe.with_name("plain.toml")
    plain.write_text("frames = 9\n")
    starts = [
        config.start
        for toml in (plain, recipe)
        for config in read_stages(toml, ["--start", "None"]).values()
    ]
    assert starts == [Path("None")] * 4


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        ("", ["--stages.nope.steps", "1"], "has no stage 'nope'.*start, forcing, long"),
        ("", ["--stages.long", "1"], "names no setting"),
        ("[[stages]]\nsteps = 1\n", [], "a stage needs a name"),
        ('[[stages]]\nname = "long"\n', [], "two stages are named 'long'"),
        ('[[stages]]\nname = "x"\nstepz = 1\n', [], "stage x: unknown key 'stepz'.*'steps'"),
        ('[[stages]]\nname = "x"\nout = "there"\n', [], "all stages lie in one --out"),
    ],
)
def test_bad_stages_are_refused_in_a_sentence(
    recipe: Path, text: str, flags: list[str], message: str
) -> None:
    recipe.write_text(RECIPE + text)
    with pytest.raises(UserError, match=message):
        read_stages(recipe, flags)


def test_a_bad_value_names_its_stage(recipe: Path) -> None:
    stages = read_stages(recipe, ["--stages.forcing.steps", "0"])
    with pytest.raises(UserError, match="stage forcing: --steps has to be at least 1"):
        train_stages(stages)


def test_the_plan_is_by_stage(
    recipe: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["plan", "--config", str(recipe), "--teacher", folder, "--on", "h200"]
    assert cli.main(flags) == 0
    shown = capsys.readouterr().out
    assert shown.count("stage ") == 3
    assert cli.main([*flags, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert list(plans) == ["start", "forcing", "long"]
    assert all(plan["fits"] for plan in plans.values())
