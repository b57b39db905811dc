"""The scorer reads rendered clips without error and falls, in order, on planted damage."""

import itertools

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.testbed.score import Quality, Score, read, score
from colibri.testbed.small import small_clip, small_scene
from colibri.testbed.world import Scene, Shape
from numpy.typing import NDArray
from scipy import ndimage

Video = NDArray[np.uint8]

SCENES = [small_scene(np.random.default_rng([41, index])) for index in range(24)]
CLIPS = [small_clip(scene) for scene in SCENES]
MOVING = [i for i, scene in enumerate(SCENES) if all(s.motion != "still" for s in scene.shapes)]


def _scores(videos: list[Video], scenes: list[Scene] = SCENES) -> list[Score]:
    return [score(video, scene) for video, scene in zip(videos, scenes, strict=True)]


def _mean(scores: list[Score], name: str) -> float:
    return float(np.mean([getattr(one.quality, name) for one in scores]))


def _blurred(clip: Video, sigma: float) -> Video:
    return ndimage.gaussian_filter(clip.astype(np.float32), (0, sigma, sigma, 0)).astype(np.uint8)


def _ghosted(clip: Video, share: float) -> Video:
    copy = np.roll(clip, (13, -11), axis=(1, 2)).astype(np.float32)
    return ((1 - share) * clip + share * copy).astype(np.uint8)


def _flickering(clip: Video, size: float) -> Video:
    lift = size * (-1.0) ** np.arange(len(clip))
    return np.clip(clip + lift[:, None, None, None], 0, 255).astype(np.uint8)


def _fading(clip: Video, size: float) -> Video:
    lift = np.linspace(0, size, len(clip))
    return np.clip(clip + lift[:, None, None, None], 0, 255).astype(np.uint8)


def _with_seam(clip: Video, size: float) -> Video:
    half = clip.astype(np.float32)
    half[:, :, 32:] += size
    return np.clip(half, 0, 255).astype(np.uint8)


def test_rendered_clips_score_one() -> None:
    scores = _scores(CLIPS)
    assert all(one.right for one in scores)
    for name in Quality.__slots__:
        assert min(getattr(one.quality, name) for one in scores) > 0.97, name


@pytest.mark.parametrize(
    ("damage", "sizes", "name"),
    [
        (_blurred, (0.7, 1.5, 3.0), "sharpness"),
        (_ghosted, (0.08, 0.16, 0.3), "solidity"),
        (_flickering, (2.0, 6.0, 15.0), "steadiness"),
        (_flickering, (2.0, 6.0, 15.0), "background"),
        (_fading, (10.0, 30.0, 60.0), "drift"),
        (_with_seam, (8.0, 20.0, 40.0), "likeness"),
    ],
)
def test_more_damage_scores_less(damage, sizes, name: str) -> None:  # type: ignore[no-untyped-def]
    values = [1.0]
    for size in sizes:
        values.append(_mean(_scores([damage(clip, size) for clip in CLIPS]), name))
    assert all(after < before - 0.02 for before, after in itertools.pairwise(values))


def test_over_exposure_scores_less_than_the_rendered_clip() -> None:
    bright = [np.clip(clip * 1.5 + 30, 0, 255).astype(np.uint8) for clip in CLIPS]
    scores = _scores(bright)
    assert np.mean([one.total for one in scores]) < 0.9
    assert np.mean([one.semantic.colour for one in scores]) < 0.8


def test_a_frozen_clip_has_lost_its_direction_and_nothing_else() -> None:
    frozen = [np.repeat(CLIPS[i][:1], len(CLIPS[i]), axis=0) for i in MOVING]
    for one in _scores(frozen, [SCENES[i] for i in MOVING]):
        assert one.semantic.direction == 0
        assert one.semantic.shape == one.semantic.colour == one.semantic.background == 1


def test_a_reversed_clip_moves_the_other_way() -> None:
    backwards = [CLIPS[i][::-1] for i in MOVING]
    for one in _scores(backwards, [SCENES[i] for i in MOVING]):
        assert one.semantic.direction == 0


def test_each_wrong_attribute_costs_only_itself() -> None:
    shape = Shape(
        name="star", colour="red", radius=0.2, row=0.5, column=0.7, motion="left", speed=0.15
    )
    clip = small_clip(Scene(background="plain", background_colour="blue", shapes=(shape,)))

    def asked(**changes: str) -> Scene:
        values = {"name": "star", "colour": "red", "motion": "left", "ground": "blue"} | changes
        return Scene(
            background="plain",
            background_colour=values["ground"],
            shapes=(
                Shape(
                    name=values["name"],  # type: ignore[arg-type]
                    colour=values["colour"],
                    radius=0.2,
                    row=0.5,
                    column=0.5,
                    motion=values["motion"],  # type: ignore[arg-type]
                    speed=0.1,
                ),
            ),
        )

    assert score(clip, asked()).right
    for changed, lost in (
        ({"name": "circle"}, "shape"),
        ({"colour": "pink"}, "colour"),
        ({"motion": "up"}, "direction"),
        ({"ground": "green"}, "background"),
    ):
        semantic = score(clip, asked(**changed)).semantic
        assert getattr(semantic, lost) == 0
        assert semantic.mean == pytest.approx(0.8)


def test_a_missing_second_shape_costs_count_and_half_of_its_attributes() -> None:
    index = next(i for i, scene in enumerate(SCENES) if len(scene.shapes) == 2)
    scene = SCENES[index]
    alone = Scene(
        background=scene.background,
        background_colour=scene.background_colour,
        shapes=scene.shapes[:1],
    )
    semantic = score(small_clip(alone), scene).semantic
    assert (semantic.count, semantic.shape, semantic.colour) == (0, 0.5, 0.5)


def test_noise_is_nothing_known() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)
    assert read(noise).background is None
    assert score(noise, SCENES[0]).semantic.mean < 0.5


def test_reading_tells_where_things_are() -> None:
    seen = read(CLIPS[0])
    for thing in seen.things:
        truth = next(s for s in SCENES[0].shapes if s.colour == thing.colour)
        assert thing.radius == pytest.approx(truth.radius, rel=0.06)
        assert np.allclose(thing.track[0], (truth.row * 64, truth.column * 64), atol=0.8)


def test_another_form_of_video_is_refused() -> None:
    with pytest.raises(UserError, match="uint8"):
        read(np.zeros((4, 64, 64, 3), np.float32))  # type: ignore[arg-type]
