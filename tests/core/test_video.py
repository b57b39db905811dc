"""Video files in and out, archives read in place: real MP4s, real zips."""

import io
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from colibri.core import archive
from colibri.core.clip import VideoRef
from colibri.core.errors import RowError, UserError
from colibri.core.video import Frame, count_frames, open_ref, probe, read_frames, write_video


def _frames(count: int, height: int = 64, width: int = 96) -> list[Frame]:
    frames = []
    for index in range(count):
        frame = np.full((height, width, 3), (200, 40, 40), np.uint8)
        frame[8:24, 4 + index % 60 : 20 + index % 60] = (30, 60, 220)
        frames.append(frame)
    return frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, _frames(40), fps=25)
    return path


def test_frames_come_back_in_their_colours(clip: Path) -> None:
    with clip.open("rb") as file:
        found = list(read_frames(file))
    assert len(found) == 40
    for before, after in zip(_frames(40), found, strict=True):
        assert np.abs(before[40:, 40:].astype(int) - after[40:, 40:]).mean() < 3


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / name, _frames(12), fps=25, exact=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_header_tells_size_rate_depth_and_aspect(tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    write_video(path, _frames(10), fps=30, pixel_format="yuv420p10le", sample_aspect=Fraction(4, 3))
    with path.open("rb") as file:
        found = probe(file)
        assert (found.width, found.height, found.coded_width) == (128, 64, 96)
        assert found.bit_depth == 10
        assert found.fps == pytest.approx(30)
        assert next(read_frames(file)).shape == (64, 128, 3)


def test_a_turned_clip_is_read_upright(tmp_path: Path) -> None:
    from colibri.curate.sample import _rotated

    path = tmp_path / "turned.mp4"
    upright = _frames(5, height=96, width=64)
    write_video(path, [np.rot90(frame) for frame in upright], fps=25)
    path.write_bytes(_rotated(path.read_bytes()))
    with path.open("rb") as file:
        assert probe(file).rotation == 90
        assert (probe(file).width, probe(file).height) == (64, 96)
        found = next(read_frames(file))
    assert found.shape == (96, 64, 3)
    assert np.abs(found.astype(int) - upright[0]).mean() < 6


def test_frames_are_counted_as_far_as_the_file_reaches(clip: Path) -> None:
    content = clip.read_bytes()
    assert count_frames(io.BytesIO(content)) == 40
    assert 0 < count_frames(io.BytesIO(content[: len(content) * 9 // 10])) < 40


def test_frames_are_counted_where_the_index_has_key_frames_only(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with (
        clip.open("rb") as file,
        av.open(str(path), "w", options={"reserve_index_space": "4096"}) as out,
    ):
        stream = out.add_stream("libx264", rate=25)
        stream.gop_size = 5
        for frame in read_frames(file):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    with path.open("rb") as file:
        assert count_frames(file) == 40


@pytest.mark.parametrize("content", [b"not a video", b"\0" * 5000, b"\0\0\0\x18ftypisom" * 40])
def test_rubbish_is_a_row_error(content: bytes) -> None:
    with pytest.raises(RowError) as error:
        list(read_frames(io.BytesIO(content)))
    assert error.value.reason in ("unreadable_video", "no_video_stream")


def test_every_cut_of_a_file_is_a_row_error_or_frames(clip: Path) -> None:
    content = clip.read_bytes()
    for size in range(0, len(content), max(1, len(content) // 60)):
        try:
            frames = list(read_frames(io.BytesIO(content[:size])))
        except RowError:
            continue
        assert 0 < len(frames) <= 40


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        ("../secret.mp4", "unsafe_path"),
        ("/etc/passwd", "unsafe_path"),
        ("link.mp4", "unsafe_path"),
        ("a\0b", "unsafe_path"),
        ("gone.mp4", "missing_file"),
        ("empty.mp4", "empty_file"),
    ],
)
def test_hostile_and_missing_paths_have_their_reasons(
    tmp_path: Path, video: str, reason: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "empty.mp4").touch()
    with pytest.raises(RowError) as error:
        open_ref(VideoRef(video=video), root)
    assert error.value.reason == reason


# ---- archives ----


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("names", [("v_part_aa", "v_part_ab"), ("v.zip.part_aa", "v.zip.part_ab")])
def test_members_of_split_zips_read_across_the_seam(
    tmp_path: Path, clip: Path, method: int, names: tuple[str, str]
) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as target:
        target.writestr("-dash.mp4", clip.read_bytes())
        target.writestr("folder/other.bin", b"0123456789" * 100)
    content = whole.getvalue()
    for name, piece in zip(names, (content[:700], content[700:]), strict=True):
        (tmp_path / name).write_bytes(piece)
    first = tmp_path / names[0]
    assert [part.name for part in archive.parts_of(first)] == list(names)
    found = archive.members(first)
    assert found["-dash.mp4"].size == clip.stat().st_size
    with archive.open_member(first, "folder/other.bin") as file:
        file.seek(995)
        assert file.read() == b"56789"
    ref = VideoRef(video=names[0], member="-dash.mp4")
    with open_ref(ref, tmp_path) as file:
        assert len(list(read_frames(file))) == 40


def test_a_missing_part_and_a_cut_archive_are_named(tmp_path: Path) -> None:
    (tmp_path / "v_part_aa").write_bytes(b"PK")
    (tmp_path / "v_part_ac").write_bytes(b"x")
    with pytest.raises(UserError, match="v_part_ab is missing"):
        archive.members(tmp_path / "v_part_aa")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(UserError, match="cannot be read as a zip"):
        archive.members(tmp_path / "cut.zip")
    with pytest.raises(RowError) as error:
        open_ref(VideoRef(video="cut.zip", member="x.mp4"), tmp_path)
    assert error.value.reason == "unreadable_video"


@pytest.mark.parametrize(("at", "value"), [(0, b"no"), (8, b"\xff\xff")])
def test_a_compressed_member_that_cannot_be_opened_is_a_row_error(
    tmp_path: Path, at: int, value: bytes
) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("x.mp4", b"frames" * 100)
    content = bytearray(whole.getvalue())
    content[at : at + 2] = value  # the local header's signature; its compression
    if at:
        directory = content.rindex(b"PK\1\2")
        content[directory + 10 : directory + 12] = value
    (tmp_path / "v.zip").write_bytes(content)
    with pytest.raises(RowError, match=r"'x.mp4' cannot be read") as error:
        open_ref(VideoRef(video="v.zip", member="x.mp4"), tmp_path)
    assert error.value.reason == "unreadable_video"
