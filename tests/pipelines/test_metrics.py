"""Tools that judge full-size videos: what they write is read back into the tables' form."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from colibri.core.errors import UserError
from recipe_toys import write_clip

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "metrics"


@pytest.fixture(scope="module")
def metrics(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("pipelines/metrics/metrics.py")


def test_vbench_is_joined_by_its_own_weights(metrics: ModuleType) -> None:
    found = metrics.read_vbench(DATA / "vbench")
    # every dimension at the upper end of its range but two: motion_smoothness at the lower one,
    # weight 1 of 6.5, and colour at half, weight 1 of 9
    assert found["quality"] == pytest.approx(5.5 / 6.5)
    assert found["semantic"] == pytest.approx(8.5 / 9)
    assert found["total"] == pytest.approx((4 * 5.5 / 6.5 + 8.5 / 9) / 5)


def test_vbench_without_a_dimension_is_refused(metrics: ModuleType, tmp_path: Path) -> None:
    shutil.copy(DATA / "vbench" / "quality_eval_results.json", tmp_path)
    with pytest.raises(UserError, match="lacks object_class, multiple_objects"):
        metrics.read_vbench(tmp_path)


def test_vbench_i2v_gives_the_columns_of_its_table(metrics: ModuleType) -> None:
    found = metrics.read_vbench_i2v(DATA / "vbench_i2v")
    assert (found["subject"], found["background"]) == (0.9846, 0.9891)
    assert found["quality"] == pytest.approx(1.0)


def test_dover_is_the_mean_over_videos(metrics: ModuleType) -> None:
    found = metrics.read_dover(DATA / "dover.csv")
    assert found["dover"] == pytest.approx((80.0 + 90.0) / 2)
    assert found["dover_parts"]["videos"] == 2


@pytest.mark.parametrize("text", ["", "path, score\n", "{}"])
def test_what_is_no_output_is_refused(metrics: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "dover.csv").write_text(text)
    (tmp_path / "figures.json").write_text(text or "[]")
    (tmp_path / "a_eval_results.json").write_text(text or "[]")
    with pytest.raises(UserError):
        metrics.read_dover(tmp_path)
    with pytest.raises(UserError):
        metrics.read_vbench(tmp_path)


def test_tools_add_to_one_row(metrics: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "vae_table.full.json"
    metrics.record(path, "tiny-both/0", {"lpips": 0.026}, tool="lpips 0.1.4")
    metrics.record(path, "tiny-both/0", {"fvd": 2.5}, tool="fvd 0.1.1")
    found = json.loads(path.read_text())
    assert found["rows"] == {"tiny-both/0": {"lpips": 0.026, "fvd": 2.5}}
    assert found["settings"] == {"lpips": "0.1.4", "fvd": "0.1.1"}


def test_videos_are_called_after_the_prompt_of_the_person(
    metrics: ModuleType, tmp_path: Path
) -> None:
    black = np.zeros((5, 32, 32, 3), np.uint8)
    for name, seed in (("late", 7), ("early", 3)):
        write_clip(tmp_path / "made" / f"{name}.mp4", black, prompt="a cat, asleep", seed=seed)
    metrics.named(tmp_path / "made", tmp_path / "videos")
    for index, name in enumerate(("early", "late")):
        link = tmp_path / "videos" / f"a cat, asleep-{index}.mp4"
        assert link.resolve() == tmp_path / "made" / f"{name}.mp4"


@pytest.fixture
def call(
    metrics: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Status, output and errors of a command."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["metrics.py", *map(str, words)])
        status: int = metrics.main()
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("tool", ["vbench", "vbench-i2v", "dover", "lpips", "fvd"])
def test_a_plan_makes_an_environment_of_its_own_and_runs_nothing(
    tool: str, tmp_path: Path, call: Call
) -> None:
    places = ("--environments", tmp_path / "environments", "--work", tmp_path / "work")
    status, said, _ = call(tool, "--plan", "--against", "true", *places)
    assert status == 0
    lines = said.splitlines()
    assert lines[0].startswith("uv venv")
    assert lines[0].endswith(f"environments/{tool}")
    assert any("uv pip install" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_reading_back_fills_the_file_of_the_tables(tmp_path: Path, call: Call) -> None:
    status, _, errors = call(
        "dover", "--read", DATA / "dover.csv", "--row", "base", "--results", tmp_path
    )
    assert status == 0, errors
    found = json.loads((tmp_path / "long_tables.full.json").read_text())
    assert found["rows"]["base/0"]["dover"] == pytest.approx(85.0)


def test_a_missing_folder_is_refused_in_one_sentence(tmp_path: Path, call: Call) -> None:
    status, _, errors = call("vbench", "--read", tmp_path)
    assert status == 2
    assert errors == f"error: {tmp_path} holds no *_eval_results.json\n"
