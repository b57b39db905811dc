"""The rendered world: what is drawn is what the scene says."""

import numpy as np
import pytest
from colibri.testbed.captions import camera_heavy, first_person, long, plain, short
from colibri.testbed.render import coverage, render
from colibri.testbed.world import (
    COLOURS,
    DIRECTION,
    MOTIONS,
    SHAPES,
    Motion,
    Scene,
    Shape,
    ShapeName,
    centre,
    random_scene,
)


def _shape(name: ShapeName = "circle", motion: Motion = "right") -> Shape:
    return Shape(name=name, colour="red", radius=0.2, row=0.5, column=0.4, motion=motion, speed=0.2)


def _centroid(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.indices(mask.shape)
    return float((rows * mask).sum() / mask.sum()), float((columns * mask).sum() / mask.sum())


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_its_colour_where_it_covers(name: ShapeName) -> None:
    scene = Scene(background="plain", background_colour="blue", shapes=(_shape(name),))
    frame = next(render(scene, frames=1, height=64, width=64))
    inside = coverage(_shape(name), 0, 64, 64) == 1
    assert inside.sum() > 100
    assert (frame[inside] == COLOURS["red"]).all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_shape_moves_as_it_says(motion: Motion) -> None:
    shape = _shape(motion=motion)
    first = _centroid(coverage(shape, 0, 96, 96))
    later = _centroid(coverage(shape, 0.5, 96, 96))
    way = np.subtract(later, first)
    assert np.allclose(way, np.multiply(DIRECTION[motion], 0.2 * 0.5 * 96), atol=0.6)


def test_the_area_of_a_circle_is_exact_to_its_smooth_edge() -> None:
    mask = coverage(_shape(), 0, 200, 200)
    assert mask.sum() == pytest.approx(np.pi * 40**2, rel=0.01)


def test_a_shape_turns_back_at_the_edge() -> None:
    for second in range(60):
        row, column = centre(_shape(), float(second), 64, 96)
        assert 12 <= row <= 52
        assert 12 <= column <= 84


def test_the_same_seed_gives_the_same_pixels_and_words() -> None:
    def make() -> tuple[bytes, str]:
        rng = np.random.default_rng(4)
        scene = random_scene(rng)
        frame = next(render(scene, frames=1, height=64, width=64))
        return frame.tobytes(), long(scene, rng)

    assert make() == make()


@pytest.mark.parametrize("style", [short, plain, long, camera_heavy, first_person])
def test_every_caption_names_shape_and_colour(style: object) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = random_scene(rng)
        text = style(scene, rng)  # type: ignore[operator]
        assert scene.shapes[0].name in text
        assert scene.shapes[0].colour in text
