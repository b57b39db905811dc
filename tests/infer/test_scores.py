"""Scores of videos: what a prompt of the small world asks for, and what stands beside a video."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from colibri.core.schedule import FlowSchedule
from colibri.core.video import write_video
from colibri.infer.cli import main
from colibri.infer.gallery import write_gallery
from colibri.infer.recipe import Made, ModelUse, Recipe, metadata, read_video, to_json
from colibri.infer.scores import read_scores, scene_of, scene_of_recipe
from colibri.testbed import captions
from colibri.testbed.small import small_clip, small_scene
from colibri.testbed.world import Scene

RECIPE = Recipe(
    prompt="", prompt_used="", recap="off", negative_prompt="", seed=0, width=64, height=64,
    frames=17, fps=8, sampler="unipc", guidance=1.0, schedule=FlowSchedule.unipc(2, 3.0).to_json(),
    dtype="float32", vae_dtype="float32", image=None, image_sha256=None, loras=(), attention=None,
    compile=False, model=ModelUse(
        source="x", revision=None, family="tiny-ti2v", text_encoder="a", transformer="b", vae="c"
    ),
)  # fmt: skip
MADE = Made(frames_sha256="d", decode="whole", device="CPU", threads=1, versions={})


def _asked(scene: Scene | None) -> object:
    if scene is None:
        return None
    place = scene.background_colour if scene.background == "plain" else scene.background
    return place, [(shape.name, shape.colour, shape.motion) for shape in scene.shapes]


def test_a_prompt_of_the_small_world_gives_back_its_scene() -> None:
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scene = small_scene(rng)
        for form in (captions.terse, captions.plain):
            assert _asked(scene_of(form(scene, rng))) == _asked(scene)


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat runs over a green meadow",
        "a red circle moves left",
        "a red circle moves left and explodes over the sea",
        "a red circle moves left over a blue background and a meadow",
        "a red dog moves left over the sea",
        "a red circle moves left and a blue star rises and a pink star falls over the sea",
        "",
    ],
)
def test_a_prompt_that_says_more_or_less_is_not_scored(prompt: str) -> None:
    assert scene_of(prompt) is None


def test_only_videos_of_the_tiny_models_are_scored() -> None:
    asked = replace(RECIPE, prompt="I see it", prompt_used="A red circle moves left over the sea.")
    assert _asked(scene_of_recipe(asked)) == ("sea", [("circle", "red", "left")])
    large = replace(asked, model=replace(asked.model, family="wan2.2-ti2v-5b"))
    assert scene_of_recipe(large) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A right video, a wrong one, and one of another prompt."""
    rng = np.random.default_rng(1)
    scene = small_scene(rng)
    wrong = replace(scene, shapes=(replace(scene.shapes[0], colour="pink"), *scene.shapes[1:]))
    for name, asked in (("right", scene), ("wrong", wrong), ("other", None)):
        prompt = captions.terse(asked, rng) if asked else "a cat"
        recipe = replace(RECIPE, prompt=prompt)
        video = tmp_path / f"{name}.mp4"
        about = metadata(recipe, MADE)
        write_video(video, list(small_clip(scene)), fps=Fraction(8), metadata=about)
        (tmp_path / f"{name}.json").write_text(json.dumps(to_json(recipe, MADE)))
    return tmp_path


def test_a_gallery_scores_what_it_can_and_keeps_it_beside_the_video(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'class="scores"' not in write_gallery(folder).read_text()
    assert main(["gallery", str(folder), "--score"]) == 0
    page = Path(capsys.readouterr().out.strip()).read_text()
    assert page.count('class="scores"') == 2
    found = {path.stem: read_scores(path, read_video(path)[0]) for path in folder.glob("*.mp4")}
    right, wrong = found["right"], found["wrong"]
    assert right is not None
    assert wrong is not None
    assert right.main["semantic"] == 1.0
    assert right.main["quality"] > 0.9
    assert wrong.parts["semantic parts"]["colour"] < 1.0 == wrong.parts["semantic parts"]["shape"]
    assert found["other"] is None
    mean = (right.main["semantic"] + wrong.main["semantic"]) / 2
    assert f"semantic {mean:.3f} of 2" in page
    assert write_gallery(folder).read_text() == page  # read again, not measured again


def test_scores_of_another_tool_are_shown_and_those_of_another_video_are_not(folder: Path) -> None:
    beside, recipe = folder / "other.json", read_video(folder / "other.mp4")[0]
    table = json.loads(beside.read_text())
    scores = {"by": "vbench <b>", "total": 0.83, "bad": float("nan"), "flag": True, "none": "x"}
    beside.write_text(json.dumps(table | {"scores": scores}))
    found = read_scores(folder / "other.mp4", recipe)
    assert found is not None
    assert (found.by, found.main, found.parts) == ("vbench <b>", {"total": 0.83}, {})
    page = write_gallery(folder).read_text()
    assert "total 0.83" in page
    assert "vbench &lt;b&gt;" in page
    beside.write_text(json.dumps(table | {"scores": scores, "fingerprint": "0"}))
    assert read_scores(folder / "other.mp4", recipe) is None
    beside.write_text("[1]")
    assert read_scores(folder / "other.mp4", recipe) is None
