"""Exports, read back as their trainers read them, from real files."""

import base64
import csv
import errno
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.core.shards import SHARD_SCHEMA, write_json_whole, write_shard
from colibri.core.video import count_frames, write_video
from colibri.curate.export import ExportConfig, export, run
from PIL import Image

CAPTIONS = [
    'A man says "hello, you", then leaves.',
    "A boat crosses a bay.\nGulls circle.\r\nThe shore is near.",
    '=HYPERLINK("http://127.0.0.1/","click") is written on a wall',
    "+1 is painted on a door",
    "-2+3 stands on a board",
    "@SUM(A1:A9) stands on a screen",
    " A cat, \tasleep; 'quoted' \\ and \\n \u2028 雪 🎬 é",
]


def _clip(path: Path, frames: int = 125, size: tuple[int, int] = (36, 64), fps: int = 25) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(frames)
    picture = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
    pictures = (np.roll(picture, index, axis=1) for index in range(frames))
    write_video(path, pictures, fps=fps, preset="ultrafast", exact=True)
    return path.read_bytes()


class Curated:
    """A data root and the output of a run over it, without the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root, self.out = folder / "data", folder / "out"
        self.root.mkdir()
        self.rows: list[dict[str, Any]] = []
        self.good = _clip(folder / "good.mp4")
        self._image = io.BytesIO()
        Image.new("RGB", (64, 36)).save(self._image, "PNG")

    def add(
        self,
        video: str = "",
        caption: str | None = "A red circle moves.",
        *,
        content: bytes | None = None,
        name: str = "",
        **fields: object,
    ) -> str:
        """Add a row; with `content` its file too. Returns the id."""
        number = len(self.rows)
        name = name or f"{number:024x}"
        video = video or f"set/{number}.mp4"
        if content is not None:
            (self.root / video).parent.mkdir(parents=True, exist_ok=True)
            (self.root / video).write_bytes(content)
        row: dict[str, Any] = {
            "id": name,
            "source": "openvid",
            "video": video,
            "member": None,
            "start_s": None,
            "image": {"bytes": self._image.getvalue(), "path": f"{name}.png"},
            "width": 64,
            "height": 36,
            "fps": 25.0,
            "num_frames": 125,
            "caption_original": caption,
            "caption": caption,
            "captioner": "colibri-rules/0",
            "findings": [],
            "judge": dict.fromkeys(("score", "fluency", "faithfulness", "coverage", "band"), 1.0),
            "score": 1.0,
            "licence": "cc-by-4.0",
            "split": "train",
            "provenance": "{}",
        }
        self.rows.append(row | fields)
        return name

    def zipped(self, archive: str, members: dict[str, bytes], *, deflate: bool = False) -> None:
        method = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
        with zipfile.ZipFile(self.root / archive, "w", method) as file:
            for name, content in members.items():
                file.writestr(name, content)

    def finish(self, shard_rows: int = 4) -> None:
        ordered = sorted(self.rows, key=lambda row: row["id"])
        shards = []
        for start in range(0, len(ordered), shard_rows):
            path = self.out / "data" / f"shard-{start // shard_rows:05d}.parquet"
            written = write_shard(path, ordered[start : start + shard_rows], SHARD_SCHEMA)
            shards.append({"path": written.path, "sha256": written.sha256, "rows": written.rows})
        source = {"in": len(ordered), "kept": len(ordered), "rejected": {}, "quarantined": {}}
        manifest = {
            "counts": {
                "in": len(ordered),
                "kept": len(ordered),
                "rejected": 0,
                "quarantined": 0,
                "by_source": {"openvid": source},
            },
            "captioner": {"name": "colibri-rules/0", "is_embedded": True},
            "facts": [],
            "shards": shards,
        }
        write_json_whole(self.out / "manifest.json", manifest)

    def config(self, kind: Any, **fields: Any) -> ExportConfig:
        to = fields.pop("to", self.folder / str(kind))
        root = None if kind == "hub" else self.root
        return ExportConfig(out=self.out, format=kind, to=to, data_root=root, **fields)


@pytest.fixture
def curated(tmp_path: Path) -> Curated:
    return Curated(tmp_path)


@pytest.fixture
def captioned(curated: Curated) -> Curated:
    """A row for each awkward caption: plain files, a stored and a deflated member."""
    for caption in CAPTIONS[:4]:
        curated.add(caption=caption, content=curated.good)
    curated.zipped("a.zip", {"x/-1.mp4": curated.good})
    curated.zipped("b.zip", {"2.MP4": curated.good}, deflate=True)
    curated.add("a.zip", CAPTIONS[4], member="x/-1.mp4")
    curated.add("b.zip", CAPTIONS[5], member="2.MP4")
    curated.add(caption=CAPTIONS[6], content=curated.good)
    curated.finish()
    return curated


def _refused(to: Path) -> dict[str, str]:
    lines = (to / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}


def _tree(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else
        path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock" and not path.is_dir()
    }  # fmt: skip


# ---- read back as the trainer does ----


def test_hummingbird_reads_every_caption_back_unchanged(captioned: Curated) -> None:
    import pandas

    counts = export(captioned.config("hummingbird"))
    assert (counts.rows, counts.exported, counts.refused) == (7, 7, {})
    table = Path(counts.where)
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == CAPTIONS
    assert list(rows[0]) == ["path", "text", "num_frames"]
    frame = pandas.read_csv(table)
    assert frame["text"].fillna("").tolist() == CAPTIONS
    assert frame["num_frames"].tolist() == [125] * 7
    for path in frame["path"]:
        assert path.endswith(".mp4")
        with open(path, "rb") as video:
            assert count_frames(video) == 125


def test_decord_gets_all_121_frames_of_every_exported_clip(captioned: Curated) -> None:
    decord = pytest.importorskip("decord")
    hummingbird = export(captioned.config("hummingbird"))
    with Path(hummingbird.where).open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    fun = export(captioned.config("videox-fun", frames=121))
    root = Path(fun.where).parent
    paths += [str(root / entry["file_path"]) for entry in json.loads(Path(fun.where).read_text())]
    assert len(paths) == 14
    for path in paths:
        frames = decord.VideoReader(uri=path).get_batch(list(range(121)))
        assert frames.shape == (121, 36, 64, 3)


def test_a_plain_file_is_referenced_and_a_member_extracted(captioned: Curated) -> None:
    counts = export(captioned.config("hummingbird"))
    with Path(counts.where).open(encoding="utf-8", newline="") as file:
        paths = [Path(row["path"]) for row in csv.DictReader(file)]
    assert paths[0] == captioned.root / "set/0.mp4"
    assert paths[4] == captioned.folder / "hummingbird/videos" / f"{4:024x}.mp4"
    assert paths[4].read_bytes() == paths[5].read_bytes() == captioned.good


def test_videox_fun_always_has_a_type_and_opens_below_its_root(captioned: Curated) -> None:
    counts = export(captioned.config("videox-fun"))
    entries = json.loads(Path(counts.where).read_bytes().decode("ascii"))
    assert [entry["text"] for entry in entries] == CAPTIONS
    for entry in entries:
        assert entry["type"] == "video"
        assert (entry["width"], entry["height"]) == (64, 36)
        path = os.path.join(captioned.folder / "videox-fun", entry["file_path"])
        assert Path(path).read_bytes() == captioned.good


def test_videox_fun_by_reference_has_absolute_paths(captioned: Curated) -> None:
    counts = export(captioned.config("videox-fun", videos="reference"))
    entries = json.loads(Path(counts.where).read_text())
    assert entries[0]["file_path"] == str(captioned.root / "set/0.mp4")
    assert entries[4]["file_path"] == f"videos/{4:024x}.mp4"


def test_fastvideo_finds_names_in_videos_with_all_that_its_validator_asks(
    captioned: Curated,
) -> None:
    counts = export(captioned.config("fastvideo"))
    table = Path(counts.where)
    assert table.name == "videos2caption.json"
    entries = json.loads(table.read_text())
    assert [entry["cap"] for entry in entries] == CAPTIONS
    for entry in entries:
        assert (table.parent / "videos" / entry["path"]).is_file()
        assert entry["path"].endswith(".mp4")
        assert entry["resolution"] == {"width": 64, "height": 36}
        assert (entry["fps"], entry["num_frames"], entry["duration"]) == (25.0, 125, 5.0)


def test_webdataset_keeps_the_members_of_a_clip_together(captioned: Curated) -> None:
    counts = export(captioned.config("webdataset", shard_rows=3))
    tars = sorted(Path(counts.where).glob("*.tar"))
    assert [path.name for path in tars] == [f"shard-{index:06d}.tar" for index in range(3)]
    captions = []
    for path in tars:
        with tarfile.open(path) as tar:
            members = [(member.name, tar.extractfile(member)) for member in tar]
        for key, group in groupby(members, key=lambda member: member[0].split(".")[0]):
            with tarfile.open(path) as tar:
                names = [name for name, _ in group]
                clip = {name.split(".", 1)[1]: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
            assert sorted(clip) == ["json", "mp4", "txt"]
            assert clip["mp4"] == captioned.good
            fields = json.loads(clip["json"])
            assert fields["id"] == key
            assert fields["caption"] == clip["txt"].decode()
            captions.append(fields["caption"])
    assert captions == CAPTIONS


def test_datasets_opens_the_tars(captioned: Curated, tmp_path: Path) -> None:
    from datasets import load_dataset

    counts = export(captioned.config("webdataset", shard_rows=3))
    files = [str(path) for path in sorted(Path(counts.where).glob("*.tar"))]
    rows = load_dataset(
        "webdataset", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path / "c")
    ).select_columns(["__key__", "txt"])
    assert [row["txt"] for row in rows] == CAPTIONS


def test_folder_has_a_text_beside_every_video(captioned: Curated) -> None:
    counts = export(captioned.config("folder"))
    videos = sorted(Path(counts.where).glob("*.mp4"))
    assert [path.with_suffix(".txt").read_bytes().decode() for path in videos] == CAPTIONS
    assert {path.read_bytes() for path in videos} == {captioned.good}
    assert not any(path.is_symlink() for path in videos)


def test_link_makes_links_with_lower_case_endings(curated: Curated) -> None:
    name = curated.add("UPPER.MP4", content=curated.good)
    curated.finish()
    counts = export(curated.config("hummingbird", videos="link"))
    link = curated.folder / "hummingbird/videos" / f"{name}.mp4"
    assert counts.exported == 1
    assert link.readlink() == curated.root / "UPPER.MP4"


# ---- what is refused ----


def test_every_bad_row_is_refused_by_its_reason_and_counted(curated: Curated) -> None:
    good = curated.good
    (curated.folder / "outside.mp4").write_bytes(good)
    (curated.root / "leak.mp4").symlink_to(curated.folder / "outside.mp4")
    curated.zipped("whole.zip", {"1.mp4": good})
    broken = bytes(len(good))
    expected = {
        curated.add(content=good): None,
        curated.add(content=_clip(curated.folder / "s.mp4", 120)): "too_short",
        curated.add(content=good[: len(good) // 2]): "too_short",
        curated.add(content=broken): "unreadable_video",
        curated.add(content=b""): "empty_file",
        curated.add("gone.mp4"): "missing_file",
        curated.add("whole.zip", member="2.mp4"): "missing_member",
        curated.add("../outside.mp4"): "unsafe_path",
        curated.add("leak.mp4"): "unsafe_path",
        curated.add(str(curated.folder / "outside.mp4")): "unsafe_path",
        curated.add("a.webm", content=good): "file_ending",
        curated.add("b.MP4", content=good): "file_ending",
        curated.add(caption="", content=good): "no_caption",
        curated.add(caption=" \n", content=good): "no_caption",
        curated.add(caption=None, content=good): "no_caption",
        curated.add(caption="NA", content=good): "no_caption",
        curated.add(caption="a\0b", content=good): "bad_text",
        curated.add(content=good, start_s=1.5): "segment",
        curated.add(content=_clip(curated.folder / "t.mp4", size=(64, 36))): "stretched",
        curated.add(content=good, name="f/../../up"): "bad_id",
    }
    curated.finish()
    config = curated.config("hummingbird")
    counts = export(config)
    reasons = {name: reason for name, reason in expected.items() if reason}
    assert _refused(config.to) == reasons
    assert counts.rows == len(expected) == counts.exported + sum(counts.refused.values())
    assert counts.exported == 1
    assert counts.refused["no_caption"] == 4
    assert "20 rows = 1 exported + 19 refused (bad_id 1, " in str(counts)
    assert str(curated.root) not in (config.to / "refused.jsonl").read_text()


def test_a_member_that_breaks_off_is_refused_everywhere(curated: Curated) -> None:
    curated.zipped("b.zip", {"1.mp4": curated.good}, deflate=True)
    content = bytearray((curated.root / "b.zip").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (curated.root / "b.zip").write_bytes(content)
    name = curated.add("b.zip", member="1.mp4")
    curated.finish()
    for kind in ("hummingbird", "webdataset", "folder"):
        config = curated.config(kind)
        export(config)
        assert _refused(config.to) == {name: "unreadable_video"}


def test_decode_finds_what_counting_cannot(curated: Curated) -> None:
    holed = bytearray(curated.good)
    start = len(holed) // 2
    holed[start : start + len(holed) // 4] = bytes(len(holed) // 4)
    name = curated.add(content=bytes(holed))
    curated.finish()
    config = curated.config("hummingbird")
    assert export(config).exported == 1
    assert export(replace(config, decode=True)).exported == 0
    assert _refused(config.to)[name] in ("too_short", "unreadable_video")


def test_each_trainer_counts_the_frames_that_it_samples(curated: Curated) -> None:
    curated.add(content=curated.good)
    curated.finish()
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("hummingbird", {"frames": 125}, 1),
        ("hummingbird", {"frames": 126}, 0),
        ("videox-fun", {"frames": 62, "stride": 2}, 1),
        ("videox-fun", {"frames": 63, "stride": 2}, 0),
        ("fastvideo", {"frames": 80, "train_fps": 16}, 1),
        ("fastvideo", {"frames": 81, "train_fps": 16}, 0),
        ("fastvideo", {"frames": 9, "train_fps": 10}, 0),  # too long: 5 s are over 5 samples
        ("folder", {"frames": 126}, 0),
    ]
    for kind, fields, exported in cases:
        assert export(curated.config(kind, **fields)).exported == exported, (kind, fields)


def test_a_shape_that_fastvideo_drops_is_refused(curated: Curated) -> None:
    curated.add(content=_clip(curated.folder / "t.mp4", size=(64, 36)))
    curated.finish()
    assert export(curated.config("fastvideo")).refused == {"bad_shape": 1}


def test_heldout_rows_stay_out_of_training(curated: Curated) -> None:
    curated.add(content=curated.good)
    held = curated.add(content=curated.good, split="held-out")
    curated.finish()
    config = curated.config("folder")
    counts = export(config)
    assert (counts.rows, counts.exported, counts.other_split) == (1, 1, 1)
    export(replace(config, split="held-out"))
    assert [path.stem for path in config.to.glob("*.mp4")] == [held]
    assert export(replace(config, split="all")).exported == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"stride": 2}, "--stride has no meaning for --format folder"),
        ({"videos": "reference"}, "--videos reference has no meaning for --format folder"),
        ({"repo": "a/b"}, "--repo has no meaning for --format folder"),
        ({"frames": 0}, "--frames 0 is too small"),
        ({"shard_rows": 0}, "--shard-rows has to be at least 1"),
        ({"out": Path("/nowhere")}, "/nowhere holds no manifest.json"),
        ({"data_root": Path("/nowhere")}, "there is no folder /nowhere"),
        ({"data_root": None}, "does not tell its data root; pass --data-root"),
    ],
)
def test_a_flag_that_does_not_fit_is_told_before_anything_is_written(
    captioned: Curated, fields: dict[str, Any], sentence: str
) -> None:
    config = replace(captioned.config("folder"), **fields)
    with pytest.raises(UserError, match=re.escape(sentence)):
        export(config)
    assert not config.to.exists()


def test_a_folder_of_somebody_else_is_left_alone(captioned: Curated) -> None:
    theirs = captioned.folder / "theirs"
    theirs.mkdir()
    (theirs / "1.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        export(captioned.config("folder", to=theirs))
    export(captioned.config("folder"))
    with pytest.raises(UserError, match="holds an export for folder"):
        export(captioned.config("webdataset", to=captioned.folder / "folder"))
    assert (theirs / "1.txt").read_text() == "mine"


# ---- same bytes, whatever happens ----


@pytest.mark.parametrize("kind", ["hummingbird", "videox-fun", "fastvideo", "webdataset", "folder"])
def test_twice_is_the_same_bytes_and_nothing_is_written_twice(
    captioned: Curated, kind: str
) -> None:
    config = captioned.config(kind)
    export(config)
    first = _tree(config.to)
    media = [path for path in config.to.rglob("*") if path.suffix in (".mp4", ".tar", ".txt")]
    written = {path: path.lstat().st_ino for path in media}
    export(config)
    assert _tree(config.to) == first
    assert {path: path.lstat().st_ino for path in media} == written
    other = replace(config, to=captioned.folder / "again" / kind)
    export(other)
    again = _tree(other.to)
    if kind == "hummingbird":  # its paths are absolute
        for tree in (first, again):
            del tree["train.csv"]
    assert again == first


@pytest.mark.parametrize("kind", ["hummingbird", "webdataset", "folder"])
def test_stopped_after_any_row_it_goes_on_to_the_same_bytes(
    captioned: Curated, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = captioned.config(kind, shard_rows=2)
    export(whole)
    expected = _tree(whole.to)
    (whole.to).rename(captioned.folder / "expected")
    measure = run.measure
    for last in range(len(CAPTIONS)):
        seen = 0

        def stop(*arguments: Any, last: int = last, **named: Any) -> Any:
            nonlocal seen
            if seen == last:
                raise KeyboardInterrupt
            seen += 1
            return measure(*arguments, **named)

        monkeypatch.setattr(run, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            export(whole)
    monkeypatch.setattr(run, "measure", measure)
    export(whole)
    assert _tree(whole.to) == expected


def test_killed_again_and_again_it_ends_with_the_same_bytes(curated: Curated) -> None:
    curated.zipped("a.zip", {f"{index}.mp4": curated.good for index in range(150)})
    for index in range(150):
        curated.add("a.zip", f"Clip {index}.", member=f"{index}.mp4")
    curated.finish()
    config = curated.config("folder")
    code = (
        "from pathlib import Path; from colibri.curate.export import *; print('go', flush=True);"
        f"export(ExportConfig(out=Path({str(curated.out)!r}), format='folder',"
        f"to=Path({str(config.to)!r}), data_root=Path({str(curated.root)!r})))"
    )
    for done in (1, 40, 90):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None and len(list(config.to.glob("*.txt"))) < done:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert done <= len(list(config.to.glob("*.txt"))) < 150
    export(config)
    other = replace(config, to=curated.folder / "undisturbed")
    export(other)
    assert _tree(config.to) == _tree(other.to)
    assert len(list(config.to.glob("*.txt"))) == 150


def test_a_full_disk_is_one_sentence_and_costs_no_finished_file(
    captioned: Curated, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = run.place

    def full(entry: Any, *arguments: Any) -> Path:
        if entry.id == f"{2:024x}":
            raise OSError(errno.ENOSPC, "No space left on device")
        return place(entry, *arguments)

    monkeypatch.setattr(run, "place", full)
    config = captioned.config("folder")
    with pytest.raises(UserError, match="the disk is full; free some space"):
        export(config)
    assert len(list(config.to.glob("*.mp4"))) == 2


def test_a_replaced_video_and_a_row_that_went_away_are_noticed(captioned: Curated) -> None:
    for kind in ("folder", "webdataset"):
        export(captioned.config(kind))
    new = _clip(captioned.folder / "new.mp4", 130)
    (captioned.root / "set/0.mp4").write_bytes(new)
    (captioned.root / "set/1.mp4").unlink()
    assert export(captioned.config("folder")).refused == {"missing_file": 1}
    folder = captioned.folder / "folder"
    assert (folder / f"{0:024x}.mp4").read_bytes() == new
    assert not list(folder.glob(f"{1:024x}.*"))
    export(captioned.config("webdataset"))
    with tarfile.open(captioned.folder / "webdataset/shard-000000.tar") as tar:
        assert tar.extractfile(f"{0:024x}.mp4").read() == new  # type: ignore[union-attr]
        assert f"{1:024x}.mp4" not in tar.getnames()


# ---- the hub ----


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a push talks to: repositories, preupload, LFS, commit."""

    def do_GET(self) -> None:
        hub = self.server.hub  # type: ignore[attr-defined]
        path = self.path.split("?")[0]
        if hub["status"] != 200:
            self._say({"error": "no"}, hub["status"])
        elif path == "/api/datasets/me/clips":
            self._say(
                {"id": "me/clips", "private": hub["private"], "sha": "0" * 40, "siblings": []}
            )
        elif path.startswith("/api/datasets/me/clips/tree/main"):
            self._say(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                    for name, content in hub["files"].items()
                ]
            )
        else:
            self._say({"error": f"no {path}"}, 404)

    def do_POST(self) -> None:
        hub = self.server.hub  # type: ignore[attr-defined]
        body = self._body()
        hub["tokens"].add(self.headers.get("authorization"))
        path = self.path.split("?")[0]
        if hub["status"] != 200:
            self._say({"error": f"no, {self.headers.get('authorization')}"}, hub["status"])
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            assert (wanted["organization"], wanted["name"]) == ("me", "clips")
            assert wanted["type"] == "dataset"
            if hub["private"] is None:
                hub["private"] = wanted["visibility"] == "private"
            self._say({"url": f"{hub['url']}/datasets/me/clips", "name": "me/clips"})
        elif path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\nlicense:")
            self._say({"errors": [], "warnings": []})
        elif path == "/api/datasets/me/clips/preupload/main":
            self._say(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith("parquet") else "regular",
                            "shouldIgnore": False,
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )
        elif path == "/datasets/me/clips.git/info/lfs/objects/batch":
            objects = []
            for wanted in json.loads(body)["objects"]:
                entry = {"oid": wanted["oid"], "size": wanted["size"]}
                if wanted["oid"] not in hub["blobs"]:
                    entry["actions"] = {"upload": {"href": f"{hub['url']}/blob/{wanted['oid']}"}}
                objects.append(entry)
            self._say({"transfer": "basic", "objects": objects})
        elif path == "/api/datasets/me/clips/commit/main":
            hub["commits"] += 1
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub["files"][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub["files"][value["path"]] = hub["blobs"][value["oid"]]
                elif line["key"] == "deletedFile":
                    del hub["files"][value["path"]]
            url = f"{hub['url']}/datasets/me/clips/commit/{'0' * 40}"
            self._say({"success": True, "commitOid": "0" * 40, "commitUrl": url})
        else:
            self._say({"error": f"no {path}"}, 404)

    def do_PUT(self) -> None:
        hub = self.server.hub  # type: ignore[attr-defined]
        body = self._body()
        oid = self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(body).hexdigest() == oid
        hub["blobs"][oid] = body
        hub["puts"] += 1
        self._say({})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _say(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[dict[str, Any]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    state: dict[str, Any] = {
        "url": f"http://127.0.0.1:{server.server_port}",
        "status": 200,
        "private": None,
        "files": {},
        "blobs": {},
        "tokens": set(),
        "commits": 0,
        "puts": 0,
    }
    server.hub = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


TOKEN = "hf_secret0123456789"


def _push(
    curated: Curated, hub: dict[str, Any], token: str = TOKEN, **fields: object
) -> subprocess.CompletedProcess[str]:
    named = "".join(f", {name}={value!r}" for name, value in fields.items())
    code = (
        "import sys; from pathlib import Path; from colibri.core.commands import run_command;"
        "from colibri.curate.export import *;"
        f"config = ExportConfig(out=Path({str(curated.out)!r}), format='hub',"
        f"to=Path({str(curated.folder / 'hub')!r}), repo='me/clips'{named});"
        "sys.exit(run_command(lambda: print(export(config)) or 0))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub["url"], "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HOME": str(curated.folder / "hf"), "HF_TOKEN": token}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_a_push_brings_card_licence_and_the_rows_that_pass(
    curated: Curated, hub: dict[str, Any]
) -> None:
    from datasets import load_dataset

    for index in range(4):
        curated.add(caption=f"Clip {index}.", licence="pexels" if index == 3 else "cc-by-4.0")
    for index in range(4, 6):
        curated.add(caption=f"Clip {index}.", split="held-out")
    empty = curated.add(caption=" ")
    picture = curated.add(image={"bytes": b"no picture", "path": "x.png"})
    curated.finish()
    result = _push(curated, hub)
    assert result.returncode == 0, result.stderr
    assert "8 rows = 6 exported + 2 refused (bad_image 1, no_caption 1)" in result.stdout
    assert f"{hub['url']}/datasets/me/clips" in result.stdout
    assert _refused(curated.folder / "hub") == {empty: "no_caption", picture: "bad_image"}
    assert (hub["private"], hub["commits"], hub["tokens"]) == (True, 1, {f"Bearer {TOKEN}"})
    assert sorted(hub["files"]) == [
        "README.md", "data/shard-00000.parquet", "data/shard-00001.parquet",
    ]  # fmt: skip
    got = curated.folder / "got"
    for name, content in hub["files"].items():
        (got / name).parent.mkdir(parents=True, exist_ok=True)
        (got / name).write_bytes(content)
    rows = load_dataset(str(got), cache_dir=str(curated.folder / "cache"))["train"]
    assert rows["caption"][:] == [f"Clip {index}." for index in range(6)]
    assert rows[0]["image"].size == (64, 36)
    original = (curated.out / "data/shard-00000.parquet").read_bytes()
    assert hub["files"]["data/shard-00000.parquet"] == original
    card = hub["files"]["README.md"].decode()
    assert card.startswith('---\nlicense:\n- cc-by-4.0\n- other\nlicense_name: "pexels"\n')
    assert "data_files: data/*.parquet" in card
    assert "| CC BY 4.0 (annotations only) | 5 |" in card


def test_pushing_again_sends_no_blob_twice_and_removes_stale_shards(
    curated: Curated, hub: dict[str, Any]
) -> None:
    for index in range(8):
        curated.add(caption=f"Clip {index}.")
    curated.finish()
    assert _push(curated, hub).returncode == 0
    assert hub["puts"] == 2
    hub["files"]["NOTES.md"] = b"theirs"
    curated.rows = curated.rows[:4]
    curated.finish()
    assert _push(curated, hub).returncode == 0
    assert hub["puts"] == 2
    assert sorted(hub["files"]) == ["NOTES.md", "README.md", "data/shard-00000.parquet"]


def test_flagged_licences_are_never_made_public(curated: Curated, hub: dict[str, Any]) -> None:
    curated.add(caption="Free.")
    name = curated.add(caption="Flagged.", licence="pexels")
    curated.finish()
    result = _push(curated, hub, public=True)
    assert result.returncode == 0, result.stderr
    assert hub["private"] is False
    assert _refused(curated.folder / "hub") == {name: "licence"}
    result = _push(curated, hub)
    assert result.returncode == 2
    assert "me/clips is public; pass --public" in result.stderr
    assert hub["commits"] == 1


def test_the_token_is_never_shown(curated: Curated, hub: dict[str, Any]) -> None:
    curated.add()
    curated.finish()
    hub["status"] = 403
    result = _push(curated, hub)
    assert result.returncode == 2
    assert "answers 403" in result.stderr
    assert "Traceback" not in result.stderr
    assert TOKEN not in result.stdout + result.stderr
    assert all(TOKEN.encode() not in path.read_bytes()
               for path in curated.folder.rglob("*") if path.is_file())  # fmt: skip
    result = _push(curated, hub, token="")
    assert result.returncode == 2
    assert "HF_TOKEN is not set" in result.stderr


def test_a_hub_that_is_not_there_is_one_sentence(curated: Curated) -> None:
    curated.add()
    curated.finish()
    result = _push(curated, {"url": "http://127.0.0.1:9"})
    assert result.returncode == 2
    assert "the push to http://127.0.0.1:9 failed" in result.stderr
    assert "Traceback" not in result.stderr
