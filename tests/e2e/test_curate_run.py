"""`curate run` as a person runs it: a process, a real Ray, real MP4 files, real kills."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from colibri.core.shards import read_rows

SOURCES = "magicmotion,openvid,humanvid"


def _command(sample: Path, out: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "colibri.curate", "run", "--sources", SOURCES),
        *("--data-root", str(sample), "--out", str(out), "--batch-rows", "4"),
        *("--humanvid.captions", str(sample / "HumanVid" / "captions.csv")),
        *flags,
    ]


def _run(sample: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(sample, out, *flags), capture_output=True, text=True, timeout=600, check=False
    )


def _shards(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in ("data", "rejected", "quarantine")
        for path in sorted((out / folder).glob("*.parquet"))
    } | {"manifest": (out / "manifest.json").read_bytes()}


@pytest.fixture(scope="session")
def finished(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one undisturbed run."""
    out = tmp_path_factory.mktemp("run") / "out"
    result = _run(sample, out)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.slow
def test_every_row_is_kept_rejected_or_quarantined_with_a_reason(finished: Path) -> None:
    counts = json.loads((finished / "manifest.json").read_text())["counts"]
    assert counts["in"] >= 60
    assert counts["in"] == counts["kept"] + counts["rejected"] + counts["quarantined"]
    ids = [
        row["id"]
        for folder in ("data", "rejected", "quarantine")
        for path in sorted((finished / folder).glob("*.parquet"))
        for row in read_rows(path, ["id"])
    ]
    assert len(ids) == len(set(ids)) == counts["in"]
    for folder in ("rejected", "quarantine"):
        for path in (finished / folder).glob("*.parquet"):
            assert all(row["reason"] for row in read_rows(path, ["reason"]))
    assert counts["kept"] >= 30
    for entry in counts["by_source"].values():
        assert entry["kept"] > 0


