"""Upscaling and interpolation: what is written, what is recorded, and one's own."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.infer.cli import main
from colibri.infer.config import DecodeConfig, ReplayConfig
from colibri.infer.finish import decode_file
from colibri.infer.frame_steps import blend, lanczos
from colibri.infer.generate import generate
from colibri.infer.image import Frame
from colibri.infer.recipe import read_video
from colibri.infer.replay import replay
from infer_toys import own_module, quiet, settings

OWN = """
import numpy as np

def larger(frames):
    for frame in frames:
        yield np.kron(frame, np.ones((4, 4, 1), np.uint8))

def odd(frames):
    for frame in frames:
        yield frame[1:]

def none_between(frames):
    yield from frames
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_module("my_steps", OWN, tmp_path, monkeypatch)


def shape_of(video: Path) -> tuple[int, int, int, float]:
    """Frames, width, height and frames a second."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return stream.frames, stream.width, stream.height, float(stream.average_rate)


def test_lanczos_doubles_a_frame_and_keeps_a_plain_colour() -> None:
    plain = np.full((4, 6, 3), (10, 200, 30), np.uint8)
    (large,) = lanczos(iter([plain]))
    assert large.shape == (8, 12, 3)
    assert (large == plain[0, 0]).all()


def test_blend_puts_the_mean_between_two_frames() -> None:
    frames = [np.full((2, 2, 3), value, np.uint8) for value in (0, 101, 255)]
    assert [int(frame[0, 0, 0]) for frame in blend(iter(frames))] == [0, 51, 101, 178, 255]


def test_frames_stream_through_one_by_one() -> None:
    taken: list[int] = []

    def frames() -> Iterator[Frame]:
        for index in range(9):
            taken.append(index)
            yield np.zeros((2, 2, 3), np.uint8)

    stream = lanczos(blend(frames()))
    next(stream)
    next(stream)
    assert taken == [0, 1]


def test_the_video_is_larger_and_smoother_and_its_recipe_says_so(
    ti2v: Path, tmp_path: Path
) -> None:
    heard: list[str] = []
    config = settings(ti2v, tmp_path, upscale=("lanczos",), interpolate=("blend", "blend"))
    (one,) = generate(config, say=heard.append)
    recipe, _ = read_video(one.video)
    fps = recipe.fps
    *shape, shown = shape_of(one.video)
    assert (shape, shown) == ([17, 96, 64], pytest.approx(4 * fps, rel=1e-3))
    assert [use.name for use in recipe.interpolate] == ["blend", "blend"]
    assert [use.name for use in recipe.upscale] == ["lanczos"]
    assert (recipe.frames, recipe.width) == (5, 48)
    said = f"interpolated by blend, blend to {4 * fps} frames/s and enlarged by lanczos"
    assert any(said in line for line in heard)
    (plain,) = generate(settings(ti2v, tmp_path), say=quiet)
    assert plain.video != one.video
    assert plain.made.frames_sha256 == one.made.frames_sha256  # of the frames as decoded
    found = replay(one.video, ReplayConfig(device="cpu"), say=quiet)
    assert found.text().startswith("Identical: 5 frames as decoded")


def test_decode_enlarges_what_was_rendered_before(ti2v: Path, tmp_path: Path) -> None:
    (one,) = generate(settings(ti2v, tmp_path, keep_latents=True), say=quiet)
    config = DecodeConfig(device="cpu", out=tmp_path / "large.mp4", upscale=("lanczos",))
    video = decode_file(one.video.with_suffix(".latents.safetensors"), config, say=quiet)
    assert shape_of(video)[:3] == (5, 96, 64)


def test_ones_own_step_is_used_and_its_file_is_in_the_recipe(
    own: Path, ti2v: Path, tmp_path: Path
) -> None:
    config = settings(ti2v, tmp_path, upscale=("my_steps:larger",), keep_latents=True)
    (one,) = generate(config, say=quiet)
    assert shape_of(one.video)[:3] == (5, 192, 128)
    (use,) = one.recipe.upscale
    assert use.sha256
    own.write_text(OWN + "\n# changed\n")
    again = DecodeConfig(device="cpu", out=tmp_path / "again.mp4")
    with pytest.raises(UserError, match="not what it was when the render began"):
        decode_file(one.video.with_suffix(".latents.safetensors"), again, say=quiet)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--upscale", "magic"], "there is no --upscale magic; lanczos, or MODULE:NAME"),
        (["--interpolate", "rife"], "there is no --interpolate rife; blend, or MODULE:NAME"),
        (["--upscale", "no_such_module:x"], "cannot be imported"),
        (["--upscale", "my_steps:np"], "is no function of a stream of frames"),
        (["--upscale", "my_steps:odd"], "gave 48x31; a video's size is even"),
        (["--interpolate", "my_steps:none_between"], "gave 5 frames; with one between each two"),
    ],
)
def test_a_step_that_cannot_be_is_one_sentence(
    flags: list[str],
    said: str,
    own: Path,
    ti2v: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = ["--prompt", "a", "--model", str(ti2v), "--device", "cpu", "--out", str(tmp_path)]
    plain += ["--steps", "1", "--guidance", "1", "--frames", "5", "--size", "48x32"]
    assert main(["t2v", *plain, *flags]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert said in told
    assert not list(tmp_path.glob("*.mp4"))
