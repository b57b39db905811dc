"""Clips of files: which frames of a video a place in time gives."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from colibri.vae.clips import open_source

FRAMES = 60


def _write(path: Path, codec: str, rate: Fraction, **options: str) -> None:
    """Every frame is one grey, four brighter than the one before."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 10
        for index in range(FRAMES):
            grey = np.full((32, 32, 3), 4 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("a.mkv", "libx264", {}),
        ("index-in-front.mkv", "libx264", {"reserve_index_space": "4096"}),
        ("a.webm", "libvpx-vp9", {}),
    ],
)
@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30_000, 1001)])
def test_every_place_in_time_gives_its_own_frames(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], rate: Fraction
) -> None:
    _write(tmp_path / name, codec, rate, **options)
    source = open_source(tmp_path, None, "train")
    places = FRAMES - 3 + 1
    for start in range(places):
        frames = source.read(0, 3, (start + 0.5) / places)
        found = [round(float(frame.mean()) / 4) for frame in frames]
        assert found == [start, start + 1, start + 2]
