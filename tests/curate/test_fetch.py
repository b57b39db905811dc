"""Fetching from a hub: a real HTTP server with ranges serves the sample as repositories."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from colibri.core.clip import clip_id
from colibri.core.errors import RowError, UserError
from colibri.core.video import open_ref
from colibri.curate.fetch import FetchConfig, FetchReport, fetch
from colibri.curate.fetch.hub import HubFile
from colibri.curate.fetch.remote_zip import RemoteZip, group_parts
from colibri.curate.fetch.transfer import fetch_member
from colibri.curate.fetch.web import Web
from colibri.curate.sources import get_source
from colibri.curate.sources.base import SourceConfig
from hub_server import COMMIT, HubServer, is_lfs

MAGIC, OPEN, HUMAN = "quanhaol/MagicData", "nkp37/OpenVid-1M", "zhenzhiwang/HumanVid"
PARTS = ("videos.zip.part_aa", "videos.zip.part_ab")
TAIL = 1 << 16
"""Bytes that are read for the directory of a small zip."""
TOKEN = "hf_secretsecretsecret"


class Hub(HubServer):
    """That server, and fetching from it."""

    def config(self, to: Path, *sources: str, **settings: object) -> FetchConfig:
        return FetchConfig(
            sources=sources or ("magicmotion",),
            to=to,
            url_hosts=("127.0.0.1",),
            url_interval_s=0,
            **settings,  # type: ignore[arg-type]
        )

    def fetch(self, to: Path, *sources: str, **settings: object) -> FetchReport:
        self.naps: list[float] = []
        web = Web(self.url, TOKEN, sleep=self.naps.append)
        return fetch(self.config(to, *sources, **settings), web=web)


@pytest.fixture
def hub(sample: Path) -> Iterator[Hub]:
    """The sample on a hub; its big files are redirected to a second server."""
    hub = Hub()
    for repo, folder in ((MAGIC, "MagicData"), (OPEN, "OpenVid-1M"), (HUMAN, "HumanVid")):
        root = sample / folder
        hub.files[repo] = {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.suffix != ".mp4" and path.name != "captions.csv"
        }
    hub.clips = {path.name: path.read_bytes() for path in (sample / "HumanVid/videos").iterdir()}
    with hub.serving():
        for name, content in hub.files[HUMAN].items():
            text = content.decode()
            text = text.replace("https://videos.pexels.com/video-files", hub.url + "/clips")
            hub.files[HUMAN][name] = text.encode()
        yield hub


def contents(root: Path, source: str) -> dict[str, bytes]:
    """Row id -> the bytes of its video, for rows that can be used but for a missing caption."""
    reader, config = get_source(source), SourceConfig()
    layout = reader.find(root, config)
    assert layout is not None
    found = {}
    for clip in reader.clips(layout, config):
        if clip.problem is None or clip.problem[0] == "no_caption":
            try:
                with open_ref(clip.ref, root) as file:
                    found[clip.id] = file.read()
            except RowError as error:
                found[clip.id] = error.reason.encode()
    return found


def videos(root: Path) -> dict[str, bytes]:
    found = [path for path in root.rglob("*") if path.suffix.lower() == ".mp4"]
    return {path.name: path.read_bytes() for path in found}


def left_over(root: Path) -> list[Path]:
    endings = (".part", ".part.json", "~")
    return [path for path in root.rglob("*") if path.name.endswith(endings)]


# ---- what is fetched ----


@pytest.mark.parametrize("source", ["magicmotion", "openvid", "humanvid"])
def test_all_rows_read_like_the_published_layout(
    hub: Hub, sample: Path, tmp_path: Path, source: str
) -> None:
    report = hub.fetch(tmp_path, source, accept_pexels=True)
    fetched, published = contents(tmp_path, source), contents(sample, source)
    assert fetched.items() <= published.items()
    assert len(published) - len(fetched) <= (1 if source == "openvid" else 0)  # one has no caption
    assert report.complete == (source != "humanvid")  # one of its clips is gone
    assert not left_over(tmp_path)


def test_few_rows_cost_few_bytes(hub: Hub, tmp_path: Path) -> None:
    archives = {name: body for name, body in hub.files[OPEN].items() if is_lfs(name)}
    report = hub.fetch(tmp_path, "openvid", rows=3)
    got = videos(tmp_path)
    assert len(got) == 3
    assert report.sources[0].to_fetch == 3
    served = sum(hub.served[name] for name in archives)
    tails = 2 * TAIL  # the directories of two archives
    assert served <= sum(map(len, got.values())) + tails + 3 * 512
    assert served < sum(map(len, archives.values())) / 2


def test_a_smaller_draw_is_part_of_a_larger_one_and_the_seed_decides(
    hub: Hub, tmp_path: Path
) -> None:
    names = {}
    for folder, settings in {
        "three": {"rows": 3},
        "again": {"rows": 3},
        "six": {"rows": 6},
        "seed": {"rows": 3, "seed": 1},
    }.items():
        hub.fetch(tmp_path / folder, **settings)
        names[folder] = set(videos(tmp_path / folder))
    assert len(names["three"]) == 3
    assert names["three"] == names["again"]
    assert names["three"] < names["six"]
    assert names["three"] != names["seed"]


def test_rows_of_a_list_are_fetched_by_id_or_name(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_id = clip_id("magicmotion", "videos/30034.mp4")
    listed = tmp_path / "ids.txt"
    listed.write_text(f"videos/30000.mp4\n30017.mp4\n{by_id}\nno such row\n")
    hub.fetch(tmp_path / "data", ids=listed)
    assert set(videos(tmp_path / "data")) == {"30000.mp4", "30017.mp4", "30034.mp4"}
    assert "1 lines name no row" in caplog.text
    listed.write_text("nothing\n")
    with pytest.raises(UserError, match="names no row"):
        hub.fetch(tmp_path / "data", ids=listed)


def test_a_plan_fetches_tables_and_directories_only(hub: Hub, tmp_path: Path) -> None:
    report = hub.fetch(tmp_path, "magicmotion", "openvid", "humanvid", rows=4, plan=True)
    assert not videos(tmp_path)
    assert (tmp_path / "OpenVid-1M/data/train/OpenVidHD.csv").exists()
    assert "8 rows to fetch" in report.text()
    planned = report.sources[0].bytes_to_fetch
    hub.served.clear()
    hub.fetch(tmp_path, rows=4)
    members = sum(hub.served[name] for name in PARTS) - TAIL
    assert abs(members - planned) < 4096


def test_whole_archives_are_fetched_and_their_hashes_checked(
    hub: Hub, sample: Path, tmp_path: Path
) -> None:
    hub.fetch(tmp_path, whole=True)
    assert contents(tmp_path, "magicmotion") == contents(sample, "magicmotion")
    assert sum(hub.served[name] for name in PARTS) == sum(
        len(hub.files[MAGIC][name]) for name in PARTS
    )
    hub.wrong_bytes.add(PARTS[1])
    (tmp_path / "MagicData" / PARTS[1]).unlink()
    with pytest.raises(UserError, match="other bytes than the hub's hash promises"):
        hub.fetch(tmp_path, whole=True)
    assert not (tmp_path / "MagicData" / PARTS[1]).exists()


def test_whole_with_rows_fetches_only_the_archives_that_hold_them(hub: Hub, tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("celebv_-_Bdf9C0SAU_0.mp4\n")
    data = tmp_path / "data"
    hub.fetch(data, "openvid", ids=listed, whole=True)
    archives = sorted(path.name for path in (data / "OpenVid-1M/OpenVidHD").iterdir())
    assert archives == ["OpenVidHD.json", "OpenVidHD_part_1.zip"]


def test_pexels_clips_are_only_listed_until_the_terms_are_accepted(
    hub: Hub, tmp_path: Path
) -> None:
    report = hub.fetch(tmp_path, "humanvid", rows=5)
    assert not videos(tmp_path)
    listed = (tmp_path / "HumanVid/clips-to-download.txt").read_text().split()
    assert len(listed) == 5
    assert "forbid bulk downloads" in report.text()
    hub.fetch(tmp_path, "humanvid", rows=5, accept_pexels=True)
    assert set(videos(tmp_path)) <= {url.rsplit("/", 1)[-1] for url in listed}


def test_a_removed_clip_is_one_failed_row(hub: Hub, tmp_path: Path) -> None:
    report = hub.fetch(tmp_path, "humanvid", accept_pexels=True)
    (name,) = report.sources[0].failed
    assert name.startswith("6100008-")
    assert not report.complete
    assert name not in videos(tmp_path)


def test_with_a_caption_file_only_captioned_clips_are_drawn(hub: Hub, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    name = "4919657-hd_1920_1080_25fps.mp4"
    captions.write_text(f"file,text\n{name},A ball.\nhttp://other.host/x.mp4,A kite.\n")
    settings = SourceConfig(captions=str(captions))
    report = hub.fetch(tmp_path / "data", "humanvid", humanvid=settings, accept_pexels=True)
    assert set(videos(tmp_path / "data")) == {name}
    assert report.complete


def test_urls_on_other_hosts_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files[HUMAN]["pexels-vertical-urls-new.txt"] += b"http://169.254.169.254/1-hd.mp4\n"
    with pytest.raises(UserError, match=r"names the host 169\.254"):
        hub.fetch(tmp_path, "humanvid", accept_pexels=True)


def test_missing_url_lists_are_explained(hub: Hub, tmp_path: Path) -> None:
    lists = {name: hub.files[HUMAN].pop(name) for name in list(hub.files[HUMAN])}
    with pytest.raises(UserError, match="Google Drive"):
        hub.fetch(tmp_path, "humanvid")
    (tmp_path / "HumanVid").mkdir()
    for name, content in lists.items():
        (tmp_path / "HumanVid" / name).write_bytes(content)
    assert hub.fetch(tmp_path, "humanvid", rows=2).sources[0].chosen == 2


# ---- revisions ----


def test_the_commit_is_written_down_and_kept(hub: Hub, tmp_path: Path) -> None:
    hub.fetch(tmp_path, rows=1)
    record = json.loads((tmp_path / "fetch.json").read_text())
    assert record["sources"]["magicmotion"] == {"repo": MAGIC, "revision": COMMIT}
    hub.commit = "d" * 40
    assert hub.fetch(tmp_path, rows=1).sources[0].revision == COMMIT
    asked = hub.fetch(tmp_path, rows=1, revision=("magicmotion=main",))
    assert asked.sources[0].revision == "d" * 40


def test_a_table_that_the_user_changed_is_kept(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fetch(tmp_path, rows=1)
    table = tmp_path / "MagicData/MagicData.csv"
    table.write_text("video_path,caption\nvideos/30000.mp4,A ball.\n")
    assert hub.fetch(tmp_path).sources[0].chosen == 1
    assert "is kept" in caplog.text
    assert table.read_text().endswith("A ball.\n")


# ---- interruptions ----


def test_a_killed_fetch_goes_on_where_it_was(hub: Hub, sample: Path, tmp_path: Path) -> None:
    hub.bytes_per_s = 1_500_000
    code = (
        "import sys; from pathlib import Path; from colibri.curate.fetch import *;"
        "fetch(FetchConfig(sources=('magicmotion',), to=Path(sys.argv[1]), connections=2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 180
    while len(videos(tmp_path)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.bytes_per_s = None
    done = {name: (tmp_path / "MagicData/videos" / name).stat() for name in videos(tmp_path)}
    begun = [path for path in left_over(tmp_path) if path.name.endswith(".part")]
    in_part = sum(path.stat().st_size for path in begun if path.stem not in done)
    assert len(done) >= 4
    before = None
    while before != (before := sum(hub.served.values())):  # answers to the dead process run out
        time.sleep(0.5)
    hub.served.clear()
    report = hub.fetch(tmp_path)
    total = sum(map(len, videos(tmp_path).values()))
    had = sum(status.st_size for status in done.values()) + in_part
    assert sum(hub.served[name] for name in PARTS) <= total - had + TAIL + 32 * 256
    assert contents(tmp_path, "magicmotion") == contents(sample, "magicmotion")
    assert report.sources[0].present >= len(done)
    for name, status in done.items():
        assert (tmp_path / "MagicData/videos" / name).stat().st_mtime_ns == status.st_mtime_ns
    assert not left_over(tmp_path)


def test_finished_files_are_not_fetched_again_but_damaged_ones_are(
    hub: Hub, tmp_path: Path
) -> None:
    hub.fetch(tmp_path, rows=4)
    before = videos(tmp_path)
    hub.served.clear()
    hub.fetch(tmp_path, rows=4)
    assert sum(hub.served[name] for name in PARTS) <= TAIL
    name = max(before, key=lambda name: len(before[name]))
    path = tmp_path / "MagicData/videos" / name
    path.write_bytes(bytes(len(before[name])))
    hub.fetch(tmp_path, rows=4)
    assert path.read_bytes() == before[name]


def test_a_cut_answer_is_continued_not_repeated(hub: Hub, tmp_path: Path) -> None:
    hub.fetch(tmp_path / "plain", rows=4)
    expected = videos(tmp_path / "plain")
    hub.served.clear()
    hub.cut = dict.fromkeys(PARTS, 50_000)
    hub.fetch(tmp_path / "cut", rows=4)
    assert videos(tmp_path / "cut") == expected
    served = sum(hub.served[name] for name in PARTS)
    assert served <= sum(map(len, expected.values())) + TAIL + 4096


@pytest.mark.parametrize("whole", [False, True])
def test_a_changed_etag_starts_that_file_again(
    hub: Hub, sample: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    hub.fetch(tmp_path, whole=whole, plan=True)
    hub.cut = dict.fromkeys(PARTS, 20_000)
    web = Web(hub.url, None, sleep=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    if not whole:  # the directory has to be readable
        size = len(hub.files[MAGIC][PARTS[1]])
        hub.cut = {PARTS[0]: 20_000, PARTS[1]: size}
    with pytest.raises(KeyboardInterrupt):
        fetch(hub.config(tmp_path, whole=whole), web=web)
    assert any(path.stat().st_size for path in left_over(tmp_path))
    hub.cut, hub.version = {}, "2"
    hub.fetch(tmp_path, whole=whole)
    assert "changed on the server" in caplog.text
    assert "started again" in caplog.text
    assert contents(tmp_path, "magicmotion") == contents(sample, "magicmotion")


# ---- servers that say no ----


def test_busy_servers_are_asked_again_as_they_wish(hub: Hub, tmp_path: Path) -> None:
    hub.faults["MagicData.csv"] = [(429, {"Retry-After": "7"}), (500, {}), (503, {})]
    hub.fetch(tmp_path, rows=1)
    assert hub.naps == [7.0, 2.0, 4.0]


def test_a_server_that_stays_broken_ends_the_command(hub: Hub, tmp_path: Path) -> None:
    hub.faults["MagicData.csv"] = [(500, {})] * 20
    with pytest.raises(UserError, match=r"failed 6 times in a row \(HTTP 500\)"):
        hub.fetch(tmp_path, rows=1)
    hub.faults["MagicData.csv"] = [(429, {"Retry-After": "86400"})]
    with pytest.raises(UserError, match="asks to wait 86400 s"):
        hub.fetch(tmp_path, rows=1)


def test_a_server_without_ranges_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.ranges = False
    with pytest.raises(UserError, match="ignores byte ranges"):
        hub.fetch(tmp_path, rows=1)
    hub.fetch(tmp_path, whole=True)
    assert contents(tmp_path, "magicmotion")


def test_a_gated_or_unknown_repository_is_explained(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    with pytest.raises(UserError, match="HF_TOKEN"):
        hub.fetch(tmp_path, rows=1)
    with pytest.raises(UserError, match="set HF_TOKEN to a token that may read"):
        fetch(hub.config(tmp_path), web=Web(hub.url, None))
    hub.gated = False
    with pytest.raises(UserError, match="with a revision nowhere"):
        hub.fetch(tmp_path, revision=("nowhere",))


def test_the_token_goes_to_the_hub_only_and_into_no_log(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.fetch(tmp_path, rows=2)
    assert hub.logins == {"hub": {f"Bearer {TOKEN}"}, "cdn": {None}}
    assert TOKEN not in caplog.text
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)


def test_a_presigned_address_that_ran_out_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    web = Web(hub.url, None)
    hub.fetch(tmp_path, plan=True)
    hub.faults[PARTS[0]] = []
    file = HubFile(
        path=PARTS[0],
        url=f"{hub.url}/datasets/{MAGIC}/resolve/{COMMIT}/{PARTS[0]}",
        size_bytes=len(hub.files[MAGIC][PARTS[0]]),
        sha256=None,
        blob_id=None,
    )
    pieces: list[bytes] = []
    web.read(file.url, 0, 10, pieces.append)
    hub.faults[PARTS[0]] = [(403, {})]
    web.read(file.url, 10, 20, pieces.append)
    web.close()
    assert b"".join(pieces) == hub.files[MAGIC][PARTS[0]][:20]


# ---- zips ----


def test_a_member_with_wrong_bytes_is_refused_and_named(hub: Hub, tmp_path: Path) -> None:
    body = bytearray(hub.files[MAGIC][PARTS[0]])
    body[3000] ^= 1
    hub.files[MAGIC][PARTS[0]] = bytes(body)
    report = hub.fetch(tmp_path)
    assert list(report.sources[0].failed) == ["30000.mp4"]
    assert "CRC-32" in report.text()
    assert not report.complete
    assert "30000.mp4" not in videos(tmp_path)
    assert len(videos(tmp_path)) > 10
    assert not left_over(tmp_path)


def test_names_that_leave_the_folder_are_refused(hub: Hub, tmp_path: Path) -> None:
    names = ["../../../escaped.mp4", "/absolute.mp4", "videos/../../up.mp4", "videos/good.mp4"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for name in names:
            made.writestr(zipfile.ZipInfo(name), b"video " + name.encode())
    table = "video_path,caption\n" + "".join(
        f"videos/{name.rsplit('/', 1)[-1]},A ball.\n" for name in names
    )
    table += "../../../row.mp4,A ball.\n"
    hub.files[MAGIC] = {"videos.zip": packed.getvalue(), "MagicData.csv": table.encode()}
    data = tmp_path / "a/b/data"
    report = hub.fetch(data)
    assert list(videos(tmp_path)) == ["good.mp4"]
    assert report.sources[0].refused == {"unsafe_path": 4}


def test_zip64_deflated_and_members_across_borders(hub: Hub, tmp_path: Path) -> None:
    bodies = {f"clips/{index}.mp4": os.urandom(30_000) + bytes(40_000) for index in range(9)}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for index, (name, body) in enumerate(bodies.items()):
            made_of = zipfile.ZipInfo(name)
            made_of.compress_type = zipfile.ZIP_DEFLATED if index % 2 else zipfile.ZIP_STORED
            with made.open(made_of, "w", force_zip64=True) as member:
                member.write(body)
    content = packed.getvalue()
    sizes = [len(content) // 5 + 1] * 5
    files = hub.files.setdefault("me/zips", {})
    for index, size in enumerate(sizes):
        files[f"big.zip.part_a{chr(97 + index)}"] = content[index * size : (index + 1) * size]
    web = Web(hub.url, None)
    parts = group_parts(
        HubFile(
            path=name,
            url=f"{hub.url}/datasets/me/zips/resolve/main/{name}",
            size_bytes=len(body),
            sha256=None,
            blob_id=None,
        )
        for name, body in files.items()
    )
    remote = RemoteZip(web, parts[0])
    for name, body in bodies.items():
        (found,) = remote.members[name.rsplit("/", 1)[-1]]
        target = tmp_path / name
        fetch_member(remote, found, target)
        assert target.read_bytes() == body
    web.close()


def test_a_zip64_end_record_is_read(hub: Hub, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for index in range(65_600):  # more than a plain end record can count
            made.writestr(zipfile.ZipInfo(f"{index}.txt"), b"")
        made.writestr(zipfile.ZipInfo("last.mp4"), b"the last")
    hub.files["me/zips"] = {"many.zip": packed.getvalue()}
    web = Web(hub.url, None)
    file = HubFile(
        path="many.zip",
        url=f"{hub.url}/datasets/me/zips/resolve/main/many.zip",
        size_bytes=len(packed.getvalue()),
        sha256=None,
        blob_id=None,
    )
    remote = RemoteZip(web, (file,))
    fetch_member(remote, remote.members["last.mp4"][0], tmp_path / "last.mp4")
    assert (tmp_path / "last.mp4").read_bytes() == b"the last"
    web.close()


def test_a_missing_part_is_named(hub: Hub, tmp_path: Path) -> None:
    hub.files[MAGIC].pop(PARTS[0])
    with pytest.raises(UserError, match=r"no videos\.zip\.part_aa"):
        hub.fetch(tmp_path)


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for settings, message in (
        ({"rows": 1, "ids": tmp_path}, "both choose rows"),
        ({"rows": 0}, "fetches nothing"),
        ({"sources": ("lab.readers:Clips",)}, "cannot be fetched"),
        ({"sources": ()}, "names no data set"),
    ):
        with pytest.raises(UserError, match=message):
            fetch(FetchConfig(to=tmp_path, **settings), web=Web("http://127.0.0.1:9", None))
