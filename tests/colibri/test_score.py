"""Videos of several models side by side: their scores, and the page."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole
from colibri.core.video import write_video
from colibri.infer.gallery import write_gallery
from colibri.infer.recipe import PluginUse, metadata, read_video
from colibri.infer.scores import read_scores, scene_of
from colibri.testbed.small import small_clip
from colibri.umbrella.cli import main
from colibri.umbrella.report import ReportConfig, write_report
from colibri.umbrella.score import ScoreConfig, text, write_scores
from recipe_toys import write_clip

PROMPT = "a red circle stays still over a blue background"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a right video by one model, an empty one by another, and one of real things."""
    scene = scene_of(PROMPT)
    assert scene
    right = small_clip(scene)
    write_clip(tmp_path / "videos" / "teacher" / "a.mp4", right, prompt=PROMPT)
    write_clip(tmp_path / "videos" / "student" / "a.mp4", np.zeros_like(right), prompt=PROMPT)
    return tmp_path


def test_a_right_video_scores_higher_than_an_empty_one(run: Path) -> None:
    table = write_scores(ScoreConfig(videos=run / "videos", out=run / "scores.json"))
    teacher, student = (table["models"][name]["mean"] for name in ("teacher", "student"))
    assert teacher["semantic"] == 1.0
    assert teacher["total"] > student["total"]
    assert json.loads((run / "scores.json").read_text()) == table
    assert "teacher" in text(table)


def test_scores_of_another_tool_are_read(run: Path) -> None:
    path = run / "videos" / "teacher" / "b.mp4"
    write_clip(path, np.zeros((2, 64, 64, 3), np.uint8), prompt="a fox in snow")
    recipe, _ = read_video(path)
    scores = {"by": "another", "quality": 0.5}
    write_json_whole(
        path.with_suffix(".json"), {"fingerprint": recipe.fingerprint, "scores": scores}
    )
    table = write_scores(ScoreConfig(videos=run / "videos", out=run / "scores.json"))
    videos = table["models"]["teacher"]["videos"]
    assert [video["scores"] for video in videos if video["file"] == "b.mp4"] == [{"quality": 0.5}]


def test_the_score_is_that_of_a_gallery_and_both_leave_enlarged_frames_alone(run: Path) -> None:
    folder = run / "videos" / "teacher"
    recipe, made = read_video(folder / "a.mp4")
    larger = replace(recipe, upscale=(PluginUse(name="lanczos", sha256=None),))
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    about = metadata(larger, made)
    write_video(folder / "b.mp4", iter(frames), fps=Fraction(8), metadata=about)
    (folder / "c.growing.mp4").write_bytes(b"half")
    table = write_scores(ScoreConfig(videos=run / "videos", out=run / "scores.json"))
    found = {video["file"]: video["scores"] for video in table["models"]["teacher"]["videos"]}
    write_gallery(folder, score=True)
    there = read_scores(folder / "a.mp4", recipe)
    assert there is not None
    assert found == {"a.mp4": there.main, "b.mp4": {}}


def test_the_page_holds_every_video_and_loads_nothing(run: Path) -> None:
    write_clip(
        run / "videos" / "student" / "c.mp4",
        np.zeros((2, 64, 64, 3), np.uint8),
        prompt="<script>alert(1)</script>",
    )
    write_scores(ScoreConfig(videos=run / "videos", out=run / "scores.json"))
    page = write_report(ReportConfig(folder=run, out=run / "page.html")).read_text()
    assert page.count("data:video/mp4;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert "<!--" not in page


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--folder", str(tmp_path)]) == 2
    assert "run colibri score there first" in capsys.readouterr().err
    assert main(["score", "--videos", str(tmp_path / "none")]) == 2
    assert "check --videos" in capsys.readouterr().err
    (tmp_path / "teacher").mkdir()
    assert main(["score", "--videos", str(tmp_path), "--out", "/proc/nothing/x.json"]) == 2
    assert "nothing can be written to /proc/nothing" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no video"):
        write_scores(ScoreConfig(videos=tmp_path, out=tmp_path / "scores.json"))
    assert main(["world", "--clips", "0"]) == 2
    assert "--clips has to be at least 1" in capsys.readouterr().err
    assert main(["inputs", "--out", "x.txt"]) == 2
