"""Prompts rewritten under the rules of the training: by rules, by a model, by an endpoint."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_endpoint import Script, serve
from colibri.core.captions.chat import Answer, Request, Sampling
from colibri.core.errors import RowError, UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import TINY_TI2V
from colibri.infer import language
from colibri.infer.jobs import Job
from colibri.infer.models import Machine, Source
from colibri.infer.recap import converse, recaption
from tiny_qwen import write_tiny_qwen

CPU = Machine(device="cpu", dtype="float32", vae_dtype="float32")
FILMED = (
    "The video features a large green star over a calm sea. The camera slowly zooms in. "
    "The star climbs higher."
)
PLAIN = "a red circle moves left over a blue background"


def _source(schedule: FlowSchedule | None = None) -> Source:
    return Source(asked="x", revision=None, folder=Path("x"), family=TINY_TI2V, schedule=schedule)


def _job(prompt: str, seed: int = 0) -> Job:
    return Job(prompt=prompt, negative_prompt=None, seed=seed, image=None)


def _texts(mode: str, *jobs: Job, source: Source | None = None) -> list[tuple[str, str]]:
    heard: list[str] = []
    told = recaption(mode, source or _source(), jobs, CPU, asked_model="any", say=heard.append)
    return [(one.text, one.by) for one in told]


def test_auto_mends_what_breaks_a_rule_and_leaves_the_rest_to_the_person() -> None:
    student = _source(FlowSchedule.listed([1000, 500], shift=5))
    mended, kept = _texts("auto", _job(FILMED), _job(PLAIN), source=student)
    assert mended == ("A large green star over a calm sea. The star climbs higher.", "rules")
    assert kept == (PLAIN, "off")
    assert _texts("auto", _job(FILMED)) == [(FILMED, "off")]  # a teacher knows the camera
    assert _texts("off", _job(FILMED), source=student) == [(FILMED, "off")]


def test_a_prompt_that_cannot_be_rewritten_stays_and_that_is_said() -> None:
    heard: list[str] = []
    prompt = "ein roter Kreis fliegt"
    (told,) = recaption("rules", _source(), [_job(prompt)], CPU, asked_model="", say=heard.append)
    assert told.text == prompt
    assert told.by == "off"
    assert "The prompt stays as it is" in heard[0]


def test_a_model_is_told_what_is_wrong_and_may_mend_it() -> None:
    asked: list[Request] = []
    answers = iter(["The camera shows a red circle.", "A red circle moves left."])

    def ask(request: Request) -> Answer:
        asked.append(request)
        return Answer(text=next(answers), finish="stop", prompt_tokens=1, output_tokens=1)

    assert converse(ask, "m", "a red circle moves left", 3) == "A red circle moves left."
    assert "does not obey the rules" in str(asked[1].messages[-1]["content"])
    assert asked[0].sampling.temperature == 0 < asked[1].sampling.temperature

    def stubborn(_: Request) -> Answer:
        return Answer(text="I see a circle.", finish="stop", prompt_tokens=1, output_tokens=1)

    with pytest.raises(RowError, match="asked 3 times, its answers break"):
        converse(stubborn, "m", "a red circle moves left", 3)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    log = tmp_path / "log"
    server = serve(0, Script("good", 0.0, None), str(log), None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", log
    server.shutdown()


def test_an_endpoint_is_asked_once_for_a_prompt_and_seed(endpoint: tuple[str, Path]) -> None:
    url, log = endpoint
    first = _texts(url, _job(FILMED), _job(FILMED, 1))
    assert first[0][0] == "A large green star over a calm sea. The star climbs higher."
    assert first[0][1].startswith("any, instructions ")
    assert _texts(url, _job(FILMED)) == first[:1]
    bodies = [json.loads(line)["body"] for line in log.read_text().splitlines()]
    assert len(bodies) == 2
    assert bodies[0]["seed"] != bodies[1]["seed"]


def test_a_local_model_answers_the_same_again(tmp_path: Path) -> None:
    folder = str(write_tiny_qwen(tmp_path / "qwen"))
    request = Request(
        model=folder,
        messages=({"role": "user", "content": "a man walks"},),
        sampling=Sampling(temperature=0.7, max_tokens=8, seed=5),
    )
    with language.local(folder, CPU) as ask:
        first, again = ask(request), ask(request)
    assert first == again
    assert first.finish in ("stop", "length")
    with pytest.raises(UserError, match="cannot be loaded"):
        _texts(str(tmp_path / "none"), _job(FILMED))
