"""First frames: upright, never squashed, few bytes read, troubles noted."""

import io
from pathlib import Path

import numpy as np
import pytest
from colibri.core.clip import VideoRef
from colibri.core.errors import RowError
from colibri.core.video import write_video
from colibri.curate.frames import FirstFrame, FrameConfig, buckets, first_frame, fit
from colibri.curate.store import Attempts
from PIL import Image

CLIPS = "HumanVid/videos"


def _frame(sample: Path, number: int, **settings: object) -> FirstFrame:
    (path,) = (sample / CLIPS).glob(f"{number}-*")
    config = FrameConfig(**settings)  # type: ignore[arg-type]
    return first_frame(VideoRef(video=f"{CLIPS}/{path.name}"), sample, config)


def _pixels(frame: FirstFrame) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(frame.image)))


def test_every_trouble_of_a_clip_is_noted(sample: Path) -> None:
    assert "rotated:90" in _frame(sample, 6_100_002).notes
    assert "sample_aspect:4/3" in _frame(sample, 6_100_003).notes
    assert "variable_rate" in _frame(sample, 6_100_004).notes
    assert "variable_rate" not in _frame(sample, 6_100_003).notes
    assert "bit_depth:10" in _frame(sample, 6_100_005).notes
    assert "dark_lead_in:20" in _frame(sample, 6_100_006).notes


def test_a_dark_beginning_is_skipped_or_only_noted(sample: Path) -> None:
    assert _pixels(_frame(sample, 6_100_006)).mean() > 40
    assert _pixels(_frame(sample, 6_100_006, dark="warn")).mean() < 5


def test_an_upright_clip_goes_to_an_upright_bucket(sample: Path) -> None:
    assert _pixels(_frame(sample, 6_100_001)).shape == (1280, 704, 3)
    assert _pixels(_frame(sample, 6_100_001, geometry="crop")).shape == (704, 1280, 3)


def test_padding_keeps_all_and_cropping_fills_all() -> None:
    image = np.full((100, 50, 3), 200, np.uint8)
    padded, scale = fit(image, (64, 96), pad=True)
    assert scale == 0.64
    assert (padded[:, 32:64] > 150).all()
    assert padded[:, :31].max() == 0
    cropped, scale = fit(image, (64, 96), pad=False)
    assert scale == 1.92
    assert cropped.min() == 200


def test_a_square_stays_a_square_under_every_policy() -> None:
    image = np.zeros((180, 320, 3), np.uint8)
    image[60:120, 130:190] = 255
    for size in ((704, 1280), (960, 960), (1280, 704)):
        for pad in (False, True):
            fitted, _ = fit(image, size, pad=pad)
            rows, columns = np.nonzero(fitted[..., 0] > 127)
            assert abs(np.ptp(rows) - np.ptp(columns)) <= 2


def test_buckets_have_about_one_area_and_sides_that_fit() -> None:
    for height, width in buckets((704, 1280)):
        assert height % 32 == width % 32 == 0
        assert abs(height * width / (704 * 1280) - 1) < 0.05


def test_both_readers_see_the_same_picture(sample: Path) -> None:
    for number in (4_919_657, 6_100_002):
        one = _pixels(_frame(sample, number)).astype(int)
        two = _pixels(_frame(sample, number, reader="decord")).astype(int)
        assert one.shape == two.shape
        assert np.abs(one - two).mean() < 6


def test_a_clip_with_too_few_real_frames_is_refused(sample: Path) -> None:
    with pytest.raises(RowError, match="125 real frames, at least 200") as error:
        _frame(sample, 4_919_657, min_frames=200)
    assert error.value.reason == "too_short"


def test_a_first_frame_of_a_large_file_reads_less_than_a_megabyte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (360, 640, 3), np.uint8) for _ in range(24)]
    write_video(tmp_path / "large.mp4", noise, fps=24, crf=10, preset="ultrafast")
    assert (tmp_path / "large.mp4").stat().st_size > 4_000_000
    frame = first_frame(VideoRef(video="large.mp4"), tmp_path, FrameConfig(min_frames=24))
    assert frame.num_frames == 24
    assert frame.bytes_read <= 1_000_000


def test_the_same_clip_gives_the_same_bytes(sample: Path) -> None:
    assert _frame(sample, 4_919_658).image == _frame(sample, 4_919_658).image


def test_a_row_that_ends_its_worker_is_given_up_after_three_attempts(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path)
    assert [attempts.begin("key") for _ in range(4)] == [True, True, True, False]
    attempts.end("key")
    assert attempts.begin("key")
