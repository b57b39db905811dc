"""`curate` against real vLLM: engines in Ray actors, ray.data.llm, and a running server.

The model is a random Qwen2 of two layers, so all that it says has to be refused, with reasons. vLLM
lives in an environment of its own, `.venv-vllm`, which `make test` makes.
"""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from colibri.core.shards import read_rows

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm" / "bin"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (VLLM / "vllm").exists(), reason="no .venv-vllm: run `make setup-vllm`"),
]

SMALL = ("--llm.max-tokens", "24", "--llm.max-model-len", "4096", "--llm.eager")
SMALL_JUDGE = tuple(flag.replace("--llm", "--judge-llm") for flag in SMALL)


def _environment() -> dict[str, str]:
    path = f"{VLLM}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny-qwen"
    script = ROOT / "tests" / "support" / "tiny_qwen.py"
    made = subprocess.run(
        [VLLM / "python", script, folder], capture_output=True, text=True, timeout=120, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `vllm serve`."""
    port = 21_000 + os.getpid() % 9_000
    log = (tmp_path_factory.mktemp("server") / "log").open("w")
    command = [
        *(VLLM / "python", "-m", "vllm.entrypoints.openai.api_server", "--model", model),
        *(
            "--port",
            str(port),
            "--served-model-name",
            "tiny",
            "--max-model-len",
            "4096",
            "--enforce-eager",
            "--dtype",
            "bfloat16",
        ),
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"),
    ]
    process = subprocess.Popen(
        command, stdout=log, stderr=log, env=_environment(), start_new_session=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert process.poll() is None, Path(log.name).read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"{url}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _command(sample: Path, out: Path, *flags: str) -> list[str]:
    return [
        *(str(VLLM / "curate"), "run", "--sources", "magicmotion", "--data-root", str(sample)),
        *("--out", str(out), "--frame.reader", "none", *flags),
    ]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, env=_environment()
    )


def _all_refused(out: Path) -> None:
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["kept"] == 0
    assert counts["in"] == counts["rejected"] + counts["quarantined"]
    rows = [row for path in (out / "quarantine").glob("*.parquet") for row in read_rows(path)]
    said = [row for row in rows if row["stage"] == "recaption"]
    assert len(said) >= 15
    for row in said:
        assert row["reason"] in ("breaks_rules", "cut_off", "empty_answer")
        assert row["error"]
        assert len(json.loads(row["attempts"])) == 3


def test_a_model_in_ray_actors_talks_nonsense_and_all_of_it_is_refused(
    sample: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = _command(sample, out, "--captioner", "vllm", "--model", str(model), *SMALL)
    result = _run(command)
    assert result.returncode == 0, result.stderr[-3000:]
    _all_refused(out)
    log = [json.loads(line) for line in (out / "run.log.jsonl").read_text().splitlines()]
    assert any(entry.get("output_tokens_per_s", 0) > 0 for entry in log)


def test_an_engine_that_is_killed_is_started_again_and_its_rows_return(
    sample: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    long = ("--llm.max-tokens", "120", "--llm.max-model-len", "4096", "--llm.eager")
    slow = ("--llm.in-flight", "2")
    process = subprocess.Popen(
        _command(sample, out, "--captioner", "vllm", "--model", str(model), *long, *slow),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    killed = 0
    deadline = time.monotonic() + 200
    while process.poll() is None and not killed and time.monotonic() < deadline:
        if _asked(out) >= 3:
            for child in psutil.Process(process.pid).children(recursive=True):
                if "EngineCore" in " ".join(_words(child)):
                    child.kill()
                    killed += 1
        time.sleep(0.05)
    _, stderr = process.communicate(timeout=900)
    assert killed, "no engine was seen at work"
    assert process.returncode == 0, stderr[-3000:]
    assert "started again" in stderr
    _all_refused(out)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _asked(out: Path) -> int:
    from colibri.curate.llm.cache import RequestCache

    path = out / "state" / "requests.sqlite"
    return len(RequestCache(path)) if path.exists() else 0


def test_ray_data_answers_each_question_under_its_own_key(model: Path, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import asyncio, sys\n"
        "from colibri.core.captions.chat import Request, Sampling\n"
        "from colibri.curate.cluster import ray_session\n"
        "from colibri.curate.llm.engines import EngineConfig, open_backend\n"
        "model = sys.argv[1]\n"
        "config = EngineConfig(through='ray-data', eager=True, dtype='bfloat16')\n"
        "def request(index, tokens):\n"
        "    message = {'role': 'user', 'content': f'a man walks a dog {index}'}\n"
        "    sampling = Sampling(max_tokens=tokens, seed=index)\n"
        "    return Request(model=model, messages=(message,), sampling=sampling)\n"
        "async def main():\n"
        "    backend = open_backend('vllm', model, config)\n"
        "    asked = [request(index, 3 + index) for index in range(12)]\n"
        "    answers = await asyncio.gather(*map(backend.answer, asked))\n"
        "    for index, answer in enumerate(answers):\n"
        "        assert answer.output_tokens <= 3 + index, (index, answer)\n"
        "        assert answer.finish == 'stop' or answer.output_tokens == 3 + index\n"
        "    print('lengths', [answer.output_tokens for answer in answers])\n"
        "    await backend.close()\n"
        "if __name__ == '__main__':\n"
        "    with ray_session(None, 2):\n"
        "        asyncio.run(main())\n"
    )
    result = _run([str(VLLM / "python"), str(script), str(model)])
    assert result.returncode == 0, result.stderr[-3000:]
    lengths = re.search(r"lengths (\[.*\])", result.stdout)
    assert lengths is not None
    assert len(set(json.loads(lengths[1]))) >= 6


def test_a_running_server_rewrites_and_judges_with_structured_answers(
    sample: Path, server: str, tmp_path: Path
) -> None:
    out = tmp_path / "rewritten"
    flags = ("--captioner", "openai", "--model", "tiny", "--llm.endpoint", server)
    result = _run(_command(sample, out, *flags, "--llm.max-tokens", "24"))
    assert result.returncode == 0, result.stderr[-3000:]
    _all_refused(out)

    judged = tmp_path / "judged"
    flags = ("--judge", "openai", "--judge-model", "tiny", "--judge-llm.endpoint", server)
    result = _run(_command(sample, judged, *flags, "--judge-llm.max-tokens", "900"))
    assert result.returncode == 0, result.stderr[-3000:]
    manifest = json.loads((judged / "manifest.json").read_text())
    counts = manifest["counts"]
    assert counts["in"] == counts["kept"] + counts["rejected"] + counts["quarantined"]
    assert (
        manifest["judge_checks"]["anchors"]["right"] < manifest["judge_checks"]["anchors"]["known"]
    )
    rows: list[dict[str, Any]] = [
        row
        for folder in ("data", "rejected", "quarantine")
        for path in (judged / folder).glob("*.parquet")
        for row in read_rows(path)
    ]
    unreadable = [
        row for row in rows if row["reason" if "reason" in row else "id"] == "judge_unreadable"
    ]
    scored = [row for row in rows if row.get("judge") and row["judge"]["by"] == "tiny"]
    assert len(unreadable) + len(scored) >= 15
    for row in unreadable:
        assert "3 times" in row["error"]
