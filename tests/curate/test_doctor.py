"""What `curate doctor` says about data sets that are whole, broken, or not there."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.video import Frame, write_video
from colibri.curate.doctor import DoctorConfig, SourceReport, examine
from colibri.curate.sources.base import SourceConfig


def pictures(count: int) -> Iterator[Frame]:
    for index in range(count):
        yield np.full((48, 64, 3), index % 200, np.uint8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "whole.mp4"
    write_video(path, pictures(125), fps=25)
    return path.read_bytes()


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "short.mp4"
    write_video(path, pictures(20), fps=25)
    return path.read_bytes()


def magic(tmp_path: Path, videos: dict[str, bytes], *rows: str) -> Path:
    folder = tmp_path / "MagicData" / "videos"
    folder.mkdir(parents=True)
    for name, content in videos.items():
        (folder / name).write_bytes(content)
    table = "video_path,caption\n" + "".join(f"{row}\n" for row in rows)
    (folder.parent / "MagicData.csv").write_text(table)
    return tmp_path


def report_on(root: Path) -> SourceReport:
    return examine(DoctorConfig(sources=("magicmotion",), data_root=root)).sources[0]


def test_each_fault_is_listed_under_its_kind(tmp_path: Path, whole: bytes, short: bytes) -> None:
    videos = {
        "good.mp4": whole,
        "SHOUT.MP4": whole,
        "short.mp4": short,
        "cut.mp4": whole[: len(whole) * 3 // 4],
        "stub.mp4": whole[:200],
        "empty.mp4": b"",
        "text.mp4": b"no video at all, only words",
        "extra.mp4": whole,
    }
    names = [*(name for name in videos if name != "extra.mp4"), "gone.mp4", "../x.mp4", "good.mp4"]
    report = report_on(magic(tmp_path, videos, *(f"{n},A cat." for n in names), "broken"))
    assert (report.rows, report.good) == (11, 2)
    assert report.missing == ("gone.mp4",)
    assert report.extra == ("extra.mp4",)
    assert report.damaged == ("cut.mp4", "stub.mp4", "empty.mp4", "text.mp4")
    assert report.too_short == ("short.mp4",)
    assert report.duplicate == ("good.mp4",)
    assert report.other == (
        "x.mp4 (unsafe_path)",
        "MagicData.csv line 12: 1 cells under 2 column names (bad_row)",
    )


def test_a_clip_without_a_caption_is_still_looked_at(tmp_path: Path, whole: bytes) -> None:
    videos = {"whole.mp4": whole, "broken.mp4": whole[:200]}
    report = report_on(magic(tmp_path, videos, "whole.mp4,", "broken.mp4,"))
    assert report.no_caption == ("whole.mp4",)
    assert report.damaged == ("broken.mp4",)


def test_a_member_whose_compressed_bytes_are_broken_is_damaged(
    tmp_path: Path, whole: bytes
) -> None:
    root = magic(tmp_path, {}, "videos/a.mp4,x")
    path = root / "MagicData" / "videos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("videos/a.mp4", whole)
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    assert report_on(root).damaged == ("a.mp4",)


def test_a_missing_part_of_a_split_archive_is_named(tmp_path: Path, whole: bytes) -> None:
    root = magic(tmp_path, {}, "videos/a.mp4,x")
    for suffix in ("aa", "ac"):
        (root / "MagicData" / f"videos.zip.part_{suffix}").write_bytes(whole)
    (root / "MagicData" / "other.zip.part_ab").write_bytes(whole)
    report = report_on(root)
    assert any("videos.zip.part_ab is missing" in line for line in report.damaged)
    assert any("other.zip.part_ab has no first part" in line for line in report.damaged)
    assert report.missing == ("a.mp4",)


def test_data_sets_that_are_not_there_are_said_and_are_not_usable(tmp_path: Path) -> None:
    report = examine(DoctorConfig(data_root=tmp_path))
    assert not report.usable
    assert [source.root for source in report.sources] == [None, None, None]
    assert "no openvid data below" in report.text()
    with pytest.raises(UserError, match="--data-root"):
        examine(DoctorConfig(data_root=tmp_path / "none"))


def test_a_choice_that_cannot_be_made_is_told_without_hiding_the_others(
    tmp_path: Path, whole: bytes
) -> None:
    root = magic(tmp_path, {"a.mp4": whole}, "a.mp4,A cat.")
    for name in ("one", "two"):
        (root / name / "data" / "train").mkdir(parents=True)
        (root / name / "data" / "train" / "OpenVidHD.csv").write_text("video,caption\n")
    report = examine(DoctorConfig(sources=("magicmotion", "openvid"), data_root=root))
    assert report.sources[0].good == 1
    assert "--openvid.root" in (report.sources[1].error or "")
    with pytest.raises(UserError, match="did you mean openvid"):
        examine(DoctorConfig(sources=("opnvid",), data_root=root))


def test_hostile_names_are_printed_without_their_control_characters(
    tmp_path: Path, whole: bytes
) -> None:
    report = report_on(magic(tmp_path, {}, '"\x1b[2J\u202egone\n.mp4",x'))
    config = DoctorConfig(sources=("magicmotion",), data_root=tmp_path)
    text = examine(config).text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 2 + len(report.facts) + 2


def test_the_sample_is_judged_as_it_was_made(sample: Path) -> None:
    humanvid = SourceConfig(captions=str(sample / "HumanVid" / "captions.csv"))
    report = examine(DoctorConfig(data_root=sample, humanvid=humanvid))
    assert report.usable
    by_name = {source.name: source for source in report.sources}
    assert sum(source.rows for source in report.sources) >= 60
    for source in report.sources:
        assert source.missing
        assert source.extra
    assert by_name["magicmotion"].too_short
    assert by_name["magicmotion"].damaged
    assert by_name["openvid"].damaged
    assert by_name["openvid"].duplicate
    for source in report.sources:
        listed = (
            *source.missing,
            *source.damaged,
            *source.too_short,
            *source.duplicate,
            *source.no_caption,
            *source.other,
        )
        assert source.rows == source.good + len(listed)
    assert json.loads(json.dumps(to_table(report)))["sources"][0]["name"] == "magicmotion"
