"""The miniature of the three data sets: real layouts, real troubles, equal bytes."""

import csv
from pathlib import Path

import pytest
from colibri.core import archive
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file
from colibri.curate.doctor import DoctorConfig, examine
from colibri.curate.sample import write_sample
from colibri.curate.sources.base import SourceConfig


def test_the_same_seed_gives_the_same_bytes(sample: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_sample(again)
    files = sorted(path.relative_to(sample) for path in sample.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in files:
        assert hash_file(sample / name) == hash_file(again / name), name


def test_it_is_small_and_has_at_least_sixty_rows(sample: Path) -> None:
    assert sum(path.stat().st_size for path in sample.rglob("*") if path.is_file()) < 25e6
    report = examine(_config(sample))
    assert sum(source.rows for source in report.sources) >= 60


def test_the_layouts_are_the_published_ones(sample: Path) -> None:
    with (sample / "OpenVid-1M/data/train/OpenVidHD.csv").open(encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header == [
        *("video", "caption", "aesthetic score", "motion score", "temporal consistency score"),
        *("camera motion", "frame", "fps", "seconds"),
    ]
    hd = sample / "OpenVid-1M/OpenVidHD"
    assert len(archive.parts_of(hd / "OpenVidHD_part_15_part_aa")) == 2
    names = archive.members(hd / "OpenVidHD_part_1.zip")
    assert any(name.startswith("-") for name in names)
    assert any(name.endswith(".MP4") for name in names)
    assert list((sample / "MagicData/boxs").rglob("annotated_frame_00000.png"))
    assert (sample / "HumanVid/pexels-vertical-urls-new.txt").read_text().startswith("https://")


def test_the_doctor_finds_each_planted_trouble(sample: Path) -> None:
    reports = {source.name: source for source in examine(_config(sample)).sources}
    for report in reports.values():
        assert report.missing
        assert report.extra
        assert report.good >= 15
    assert reports["magicmotion"].too_short
    assert reports["magicmotion"].duplicate
    assert reports["openvid"].damaged
    assert reports["openvid"].no_caption
    assert reports["humanvid"].no_caption


def test_a_folder_in_use_is_not_written_over(sample: Path) -> None:
    with pytest.raises(UserError, match="is not empty"):
        write_sample(sample)


def _config(sample: Path) -> DoctorConfig:
    captions = str(sample / "HumanVid" / "captions.csv")
    return DoctorConfig(data_root=sample, humanvid=SourceConfig(captions=captions))
