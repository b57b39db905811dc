"""The small world: whole shapes, even ways, scenes held out of training."""

import subprocess
import sys

import numpy as np
from colibri.testbed.captions import terse
from colibri.testbed.render import coverage
from colibri.testbed.small import FPS, FRAMES, PLACES, part_of, small_clip, small_scene


def test_shapes_stay_inside_and_apart() -> None:
    for index in range(60):
        scene = small_scene(np.random.default_rng(index))
        for frame in (0, FRAMES // 2, FRAMES - 1):
            covers = [coverage(shape, frame / FPS, 64, 64) for shape in scene.shapes]
            for shape, cover in zip(scene.shapes, covers, strict=True):
                still = coverage(shape, 0.0, 64, 64).sum()
                assert abs(cover.sum() - still) < 0.03 * still
            assert len(covers) == 1 or np.minimum(*covers).max() == 0


def test_held_out_scenes_share_no_combination_with_training() -> None:
    train = [small_scene(np.random.default_rng([0, i]), part="train") for i in range(200)]
    held = [small_scene(np.random.default_rng([1, i]), part="held-out") for i in range(20)]
    assert {part_of(scene) for scene in train} == {"train"}
    assert {part_of(scene) for scene in held} == {"held-out"}


def test_every_background_is_drawn() -> None:
    scenes = [small_scene(np.random.default_rng(i)) for i in range(150)]
    assert {(s.background, s.background_colour) for s in scenes} == set(PLACES)


def test_a_clip_has_the_promised_form() -> None:
    clip = small_clip(small_scene(np.random.default_rng(0)))
    assert clip.shape == (FRAMES, 64, 64, 3)
    assert clip.dtype == np.uint8


def test_a_terse_caption_says_everything() -> None:
    for index in range(50):
        rng = np.random.default_rng(index)
        scene = small_scene(rng)
        text = terse(scene, rng)
        for shape in scene.shapes:
            assert f"{shape.colour} {shape.name}" in text
        if scene.background == "plain":
            assert scene.background_colour in text


def test_world_and_scorer_load_no_torch() -> None:
    code = "import sys, colibri.testbed.score, colibri.testbed.small; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
