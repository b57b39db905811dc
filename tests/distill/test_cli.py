"""The command line, and the shipped recipes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from colibri.core.shards import SHARD_SCHEMA, read_rows, write_shard
from colibri.distill import cli
from colibri.distill.config import GuidanceConfig
from colibri.distill.embedded import write_embedded
from colibri.distill.stages import read_stages


@pytest.mark.parametrize("recipe", sorted(cli.RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_are_valid(recipe: Path) -> None:
    for stage in read_stages(recipe).values():
        stage.check()


@pytest.mark.parametrize(
    "recipe", sorted(cli.RECIPES.glob("wan*.toml")), ids=lambda path: path.stem
)
def test_recipes_of_large_models_are_validated(recipe: Path) -> None:
    assert all(0 < stage.validate_every < stage.steps for stage in read_stages(recipe).values())


def test_each_value_of_the_5b_says_whose_it_is() -> None:
    lines = (cli.RECIPES / "wan22-5b.toml").read_text().splitlines()
    bare = [line for line in lines if " = " in line.split("#")[0] and "#" not in line]
    assert bare == ['teacher = "wan2.2-ti2v-5b"']


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from colibri.distill.cli import main\n"
        "for words in ([], ['train'], ['encode'], ['ode-pairs'], ['plan'], ['info']):\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit: pass\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_flags_sit_above_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "wan22-5b", "--critic.lr", "1e-6", "--size", "832x480"]
    assert cli.main(["train", *arguments, "--print-config"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["critic"]["lr"] == 1e-6
    assert shown["student"]["lr"] == 2e-6
    assert shown["size"] == [480, 832]


def test_an_unknown_key_gets_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[guidance]\nreel = 3.0\n")
    assert cli.main(["train", "--config", str(path)]) == 2
    assert "did you mean 'real'?" in capsys.readouterr().err
    assert cli.main(["train", "--config", "wan99"]) == 2
    assert "one of tiny, tiny-long, wan21-1.3b" in capsys.readouterr().err
    assert cli.main(["destill"]) == 2


def test_a_folder_of_a_recipes_name_is_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.recipe("tiny") == cli.RECIPES / "tiny.toml"


def test_progress_counts_rows_that_are_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard,) = (write_embedded(tmp_path / "whole", rows=4) / "data").iterdir()
    rows = [dict(row) for row in read_rows(shard)]
    rows[0]["caption"], rows[1]["image"] = None, {"bytes": b"no picture", "path": None}
    write_shard(tmp_path / "shards" / "data" / "00000.parquet", rows, SHARD_SCHEMA)
    told: list[int] = []
    monkeypatch.setattr(
        "colibri.core.progress.Progress.add",
        lambda self, done, *, refused, facts: told.append(refused),
    )
    flags = ["--shards", str(tmp_path / "shards"), "--out", str(tmp_path / "encoded")]
    flags += ["--model", folder, "--size", "32x32", "--shard-rows", "2", "--device", "cpu"]
    assert cli.main(["encode", *flags]) == 0
    assert "2 refused" in capsys.readouterr().out
    assert told == [2, 0]


def test_the_seeds_guidance_in_our_form() -> None:
    assert GuidanceConfig(form="extra").standard(6.0) == 7.0


def test_encode_train_info(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = str(write_embedded(tmp_path / "shards", rows=4))
    encoded, out = str(tmp_path / "encoded"), str(tmp_path / "run")
    common = ["--size", "32x32"]
    encode = ["encode", "--shards", shards, "--out", encoded, "--model", folder, *common]
    assert cli.main(encode) == 0
    assert "4 rows, 4 with a first frame, 0 refused" in capsys.readouterr().out
    flags = ["--teacher", folder, "--encoded", encoded, "--out", out, *common]
    flags += ["--frames", "5", "--steps", "2", "--batch", "1", "--device", "cpu"]
    assert cli.main(["train", *flags]) == 0
    assert f"student   {out}/student" in capsys.readouterr().out
    assert cli.main(["info", out]) == 0
    assert json.loads(capsys.readouterr().out)["steps_logged"] == 2
    assert cli.main(["info", f"{out}/student"]) == 0
    assert json.loads(capsys.readouterr().out)["cfg_free"] is True
    assert cli.main(["info", str(tmp_path)]) == 2


def test_plan_says_whether_it_fits(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["plan", "--teacher", folder, "--on", "h200", "--json"]
    assert cli.main(flags) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True
    assert cli.main(["train", "--teacher", folder, "--plan", "--device", "cpu"]) == 0
    assert "student optimiser" in capsys.readouterr().out
