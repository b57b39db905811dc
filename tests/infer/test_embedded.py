"""The command with nothing but a prompt, as a stranger first runs it."""

from pathlib import Path

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.core.video import read_frames
from colibri.infer.cli import main
from colibri.infer.config import ReplayConfig
from colibri.infer.models import find_model
from colibri.infer.recipe import read_video
from colibri.infer.replay import replay
from colibri.testbed.score import Reading, read

PROMPT = "a red circle moves left over a blue background"


@pytest.fixture(scope="module", autouse=True)
def embedded() -> None:
    try:
        find_model(None)
    except UserError as error:
        pytest.skip(error.message)


def test_a_prompt_alone_makes_a_video_and_says_by_which_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["t2v", "--prompt", PROMPT, "--device", "cpu", "--out", str(tmp_path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Model: the embedded tiny-ti2v-3step, a small test model")
    (seen,) = _seen(tmp_path).things
    assert (seen.colour, seen.motion) == ("red", "left")
    (video,) = tmp_path.glob("*.mp4")
    recipe, _ = read_video(video)
    assert recipe.model.source == "embedded:tiny-ti2v-3step"
    assert (recipe.flow.steps, recipe.guidance) == (3, 1.0)
    assert replay(video, ReplayConfig(device="cpu"), say=str).identical


def test_camera_words_are_taken_out_of_the_prompt_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "The video shows a red circle over a blue background. The camera zooms in."
    flags = ["--steps", "1", "--frames", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["t2v", "--prompt", prompt, *flags]) == 0
    assert "Prompt, rewritten by rules: A red circle" in capsys.readouterr().out
    (video,) = tmp_path.glob("*.mp4")
    recipe, _ = read_video(video)
    assert (recipe.prompt, recipe.recap) == (prompt, "rules")
    assert "camera" not in recipe.prompt_used


def test_a_long_video_comes_from_the_embedded_causal_student(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--seconds", "5", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["long", "--prompt", PROMPT, *flags]) == 0
    assert "Model: the embedded tiny-long" in capsys.readouterr().out
    assert [seen.colour for seen in _seen(tmp_path).things] == ["red"]


def _seen(folder: Path) -> Reading:
    """What the one video of `folder` shows."""
    (video,) = folder.glob("*.mp4")
    with video.open("rb") as file:
        return read(np.stack(list(read_frames(file))))
