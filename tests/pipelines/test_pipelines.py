"""The pipelines: one chain, three sets of params; run twice it gives the same bytes."""

import contextlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from colibri.core.hashing import hash_file
from colibri.testbed.embedded import DATA, TEACHER
from command_lines import check, words_of

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines"
TABLES = "tables"
ALL = sorted(path.parent.name for path in PIPELINES.glob("*/dvc.yaml"))
NAMES = [name for name in ALL if name != TABLES]
LARGE = [name for name in NAMES if name != "tiny"]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pipelines_run", PIPELINES / "run.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _commands(runner: ModuleType, name: str, out: Path, over: str | None = None) -> dict[str, str]:
    from dvc.repo import Repo

    runner.prepare(PIPELINES / name, out, over=over)
    with contextlib.chdir(out), Repo() as repo:
        return {stage: repo.stage.collect(stage)[0].cmd for stage in runner._ordered(repo)}


def _start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PIPELINES / "run.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _run(*arguments: str) -> tuple[int, str]:
    process = _start(*arguments)
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


def test_pipelines_differ_in_params_alone() -> None:
    assert NAMES == ["tiny", "wan21-1.3b-long", "wan22-5b"]
    assert len({(PIPELINES / name / "dvc.yaml").read_bytes() for name in NAMES}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_is_a_command_that_is_understood(
    name: str, runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = _commands(runner, name, tmp_path / name)
    assert {"curate", "encode", "decoder", "student", "quantize", "score"} <= commands.keys()
    for command in commands.values():
        for words in words_of(command):
            check(words, monkeypatch)


@pytest.mark.parametrize("name", LARGE)
def test_a_large_pipeline_can_be_planned_here(
    name: str,
    runner: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from colibri.distill.cli import main as distill
    from colibri.vae.cli import main as vae

    commands = _commands(runner, name, tmp_path / name)
    monkeypatch.chdir(tmp_path / name)

    def plan_of(stage: str) -> list[str]:
        words = runner.planned(shlex.split(commands[stage]), device="h200", offline=True)
        assert isinstance(words, list), words
        return words

    assert vae(plan_of("decoder")[1:]) == 0
    assert "TFLOP forward and backward in the decoder" in capsys.readouterr().out
    assert distill(plan_of("student")[1:]) in (0, 1)
    assert "on 16 x h200" in capsys.readouterr().out
    assert plan_of("curate")[:4] == ["curate", "plan", "--calibrate", "0"]
    assert "--offline" in runner.planned(shlex.split(commands["data"]), device="h200", offline=True)


def test_what_has_not_changed_is_not_done_again(tmp_path: Path) -> None:
    wanted = ("tiny", "--params", "test", "--out", str(tmp_path / "run"), "--stages", "data")
    status, said = _run(*wanted)
    assert status == 0, said
    assert "24 clips" in said
    before = hash_file(tmp_path / "run" / "data" / "world.csv")
    status, said = _run(*wanted)
    assert status == 0, said
    assert "unchanged" in said
    assert hash_file(tmp_path / "run" / "data" / "world.csv") == before


def test_checkpoints_of_a_finished_run_go_and_those_of_a_stopped_one_stay(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  decoder:\n    cmd: vae train\n")
    for stays in (False, True):
        Path("vae").mkdir()
        runner._clear("decoder")
        assert Path("vae").exists() == stays
    runner._clear("curate")
    assert "decoder" not in Path("dvc.lock").read_text()


def test_an_unknown_pipeline_is_refused_in_one_sentence() -> None:
    status, said = _run("huge")
    assert status == 2
    assert said == f"error: there is no pipeline 'huge'; one of {', '.join(ALL)}\n"


def test_an_unknown_stage_is_refused_in_one_sentence(tmp_path: Path) -> None:
    status, said = _run("tiny", "--out", str(tmp_path / "run"), "--stages", "bake")
    assert status == 2
    assert said.startswith("error: there is no stage 'bake'; one of inputs, data, curate")


@pytest.mark.slow
@pytest.mark.skipif(
    not (DATA / TEACHER / "model_index.json").is_file(), reason="the tiny models are not there"
)
def test_two_runs_in_different_folders_give_the_same_hashes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    stages = ("inputs", "data", "curate", "encode", "decoder", "student", "quantize")
    short = ("--stages", *stages, "generate@student", "score")
    processes = [
        _start("tiny", "--params", "test", "--out", str(folder), *more)
        for folder, more in zip(folders, ((), short), strict=True)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=900)
        assert process.returncode == 0, said

    def hashes(folder: Path) -> dict[str, str]:
        kept = ("curated/data", "encoded", "vae/decoder", "distill/student", "quantized")
        files = [path for part in kept for path in (folder / part).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): hash_file(path) for path in files}

    one, other = map(hashes, folders)
    assert one == other
    assert any(name.endswith(".parquet") for name in one)
    assert sum(name.endswith(".safetensors") for name in one) > 5
    scores = [json.loads((folder / "scores.json").read_text())["models"] for folder in folders]
    assert scores[0].keys() == {"teacher", "student", "light", "quantized"}
    assert scores[0]["student"] == scores[1]["student"]
    page = (folders[0] / "report.html").read_text()
    assert page.count("data:video/mp4") == sum(len(model["videos"]) for model in scores[0].values())
    _walk_back(folders[0])


def _walk_back(folder: Path) -> None:
    """From a video of the few-bit student to the rows that the student learned from."""
    from colibri.umbrella.lineage import Artefact, trace

    def kinds(found: Artefact) -> list[str]:
        return [found.kind, *(kind for link in found.parents for kind in kinds(link.parent))]

    video = sorted((folder / "videos" / "quantized").glob("*.mp4"))[0]
    assert kinds(trace(video, [folder])) == [
        *("video", "quantised model", "student", "model"),
        *("encodings", "shards", "data set"),
    ]
