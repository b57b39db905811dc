"""The student folder for others: run by diffusers alone, and a card that says what was trained."""

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core import wan
from colibri.core.shards import write_text_whole
from colibri.core.wan.rollout import whole_clip
from colibri.core.wan.text import encode_text
from colibri.distill.config import ScheduleConfig, TrainConfig
from colibri.distill.export import save_student
from colibri.distill.parallel import World
from colibri.distill.setup import Setup, build
from colibri.testbed.embedded import LONG, STUDENT, embedded_model

ROUNDING = 1e-5
"""Sigmas of diffusers are float32, and its shape of timesteps orders sums differently."""

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture
def setup(settings: TrainConfig, tmp_path: Path) -> Setup:
    """A run before its first step."""
    return build(replace(settings, out=tmp_path), ALONE)


def _code(folder: Path) -> str:
    """The piece of Python in a folder's card."""
    (code,) = (folder / "README.md").read_text().split("```python\n")[1:]
    return code.split("```")[0]


def _of_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Latents that the code in a folder's card makes in that folder."""
    from diffusers import WanPipeline

    latents = functools.partialmethod(WanPipeline.__call__, output_type="latent")
    monkeypatch.setattr(WanPipeline, "__call__", latents)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(_code(folder), names)
    made: torch.Tensor = names["video"]
    return made


def _ours(folder: Path) -> torch.Tensor:
    """Latents as `infer` makes them."""
    student = wan.load(folder)
    default = student.family.defaults
    text = encode_text(
        student.tokenizer, student.text_encoder, ["a prompt"], max_tokens=default.text_tokens
    )
    schedule = student.sampling_schedule()
    return whole_clip(
        student.transformer,
        text,
        shape=student.family.latent_shape(student.family.video),
        schedule=schedule,
        generator=[torch.Generator().manual_seed(0)],
        sampler=default.sampler,
        guidance=default.guidance,
    )[0]


@pytest.mark.parametrize(
    ("steps", "exact"), [((1000.0, 750.0, 500.0), True), ((1000.0, 960.0, 600.0, 400.0), False)]
)
def test_the_code_in_the_card_makes_the_students_clip(
    steps: tuple[float, ...], exact: bool, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no scheduler's own grid is the schedule."""
    schedule = ScheduleConfig(steps=steps).build()
    folder = save_student(replace(setup, schedule=schedule), step=0)
    assert folder is not None
    assert ("sigmas=" not in _code(folder)) == exact
    ours = _ours(folder)
    assert (_of_card(folder, monkeypatch) - ours).abs().max() <= ROUNDING


def test_the_card_of_the_embedded_student_makes_its_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = embedded_model(STUDENT)
    ours = _ours(folder)
    assert (_of_card(folder, monkeypatch) - ours).abs().max() <= ROUNDING


def test_the_card_of_a_student_in_blocks_has_no_code_of_diffusers() -> None:
    from diffusers import FlowMatchLCMScheduler

    folder = embedded_model(LONG)
    card = (folder / "README.md").read_text()
    assert "```python" not in card
    assert "infer long" in card
    scheduler = FlowMatchLCMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(3)
    assert scheduler.sigmas.tolist() == pytest.approx([1, 0.9, 0.75, 0], abs=1e-6)


def _card(setup: Setup, step: int = 0) -> str:
    folder = save_student(setup, step=step)
    assert folder is not None
    return (folder / "README.md").read_text()


def test_the_card_says_how_many_samples_began_with_an_image(setup: Setup) -> None:
    assert "| image to video | 50% of samples |" in _card(setup)
    rows = setup.encoded.rows
    setup.encoded.with_frame = frozenset(rows[:3])
    card = _card(setup)
    assert len(rows) == 12
    assert "| 12.5% of samples: 50% of those of the 3 rows with a frame |" in card
    assert "tags: [text-to-video, image-to-video," in card
    assert (
        json.loads((setup.config.out / "student/distill.json").read_text())["rows_with_frame"] == 3
    )
    setup.encoded.with_frame = frozenset()
    card = _card(setup)
    assert "tags: [text-to-video, step-distillation]" in card
    assert "WanImageToVideoPipeline" not in card


def _log(setup: Setup, lines: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_text_whole(setup.config.out / "log.jsonl", text)


def _curve(card: str) -> list[list[str]]:
    rows = [line for line in card.split("## Curve")[1].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_card_has_the_curve_of_validations(setup: Setup) -> None:
    lines: list[dict[str, object]] = [
        {"step": step, "loss/denoise": 1.0}
        | ({"validate/score": step / 200, "validate/motion": "nan"} if step % 5 == 4 else {})
        for step in range(200)
    ]
    _log(setup, lines)
    header, _, *rows = _curve(_card(setup, step=100))
    assert header == ["step", "motion", "score"]
    assert len(rows) == 12
    assert rows[-1] == ["100", "nan", "0.495"]  # later lines are not of this student


def test_without_validations_the_curve_is_of_losses(setup: Setup) -> None:
    lines: list[dict[str, object]] = [
        {"step": 0, "loss/denoise": 2.0, "loss/dmd": 1.0, "dmd/gradient_raw": 0.25},
        {"step": 1, "loss/denoise": 1.0},
    ]
    _log(setup, lines)
    header, _, *rows = _curve(_card(setup, step=2))
    assert header == ["step", "dmd/gradient_raw", "loss/denoise"]
    assert rows == [["1", "0.25", "2"]]
    _log(setup, [])
    assert "Curve" not in _card(setup, step=2)


def test_only_the_leading_process_copies_the_weights_to_the_host(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[torch.Tensor] = []
    plain = torch.Tensor.cpu

    def counted(weight: torch.Tensor) -> torch.Tensor:
        copied.append(weight)
        return plain(weight)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    assert save_student(replace(setup, world=replace(ALONE, rank=1)), step=0) is None
    assert not copied
    assert not (setup.config.out / "student").exists()
    assert save_student(setup, step=0) is not None
    assert copied
