"""Rough pictures on the way: right colours, no effect on the video, nothing left behind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from colibri.infer.config import T2vConfig
from colibri.infer.generate import Moment, generate
from colibri.infer.preview import LatentColours, fit_colours, picture
from numpy.typing import NDArray
from PIL import Image

MIXING = np.random.default_rng(1).normal(size=(5, 3))
OFFSET = np.array([0.2, -0.1, 0.4, 0.0, 0.3])


def linear_encoder(clip: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Five channels that are mixtures of the mean colour of 4 frames and 8x8 pixels."""
    frames, height, width, _ = clip.shape
    unit = clip.reshape(frames, height // 8, 8, width // 8, 8, 3).mean((2, 4)) / 255
    moments = np.stack([unit[0], unit[1:].mean(0)])
    return np.moveaxis(moments @ MIXING.T + OFFSET, -1, 0)


def test_the_colours_of_a_linear_encoder_are_found() -> None:
    colours = fit_colours(linear_encoder, time=4, space=8)
    rng = np.random.default_rng(2)
    clip = np.repeat(rng.integers(0, 256, (1, 2, 3, 3), dtype=np.uint8), 5, axis=0)
    large = clip.repeat(8, axis=1).repeat(8, axis=2)
    seen = colours.frames(torch.from_numpy(linear_encoder(large))[None])
    assert seen.shape == (2, 2, 3, 3)
    assert np.abs(seen.astype(int) - clip[:2]).max() <= 2


def test_a_picture_shows_the_beginning_and_the_end() -> None:
    frames = np.zeros((9, 4, 6, 3), np.uint8)
    frames[0, ..., 0], frames[-1, ..., 2] = 255, 255
    drawn = picture(frames)
    assert drawn.shape == (160, 4 * 240, 3)
    assert tuple(drawn[80, 5]) == (255, 0, 0)
    assert tuple(drawn[80, -5]) == (0, 0, 255)
    assert picture(frames[:1]).shape == (160, 240, 3)


def test_previews_come_as_asked_change_no_frame_and_go_with_the_render(
    ti2v: Path, tmp_path: Path
) -> None:
    config = T2vConfig(
        model=str(ti2v), prompt="a red circle", steps=5, guidance=1.0, frames=5, size=(32, 48),
        device="cpu", out=tmp_path / "plain",
    )  # fmt: skip
    (plain,) = generate(config, say=str)
    shown: list[tuple[int, NDArray[np.uint8]]] = []

    def watch(moment: Moment) -> None:
        if moment.preview:
            shown.append((moment.step, np.array(Image.open(moment.preview))))

    config = replace(config, preview=2, out=tmp_path / "seen")
    (seen,) = generate(config, say=str, watch=watch)
    assert seen.made.frames_sha256 == plain.made.frames_sha256
    assert seen.recipe.fingerprint == plain.recipe.fingerprint
    assert [step for step, _ in shown] == [2, 4]
    assert shown[0][1].shape == (160, 2 * 240, 3)
    assert not np.array_equal(shown[0][1], shown[1][1])
    assert {path.suffix for path in config.out.iterdir()} == {".mp4", ".json"}


def test_a_preview_that_cannot_be_written_is_said_once_and_the_video_is_made(
    ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("colibri.infer.preview.write_png", full)
    heard: list[str] = []
    config = T2vConfig(
        model=str(ti2v), prompt="a red circle", steps=3, guidance=1.0, frames=1, size=(32, 48),
        device="cpu", out=tmp_path, preview=1,
    )  # fmt: skip
    (made,) = generate(config, say=heard.append)
    assert made.video.is_file()
    assert heard.count("No preview: No space left on device.") == 1


def test_the_map_needs_no_more_than_its_shape_says() -> None:
    colours = LatentColours(matrix_CK=np.eye(3), bias_K=np.array([0.0, 0.5, 2.0]))
    seen = colours.frames(torch.zeros(1, 3, 1, 1, 1))
    assert seen.tolist() == [[[[0, 128, 255]]]]
