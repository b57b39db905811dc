"""The published tables: read from files of figures, compared with what was published."""

import contextlib
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PUBLISHED = tomllib.loads((ROOT / "pipelines" / "tables" / "published.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def tables(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("pipelines/tables/tables.py")


@pytest.fixture(scope="module")
def published_tables(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("benchmarks/published_tables.py")


def _t2v(figures: dict[str, tuple[float, ...]], **more: Any) -> dict[str, Any]:
    rows = {
        f"{row}/{seed}": {"quality": value, "semantic": value, "total": value}
        for row, values in figures.items()
        for seed, value in enumerate(values)
    }
    return {"date": "2026-01-01", "machine": "here", "settings": {}, "rows": rows, **more}


def _page(tables: ModuleType, folder: Path, **files: dict[str, Any]) -> str:
    for name, found in files.items():
        path = folder / f"{name.replace('_full', '.full')}.json"
        path.write_text(json.dumps(found), encoding="utf-8")
    text: str = tables.markdown(list(tables.page(folder, PUBLISHED)))
    return text


def test_a_table_without_figures_names_its_command_and_shows_the_seeds(
    tables: ModuleType, tmp_path: Path
) -> None:
    text = _page(tables, tmp_path)
    assert text.count("Not run. This makes it:") == len(tables.TABLES)
    assert "python benchmarks/published_tables.py t2v --seeds 0,1,2" in text
    assert "| Hummingbird-XT, with recap | 85.71 | 72.33 | 83.03 |" in text


def _plans(
    script: Callable[[str], ModuleType],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Run a command of ours with --plan, in this process."""
    monkeypatch.setattr(sys, "argv", [words[0], *words[1:], "--plan"])
    script(words[0]).main()
    assert "rows" in capsys.readouterr().out


def test_commands_that_make_the_tables_are_understood(
    tables: ModuleType,
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for table in tables.TABLES:
        _plans(script, shlex.split(table.command)[1:], monkeypatch, capsys)


def test_our_figure_stands_beside_the_published_one_with_its_range(
    tables: ModuleType, tmp_path: Path
) -> None:
    text = _page(tables, tmp_path, t2v=_t2v({"teacher-raw": (0.5, 0.7)}))
    (line,) = [line for line in text.splitlines() if line.startswith("| teacher, without recap")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[1] == "60.00 (50.00 to 70.00)"
    assert cells[4:] == ["2", "82.75", "68.38", "79.88", "Wan-2.2-5B, without recap"]


def test_the_same_order_agrees_and_the_reverse_does_not(tables: ModuleType, tmp_path: Path) -> None:
    # total, published: student-raw < teacher-raw < teacher-recap < student-recap
    rising = ("student-raw", "teacher-raw", "teacher-recap", "student-recap")
    same = _t2v({row: (index / 10,) for index, row in enumerate(rising)})
    text = _page(tables, tmp_path, t2v=same)
    assert "Total: 6 of 6 pairs in the published order." in text
    assert "One seed only" in text
    text = _page(tables, tmp_path, t2v=_t2v({row: (-i / 10,) for i, row in enumerate(rising)}))
    assert "Total: 0 of 6 pairs in the published order (not " in text


def test_a_difference_within_the_spread_of_seeds_is_not_counted(
    tables: ModuleType, tmp_path: Path
) -> None:
    figures = {"teacher-raw": (0.4, 0.6), "teacher-recap": (0.5, 0.7)}
    text = _page(tables, tmp_path, t2v=_t2v(figures))
    assert "Total: 0 of 0 pairs in the published order, 1 within the spread of seeds" in text
    assert "Ours decide nothing" in text


def test_full_size_rows_stand_beside_the_small_ones(tables: ModuleType, tmp_path: Path) -> None:
    full = _t2v({"student-recap": (0.8571,), "FastWan": (0.8,)})
    text = _page(tables, tmp_path, t2v=_t2v({"student-recap": (0.9,)}), t2v_full=full)
    assert "| student, with recap | 90.00 |" in text
    assert "| student, with recap, full size | 85.71 |" in text
    assert "| FastWan, full size | 80.00 |" in text


def test_a_row_without_its_model_says_why(tables: ModuleType, tmp_path: Path) -> None:
    why = {"student-raw": "this installation holds no embedded model"}
    text = _page(tables, tmp_path, t2v=_t2v({"teacher-raw": (0.5,)}, missing=why))
    assert "student, without recap: not run, this installation holds no embedded model." in text


def test_the_speed_up_is_computed(tables: ModuleType, tmp_path: Path) -> None:
    rows = {f"{row}/0": {"total_s": s} for row, s in (("teacher", 8.0), ("student-light", 0.5))}
    text = _page(tables, tmp_path, runtime={"date": "2026-01-01", "rows": rows})
    assert "Ours is 16.0 times faster than its teacher, the published one 29.8 (mi300x)" in text


def test_a_claim_is_held_against_our_rows(tables: ModuleType) -> None:
    def said(kept: float) -> str:
        rows = {"base": [{"kept": 0.9}], "no-sink": [{"kept": kept}]}
        return next(tables.claims("long_tables", rows, PUBLISHED["claims"]))

    assert "ours agree; kept 0.9 (base) against 0.5 (no-sink), 1 seed." in said(0.5)
    assert "ours do not agree" in said(0.95)
    assert "ours do not decide it" in said(0.9)
    (first, *_) = tables.claims("long_tables", {"base": [{"kept": 0.9}]}, PUBLISHED["claims"])
    assert "not run (base and no-sink are needed)" in first


def test_the_web_page_loads_nothing(tables: ModuleType, tmp_path: Path) -> None:
    text = tables.web(list(tables.page(tmp_path, PUBLISHED)))
    assert not any(word in text for word in ("src=", "href=", "@import", "url("))


@pytest.mark.parametrize("name", ["pipelines/tables/tables.py", "benchmarks/summary.py"])
def test_pages_of_results_are_what_the_files_say(name: str) -> None:
    command = [sys.executable, str(ROOT / name), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_stage_of_the_tables_can_be_planned(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dvc.repo import Repo

    runner = script("pipelines/run.py")
    runner.prepare(ROOT / "pipelines" / "tables", tmp_path, over="test")
    with contextlib.chdir(tmp_path), Repo() as repo:
        commands = [shlex.split(repo.stage.collect(name)[0].cmd) for name in runner._ordered(repo)]
    assert commands[-1][:2] == ["python", "tables.py"]
    for words in commands[1:-1]:
        assert runner.planned(words, device="h200", offline=True) == [*words, "--plan"]
        assert (tmp_path / words[1]).is_file()
        _plans(script, words[1:], monkeypatch, capsys)


# ---- what stands behind tables 1 and 2 ----


def test_prompts_are_rewritten_only_where_they_break_a_rule(published_tables: ModuleType) -> None:
    told = published_tables.asked_for(8)
    assert {one.style for one in told} == set(published_tables.STYLES)
    for one in told:
        assert (one.prompt != one.rewritten) == (one.style != "terse"), one.prompt


def test_a_prompt_about_one_shape_is_scored_on_that_shape(published_tables: ModuleType) -> None:
    told = published_tables.asked_for(32)
    assert any(len(one.scene.shapes) == 2 for one in told)
    assert all(
        len(one.scene.shapes) == 1 for one in told if one.style in published_tables.ONE_SHAPE
    )


def test_a_rendered_clip_keeps_its_first_frame(published_tables: ModuleType) -> None:
    from colibri.testbed.small import small_clip
    from colibri.testbed.train.family import held_out_scenes

    for scene in held_out_scenes(4):
        video = small_clip(scene)
        subject, background = published_tables.consistency(video, video[0], scene)
        assert subject > 0.99
        assert background > 0.99


def test_a_subject_of_another_colour_and_a_brighter_background_are_seen(
    published_tables: ModuleType,
) -> None:
    from colibri.testbed.small import small_clip
    from colibri.testbed.train.family import held_out_scenes

    scene = next(one for one in held_out_scenes(20) if len(one.shapes) == 1)
    (shape,) = scene.shapes
    video = small_clip(scene)
    other = replace(scene, shapes=(replace(shape, colour="green"),))
    assert shape.colour != "green"
    subject, background = published_tables.consistency(small_clip(other), video[0], scene)
    assert subject < 0.8
    assert background > 0.99
    brighter = np.clip(video.astype(int) + 30, 0, 255).astype(np.uint8)
    assert published_tables.consistency(brighter, video[0], scene)[1] < 0.95


def test_a_subject_that_is_not_there_counts_nothing(published_tables: ModuleType) -> None:
    from colibri.testbed.small import small_clip
    from colibri.testbed.train.family import held_out_scenes

    scene = held_out_scenes(1)[0]
    empty = small_clip(replace(scene, shapes=()))
    assert published_tables.consistency(empty, small_clip(scene)[0], scene)[0] == 0
