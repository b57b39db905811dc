"""`curate plan` and `curate replay`, as commands, on real rows and a scripted endpoint."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_endpoint import Script, serve


def _curate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "colibri.curate", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = serve(0, Script("good", 0.0, None), None, None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_a_plan_without_a_trial_counts_and_estimates(sample: Path) -> None:
    result = _curate(
        *("plan", "--sources", "magicmotion,openvid", "--data-root", sample, "--calibrate", 0),
        *("--captioner", "vllm", "--judge", "vllm", "--judge-llm.quantization", "awq", "--json"),
    )
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["rows"] == sum(plan["by_source"].values()) == 56
    assert plan["usable"] == plan["rows"] - sum(plan["problems"].values())
    frames, recaption, judge = plan["steps"]
    assert frames["hours"] is None
    assert recaption["weights_gb"] == pytest.approx(28)
    assert judge["weights_gb"] == pytest.approx(72 * 0.56)
    assert recaption["prompt_tokens"] > 100 * plan["usable"]


def test_a_plan_leaves_out_the_rows_that_the_run_would_exclude(sample: Path) -> None:
    def counts(*flags: str) -> tuple[int, dict[str, int]]:
        captions = sample / "HumanVid" / "captions.csv"
        result = _curate(
            *("plan", "--sources", "humanvid", "--data-root", sample, "--calibrate", 0, "--json"),
            *("--humanvid.captions", captions, *flags),
        )
        assert result.returncode == 0, result.stderr
        plan = json.loads(result.stdout)
        return plan["usable"], plan["problems"]

    usable, problems = counts()
    assert usable > 0
    assert counts("--licence-policy", "exclude") == (0, {"licence": usable} | problems)


@pytest.mark.slow
def test_a_trial_gives_hours_with_an_interval(sample: Path, endpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = _curate(
        *("plan", "--sources", "openvid", "--data-root", sample, "--calibrate", 12, "--json"),
        *("--captioner", "openai", "--llm.endpoint", endpoint, "--out", out),
    )
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["calibrated_rows"] == 12
    frames, recaption, judge = plan["steps"]
    for step in (frames, recaption, judge):
        assert 0 <= step["hours_low"] <= step["hours"] <= step["hours_high"]
    assert recaption["prompt_tokens"] > 0
    assert plan["out_gb"] > 0
    assert plan["videos_missing"] == 1
    assert not out.exists()


@pytest.mark.slow
def test_a_replay_holds_until_an_answer_was_changed(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = _curate(
        *("run", "--sources", "magicmotion", "--data-root", sample, "--out", out),
        *("--frame.reader", "none", "--no-report"),
    )
    assert run.returncode == 0, run.stderr
    good = _curate("replay", out, "--sample", 10)
    assert good.returncode == 0, good.stderr
    assert good.stdout.count("10/10 the same") == 2
    assert "deterministic" in good.stdout
    for path in (out / "state" / "rows").glob("*.parquet"):
        table = pq.read_table(path)
        captions = [f"{text} Indeed." if text else text for text in table["caption"].to_pylist()]
        index = table.schema.get_field_index("caption")
        pq.write_table(table.set_column(index, "caption", [captions]), path)
    bad = _curate("replay", out, "--sample", 10)
    assert bad.returncode == 1
    assert "BROKEN" in bad.stdout
    shard = next((out / "data").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes() + b" ")
    changed = _curate("replay", out)
    assert changed.returncode == 2
    assert "was changed after the run" in changed.stderr
    shard.unlink()
    gone = _curate("replay", out)
    assert gone.returncode == 2
    assert f"{shard} is missing" in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.slow
def test_a_replay_asks_a_model_again(sample: Path, endpoint: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ("--llm.endpoint", endpoint, "--judge-llm.endpoint", endpoint)
    run = _curate(
        *("run", "--sources", "magicmotion", "--data-root", sample, "--out", out),
        *("--frame.reader", "none", "--captioner", "openai", "--judge", "openai", *flags),
    )
    assert run.returncode == 0, run.stderr
    again = _curate("replay", out, "--sample", 8)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("8/8 the same") == 2
    assert "seeded" in again.stdout
