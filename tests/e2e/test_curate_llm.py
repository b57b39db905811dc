"""`curate run` with language models, as a person runs it: real processes, real kills.

The scripted endpoint stands in for good and for failing servers; real vLLM servers and engines are
met in test_curate_vllm.py.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from colibri.core.shards import read_rows
from colibri.curate.llm.cache import RequestCache

pytestmark = pytest.mark.slow

SERVER = Path(__file__).parents[1] / "support" / "chat_endpoint.py"


class Endpoint:
    """A scripted endpoint in a process of its own, on a port that stays the same."""

    def __init__(self, log: Path) -> None:
        self.log, self.port = log, 0
        self.process: subprocess.Popen[str] | None = None

    def start(self, plan: str = "good", *flags: str) -> str:
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(SERVER), "--port", str(self.port), "--plan", plan),
                *("--log", str(self.log), *flags),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        return f"http://127.0.0.1:{self.port}/v1"

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def requests(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    server = Endpoint(tmp_path / "requests.jsonl")
    yield server
    server.stop()


def _command(sample: Path, out: Path, url: str, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "colibri.curate", "run", "--sources", "magicmotion,openvid"),
        *("--data-root", str(sample), "--out", str(out), "--frame.reader", "none"),
        *("--captioner", "openai", "--llm.endpoint", url),
        *("--judge", "openai", "--judge-llm.endpoint", url, "--judge-check", "0.3"),
        *("--llm.give-up-s", "120", "--judge-llm.give-up-s", "120"),
        *flags,
    ]


def _run(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, **settings
    )


def _shards(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in ("data", "rejected", "quarantine")
        for path in sorted((out / folder).glob("*.parquet"))
    } | {"manifest": (out / "manifest.json").read_bytes()}


def _manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    counts = found["counts"]
    assert counts["in"] == counts["kept"] + counts["rejected"] + counts["quarantined"]
    return found


def _rows(out: Path, *folders: str) -> list[dict[str, Any]]:
    names = folders or ("data", "rejected", "quarantine")
    return [
        row
        for name in names
        for path in sorted((out / name).glob("*.parquet"))
        for row in read_rows(path)
    ]


def test_two_models_make_a_data_set_and_each_row_says_who(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    result = _run(_command(sample, out, endpoint.start()))
    assert result.returncode == 0, result.stderr
    manifest = _manifest(out)
    assert manifest["counts"]["kept"] >= 35
    assert manifest["captioner"]["name"] == "Qwen/Qwen2.5-14B-Instruct"
    assert manifest["judge"]["model"]["name"] == "Qwen/Qwen2.5-72B-Instruct"
    assert manifest["judge_checks"]["anchors"]["right"] >= 10
    assert manifest["judge_checks"]["order_swap"]["same_decision"] == 1.0
    for row in _rows(out, "data"):
        assert row["captioner"] == "Qwen/Qwen2.5-14B-Instruct"
        assert row["judge"]["by"] == "Qwen/Qwen2.5-72B-Instruct"
        assert len(row["judge"]["rules"]) == 6
        facts = json.loads(row["provenance"])
        assert facts["captioner"]["prompt"] == facts["judge"]["prompt"]
        assert facts["attempts"][-1]["caption"] == row["caption"]
    log = (out / "run.log.jsonl").read_text().splitlines()
    assert any("engine_idle" in json.loads(line) for line in log)
    before = len(endpoint.requests())
    endpoint.stop()
    again = _run(_command(sample, out, f"http://127.0.0.1:{endpoint.port}/v1"))
    assert again.returncode == 0, again.stderr  # nothing is left to ask
    assert len(endpoint.requests()) == before


def test_killed_again_and_again_no_finished_request_is_sent_twice(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    url = endpoint.start("good", "--delay", "0.4")
    few = ("--llm.in-flight", "4", "--judge-llm.in-flight", "4", "--batch-rows", "8")
    calm, out = tmp_path / "calm", tmp_path / "out"
    result = _run(_command(sample, calm, url, *few))
    assert result.returncode == 0, result.stderr
    endpoint.log.unlink()
    rng = random.Random(11)
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(
            _command(sample, out, url, *few), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Killed at any moment once some more requests have come in.
        goal = len(endpoint.requests()) + rng.randint(3, 25)
        while process.poll() is None and len(endpoint.requests()) < goal:
            time.sleep(rng.uniform(0.01, 0.05))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills == 4
    assert len(RequestCache(out / "state" / "requests.sqlite")) > 0
    last = _run(_command(sample, out, url, *few))
    assert last.returncode == 0, last.stderr
    assert _shards(out) == _shards(calm)
    sent = [entry["digest"] for entry in endpoint.requests()]
    # Only what was on its way at a kill may be sent again: at most in-flight of them each time.
    assert len(sent) - len(set(sent)) <= 4 * kills
    assert len(set(sent)) == len(RequestCache(out / "state" / "requests.sqlite"))


def test_an_endpoint_that_dies_ends_the_run_cleanly_and_the_next_goes_on(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    url = endpoint.start("good", "--die-after", "25")
    short = ("--llm.give-up-s", "2", "--llm.in-flight", "8")
    result = _run(_command(sample, out, url, *short))
    assert result.returncode == 2
    assert "has not answered" in result.stderr
    assert "Traceback" not in result.stderr
    answered = len(RequestCache(out / "state" / "requests.sqlite"))
    assert answered >= 20
    endpoint.stop()
    endpoint.log.unlink()
    endpoint.start("good")
    again = _run(_command(sample, out, url, *short))
    assert again.returncode == 0, again.stderr
    total = len(RequestCache(out / "state" / "requests.sqlite"))
    assert len(endpoint.requests()) == total - answered
    _manifest(out)


def test_a_rough_endpoint_loses_and_doubles_nothing(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    result = _run(_command(sample, out, endpoint.start("rough", "--delay", "0.05")))
    assert result.returncode == 0, result.stderr
    manifest = _manifest(out)
    assert manifest["counts"]["kept"] >= 30
    rows = _rows(out)
    assert len({row["id"] for row in rows}) == len(rows) == manifest["counts"]["in"]
    for row in _rows(out, "data"):
        # What the endpoint says depends on the original alone, so a swap of rows would show.
        attempts = json.loads(row["provenance"])["attempts"]
        assert attempts[-1]["broken"] == []
    assert any(len(json.loads(row["provenance"])["attempts"]) > 1 for row in _rows(out, "data"))


def test_a_captioner_that_never_obeys_fills_the_quarantine_with_reasons(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    result = _run(_command(sample, out, endpoint.start("stubborn")))
    assert result.returncode == 0, result.stderr
    assert _manifest(out)["counts"]["kept"] == 0
    refused = [row for row in _rows(out, "quarantine") if row["stage"] == "recaption"]
    assert len(refused) >= 35
    for row in refused:
        assert row["reason"] == "breaks_rules"
        assert "after 2 repairs" in row["error"]
        assert len(json.loads(row["attempts"])) == 3


def test_one_answer_for_all_raises_an_alarm(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    result = _run(_command(sample, tmp_path / "out", endpoint.start("same")))
    assert result.returncode == 0, result.stderr
    assert "alarm: 21 rows were answered with 'A man walks.'" in result.stderr


def test_phases_run_alone_and_another_judge_judges_without_a_new_caption(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    url = endpoint.start()
    first = _run(_command(sample, out, url, "--stop-after", "recaption"))
    assert first.returncode == 0, first.stderr
    assert "goes on" in first.stdout
    assert not (out / "manifest.json").exists()
    models = {entry["body"]["model"] for entry in endpoint.requests()}
    assert models == {"Qwen/Qwen2.5-14B-Instruct"}
    assert _run(_command(sample, out, url)).returncode == 0
    endpoint.log.unlink()
    other = _run(_command(sample, out, url, "--judge-model", "another/judge"))
    assert other.returncode == 0, other.stderr
    assert {entry["body"]["model"] for entry in endpoint.requests()} == {"another/judge"}
    assert {row["judge"]["by"] for row in _rows(out, "data")} == {"another/judge"}


def test_a_second_judge_is_heard_after_a_finished_run_and_a_threshold_asks_nobody(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    url = endpoint.start()
    assert _run(_command(sample, out, url)).returncode == 0
    assert "second_judge" not in _manifest(out)["judge_checks"]
    endpoint.log.unlink()
    second = ("--second-judge", "openai", "--second-judge-model", "another/judge")
    second = (*second, "--second-judge-llm.endpoint", url)
    assert _run(_command(sample, out, url, *second)).returncode == 0
    assert {entry["body"]["model"] for entry in endpoint.requests()} == {"another/judge"}
    found = _manifest(out)["judge_checks"]
    assert found["second_judge"]["model"]["name"] == "another/judge"
    assert found["second_judge"]["same_decision"] == 1.0
    endpoint.stop()
    assert _run(_command(sample, out, url, *second, "--min-score", "0.9")).returncode == 0
    assert _manifest(out)["judge_checks"] == found  # all rows pass both thresholds


def test_the_cache_alone_makes_the_same_shards_without_any_model(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out, replayed = tmp_path / "out", tmp_path / "replayed"
    url = endpoint.start("rough")
    assert _run(_command(sample, out, url)).returncode == 0
    endpoint.stop()
    cache = tmp_path / "cache.sqlite"
    shutil.copy(out / "state" / "requests.sqlite", cache)
    flags = ("--request-cache", str(cache), "--from-cache")
    result = _run(_command(sample, replayed, url, *flags))
    assert result.returncode == 0, result.stderr
    assert _shards(replayed) == _shards(out)
    missing = _run(_command(sample, tmp_path / "x", url, "--seed", "5", *flags))
    assert missing.returncode == 2
    assert "not in the cache" in missing.stderr


def test_clips_without_captions_are_described_from_their_frames(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    url = endpoint.start()
    command = [
        *(sys.executable, "-m", "colibri.curate", "run", "--sources", "humanvid"),
        *("--data-root", str(sample), "--out", str(out)),
        *("--describer", "openai", "--describer-llm.endpoint", url),
    ]
    result = _run(command)
    assert result.returncode == 0, result.stderr
    manifest = _manifest(out)
    assert manifest["describer"]["name"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert manifest["counts"]["kept"] + manifest["counts"]["rejected"] >= 10
    for row in _rows(out, "data"):
        assert row["caption_original"].startswith("A person walks across a square.")
        assert json.loads(row["provenance"])["describer"]["name"] == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_retry_asks_refused_rows_again_with_other_seeds(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out = tmp_path / "out"
    url = endpoint.start("stubborn")
    assert _run(_command(sample, out, url)).returncode == 0
    endpoint.stop()
    endpoint.start("good")
    before = len(endpoint.requests())
    command = [sys.executable, "-m", "colibri.curate", "retry", str(out), "--reason"]
    result = _run([*command, "breaks_rules"])
    assert result.returncode == 0, result.stderr
    assert len(endpoint.requests()) > before
    assert _manifest(out)["counts"]["kept"] >= 30


def test_the_key_is_in_no_file_and_no_output(
    sample: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    out, key = tmp_path / "out", "sk-very-secret-123"
    url = endpoint.start("good", "--key", key)
    environment = {**os.environ, "OPENAI_API_KEY": key}
    result = _run(_command(sample, out, url), env=environment)
    assert result.returncode == 0, result.stderr
    assert key not in result.stdout + result.stderr
    for path in out.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
    wrong = _run(
        _command(sample, tmp_path / "b", url), env={**environment, "OPENAI_API_KEY": "sk-x"}
    )
    assert wrong.returncode == 2
    assert "OPENAI_API_KEY" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_settings_that_cannot_work_are_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    base = [sys.executable, "-m", "colibri.curate", "run", "--out", str(tmp_path / "o")]
    judge = ("--judge", "openai", "--judge-llm.endpoint", "http://x/v1")
    for flags, word in (
        (("--captioner", "openai"), "--llm.endpoint"),
        (("--judge", "vllm", "--judge-llm.endpoint", "http://x/v1"), "only for"),
        (("--captioner", "vllm", "--llm.in-flight", "0"), "at least 1"),
        (("--describer", "openai", "--frame.reader", "none"), "--describer"),
        ((*judge, "--second-judge", "openai"), "--second-judge-llm.endpoint"),
        (("--second-judge", "transformers"), "the embedded judge"),
    ):
        result = _run([*base, *flags])
        assert result.returncode == 2, flags
        assert word in result.stderr
        assert "Traceback" not in result.stderr
    assert time.monotonic() - began < 120