@pytest.mark.slow
def test_datasets_opens_the_folder_and_sees_kept_rows_only(finished: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    opened = load_dataset(str(finished), cache_dir=str(tmp_path))["train"]
    manifest = json.loads((finished / "manifest.json").read_text())
    assert len(opened) == manifest["counts"]["kept"]
    row = opened[0]
    assert row["image"].size[0] >= 16
    assert row["caption"]
    assert row["split"] in ("train", "held-out")


@pytest.mark.slow
def test_no_kept_caption_breaks_a_rule(finished: Path) -> None:
    from colibri.core.captions.rules import check, violates

    for path in (finished / "data").glob("*.parquet"):
        for row in read_rows(path, ["caption", "caption_original"]):
            assert violates(check(row["caption_original"], row["caption"])) == []


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    sample: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rng = random.Random(7)
    kills = 0
    while kills < 6:
        process = subprocess.Popen(
            _command(sample, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(1.0, 9.0))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 2
    committed = {path.name: path.stat().st_mtime_ns for path in _rows(out)}
    last = _run(sample, out)
    assert last.returncode == 0, last.stderr
    assert _shards(out) == _shards(finished)
    after = {path.name: path.stat().st_mtime_ns for path in _rows(out)}
    assert committed.items() <= after.items(), "a committed batch was written again"


def _rows(out: Path) -> list[Path]:
    return list((out / "state" / "rows").glob("*.parquet"))


@pytest.mark.slow
def test_a_killed_worker_does_not_change_the_bytes(
    sample: Path, finished: Path, tmp_path: Path
) -> None:
    import psutil

    out = tmp_path / "out"
    process = subprocess.Popen(
        _command(sample, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    killed = 0
    deadline = time.monotonic() + 120
    while process.poll() is None and killed < 2 and time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                name = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if name.startswith("ray::") and "MapBatches" in name:
                child.kill()
                killed += 1
                break
        time.sleep(0.3)
    _, stderr = process.communicate(timeout=600)
    assert killed, "no worker was seen at work"
    assert process.returncode == 0, stderr
    assert _shards(out) == _shards(finished)


@pytest.mark.slow
def test_a_second_run_on_the_same_folder_is_refused(sample: Path, tmp_path: Path) -> None:
    from colibri.curate.store import exclusive

    out = tmp_path / "out"
    with exclusive(out):
        result = _run(sample, out)
    assert result.returncode == 2
    assert "is in use by another run" in result.stderr
    assert f"process {os.getpid()}" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_done_already_is_not_done_again_and_a_new_keep_only_selects(
    sample: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before = {path.name: path.stat().st_mtime_ns for path in _rows(out)}
    result = _run(sample, out, "--keep", "10")
    assert result.returncode == 0, result.stderr
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["kept"] == 10
    assert {path.name: path.stat().st_mtime_ns for path in _rows(out)} == before
    assert _run(sample, out).returncode == 0
    assert _shards(out) == _shards(finished)


@pytest.mark.slow
def test_retry_does_the_named_reason_again_once_the_cause_is_mended(
    sample: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(sample, data)
    victim = sorted((data / "HumanVid" / "videos").glob("*.mp4"))[3]
    content = victim.read_bytes()
    status = victim.stat()
    victim.write_bytes(b"\0" * len(content))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _run(data, out).returncode == 0
    before = json.loads((out / "manifest.json").read_text())["counts"]
    out = out.rename(tmp_path / "moved")
    victim.write_bytes(content)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    command = [sys.executable, "-m", "colibri.curate", "retry", str(out), "--reason"]
    result = subprocess.run(
        [*command, "unreadable_video"], capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr
    after = json.loads((out / "manifest.json").read_text())["counts"]
    assert after["quarantined"] == before["quarantined"] - 1
    wrong = subprocess.run(
        [*command, "no_such"], capture_output=True, text=True, timeout=600, check=False
    )
    assert wrong.returncode == 2
    assert "no row of" in wrong.stderr


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_cleanly_and_resumes(
    sample: Path, finished: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        out = small / "out"
        result = _run(sample, out)
        assert result.returncode == 2
        assert "disk is full" in result.stderr
        assert "Traceback" not in result.stderr
        subprocess.run(["mount", "-o", "remount,size=512m", str(small)], check=True)
        again = _run(sample, out)
        assert again.returncode == 0, again.stderr
        assert _shards(out) == _shards(finished)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


@pytest.mark.slow
def test_a_video_that_ends_its_worker_costs_one_row_not_the_run(
    sample: Path, finished: Path, tmp_path: Path
) -> None:
    # A decoder that dies on one file, put into every process of the run.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "try:\n"
        "    import colibri.curate.stages as stages\n"
        "except ImportError:\n"
        "    stages = None\n"
        "if stages is not None:\n"
        "    whole = stages.first_frame\n"
        "    def first_frame(ref, root, config):\n"
        "        if '6100002' in ref.video:\n"
        "            os.kill(os.getpid(), 9)\n"
        "        return whole(ref, root, config)\n"
        "    stages.first_frame = first_frame\n"
    )
    out = tmp_path / "out"
    result = subprocess.run(
        _command(sample, out),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    crashed = [
        row["video"]
        for path in (out / "quarantine").glob("*.parquet")
        for row in read_rows(path)
        if row["reason"] == "decoder_crash"
    ]
    assert len(crashed) == 1
    assert "6100002" in crashed[0]
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    whole = json.loads((finished / "manifest.json").read_text())["counts"]
    assert counts["in"] == whole["in"]
    assert counts["in"] == counts["kept"] + counts["rejected"] + counts["quarantined"]


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.5)
    pytest.fail("the Ray head did not come up")


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_shards(sample: Path, finished: Path, tmp_path: Path) -> None:
    ray = str(Path(sys.executable).with_name("ray"))
    port = 20_000 + os.getpid() % 10_000
    start = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=2"]
    head = subprocess.Popen(
        [*start, "--include-dashboard=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(port)
        result = _run(sample, tmp_path / "out", "--ray-address", f"127.0.0.1:{port}")
    finally:
        head.terminate()
        head.wait(60)
    assert result.returncode == 0, result.stderr
    assert _shards(tmp_path / "out") == _shards(finished)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named(sample: Path, tmp_path: Path) -> None:
    result = _run(sample, tmp_path / "out", "--ray-address", "127.0.0.1:1")
    assert result.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr
