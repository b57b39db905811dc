"""Students that cheat look bad, and a run that collapses is rolled back."""

import json
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.shards import SHARD_SCHEMA, read_rows, write_shard
from colibri.distill import checkpoint, validate
from colibri.distill.config import EncodeConfig, StudentConfig, TrainConfig, WatchConfig
from colibri.distill.embedded import write_embedded
from colibri.distill.encode import encode, shard_files
from colibri.distill.figures import compare, complaint, prompt_accuracy
from colibri.distill.page import write_page
from colibri.distill.parallel import World
from colibri.distill.setup import build
from colibri.distill.track import open_tracker
from colibri.distill.train import train
from colibri.distill.validate import Validation
from safetensors.torch import load_file
from torch import Tensor


def _moving(seed: int) -> Tensor:
    """(R, K, C, T, H, W): smooth motion of a random picture, another for each seed."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randn(3, 2, 4, 1, 8, 8, generator=generator)
    return torch.cat([picture.roll(step, dims=-1) for step in range(5)], dim=3)


TEACHER = _moving(0)
CHEATS = {
    "over-exposed": (2.5 * TEACHER + 1.0, "over-exposed"),
    "bright": (TEACHER + 2.0, "colours have moved"),
    "washed out": (0.3 * TEACHER, "washed out"),
    "frozen": (TEACHER[:, :, :, :1].expand_as(TEACHER), "frozen"),
    "repeating": (TEACHER[:, :1].expand_as(TEACHER), "repeats itself"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheating_student_is_named_and_scores_less_than_an_honest_one(name: str) -> None:
    clips, words = CHEATS[name]
    honest, cheat = compare(_moving(1), TEACHER), compare(clips, TEACHER)
    assert honest["score"] > 0.75
    assert cheat["score"] < 0.4
    assert complaint(honest, WatchConfig()) is None
    assert words in str(complaint(cheat, WatchConfig()))


def test_the_teacher_itself_scores_one() -> None:
    assert compare(TEACHER, TEACHER)["score"] == 1


def test_flicker_is_not_motion() -> None:
    generator = torch.Generator().manual_seed(2)
    noisy = TEACHER + 0.9 * torch.randn(TEACHER.shape, generator=generator)
    assert compare(noisy, TEACHER)["score"] < 0.65


def test_values_that_are_not_finite_are_named() -> None:
    assert "not finite" in str(complaint(compare(TEACHER * float("inf"), TEACHER), WatchConfig()))


def test_prompt_accuracy_counts_clips_that_their_own_prompt_explains() -> None:
    errors = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.3, 0.3, 0.2]])
    assert prompt_accuracy(errors) == pytest.approx(2 / 3)


# ---- in a run ----


@pytest.fixture
def validated(settings: TrainConfig, tmp_path: Path) -> TrainConfig:
    return replace(
        settings,
        out=tmp_path / "run",
        steps=8,
        validate_every=2,
        validate_rows=2,
        teacher_steps=4,
        save_every=1,
        watch=WatchConfig(motion=0.0, spread=1e9, shift=1e9, variety=0.0),
    )


def test_a_run_is_seen_in_its_log_and_on_its_page(validated: TrainConfig) -> None:
    train(replace(validated, steps=2))
    lines = [json.loads(line) for line in (validated.out / "log.jsonl").read_text().splitlines()]
    names = {"spread", "shift", "motion", "flicker", "variety", "frechet", "prompt", "score"}
    assert {f"validate/{name}" for name in names} <= lines[1].keys()
    assert not any(key.startswith("validate/") for key in lines[0])
    student = lines[0]
    assert student["dmd/gradient_raw"] == pytest.approx(
        sum(v for k, v in student.items() if k.startswith("dmd/gap/"))
        / sum(k.startswith("dmd/gap/") for k in student),
        rel=1,
    )
    assert {"sample/channel_mean", "tflops", "peak_gb", "dmd/gradient"} <= student.keys()
    page = (validated.out / "index.html").read_text()
    videos = sorted(p.relative_to(validated.out) for p in validated.out.rglob("*.mp4"))
    assert len(videos) == 2 * 2 * 2  # student and teacher, text and image, two rows
    assert all(f'src="{video.as_posix()}"' in page for video in videos)
    assert "http" not in page
    assert validated.encoded is not None
    (shard,) = shard_files(validated.encoded.parent / "shards")
    for row in list(read_rows(shard, ["caption"]))[: validated.validate_rows]:
        assert f"from text: {row['caption']}<" in page


def test_a_validation_shows_the_average_and_changes_nothing(validated: TrainConfig) -> None:
    plain = replace(validated, validate_every=0, out=validated.out.with_name("plain"))
    for config in (validated, plain):
        train(replace(config, steps=4))
    held = [
        load_file(c.out / "checkpoints" / "step-00000004" / "rank-00000.safetensors")
        for c in (validated, plain)
    ]
    assert held[0].keys() == held[1].keys()
    assert all(torch.equal(held[0][name], held[1][name]) for name in held[0])


def test_image_to_video_is_validated_on_the_rows_that_have_a_frame(
    validated: TrainConfig, folder: str, tmp_path: Path
) -> None:
    shards = write_embedded(tmp_path / "shards", rows=4)
    rows = list(read_rows(*shard_files(shards)))
    for row in rows[:3]:
        row["image"] = None
    write_shard(*shard_files(shards), rows, SHARD_SCHEMA)
    encode(EncodeConfig(shards=shards, out=tmp_path / "some", model=folder, size=(32, 32)))
    train(replace(validated, encoded=tmp_path / "some", steps=2))
    made = {path.name for path in (validated.out / "samples" / "step-00000002").iterdir()}
    assert made == {"text-0.mp4", "text-1.mp4", "image-0.mp4"}
    page = (validated.out / "index.html").read_text()
    assert f"from image: {rows[3]['caption']}<" in page


def test_a_validation_has_no_more_clips_at_once_than_a_step(validated: TrainConfig) -> None:
    """And makes the same clips."""
    alone = torch.device("cpu")
    made = []
    for batch in (1, 2):
        setup = build(replace(validated, batch=batch), World(rank=0, size=1, device=alone))
        seen: list[int] = []
        setup.roles.network("student").register_forward_pre_hook(
            lambda _, __, named, seen=seen: seen.append(len(named["hidden_states"])),
            with_kwargs=True,
        )
        found = Validation(setup)
        made.append(found._clips("student", True))
        found.run(1)
        assert max(seen) == batch
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_student_that_is_driven_to_black_is_stopped_and_rolled_back(
    validated: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first validation is good; then the loss pulls every clip to 0."""
    from colibri.distill.objectives import TERMS
    from colibri.distill.objectives.base import TermLoss

    def fade(round, config):  # type: ignore[no-untyped-def]
        return TermLoss(loss_B=1e3 * round.batch.mean(round.sample_BCTHW.square()))

    monkeypatch.setitem(TERMS, "dmd", replace(TERMS["dmd"], loss=fade))
    limits = WatchConfig(motion=0.0, spread=1.3, shift=1e9, variety=0.0, patience=2)
    usual = validate.compare
    first: list[Tensor] = []

    def beside_the_first(student: Tensor, teacher: Tensor) -> dict[str, float]:
        first.append(student)  # random weights: the teacher's own clips are no measure
        return usual(student, first[0])

    monkeypatch.setattr(validate, "compare", beside_the_first)
    config = replace(
        validated,
        steps=60,
        p_i2v=0.0,
        save_every=3,
        watch=limits,
        student=StudentConfig(lr=0.02, every=1, ema=0.5),
    )
    with pytest.raises(UserError, match=r"washed out.*rolled back to step \d+.*student"):
        train(config)
    newest = checkpoint.latest(config.out / "checkpoints")
    best = checkpoint.latest(config.out / "best")
    assert newest is not None
    assert best is not None
    assert newest.name == best.name
    assert (newest / "rank-00000.safetensors").read_bytes() == (
        best / "rank-00000.safetensors"
    ).read_bytes()
    held = load_file(best / "rank-00000.safetensors")
    student = wan.load(config.out / "student", parts=("transformer",)).transformer
    assert torch.equal(student.proj_out.weight, held["ema/proj_out.weight"])
    log = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert sum("complaint" in line for line in log) == 2


# ---- page and trackers ----


def test_a_page_escapes_what_it_is_given(tmp_path: Path) -> None:
    write_page(tmp_path / "p.html", title="<b>", lines=[], clips=[("<i>", [("a.mp4", "<u>")])])
    text = (tmp_path / "p.html").read_text()
    assert "&lt;b&gt;" in text
    assert "<u>" not in text


def test_a_tracker_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorboard", "trackio", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UserError, match=f"--track {name} needs {name}.*pip install {name}"):
            open_tracker(name, out=tmp_path, config={}, start=0, say=print)
    assert open_tracker("none", out=tmp_path, config={}, start=0, say=print) is None


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_tracker_hears_numbers_by_step_and_needs_no_account(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = _listening(name, tmp_path, monkeypatch)
    said: list[str] = []
    tracker = open_tracker(name, out=tmp_path / "run", config={"a": 1}, start=0, say=said.append)
    assert tracker is not None
    tracker.log(3, {"step": 3, "loss": 0.5, "complaint": "frozen"})
    tracker.close()
    assert heard[1:] == [("log", ({"loss": 0.5}, 3)), ("finish", None)]
    if name == "wandb":
        assert heard[0][1]["mode"] == "offline"  # type: ignore[index]
        assert "stays offline" in said[0]


def _listening(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """A tracker's module of that name, which keeps what it is told; nobody has an account."""
    heard: list[tuple[str, Any]] = []
    module = types.ModuleType(name)
    module.init = lambda **named: heard.append(("init", named))  # type: ignore[attr-defined]
    module.log = lambda values, step: heard.append(("log", (values, step)))  # type: ignore[attr-defined]
    module.finish = lambda: heard.append(("finish", None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    for variable in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return heard


def test_wandb_is_online_with_an_account_of_its_server_or_as_its_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = _listening("wandb", tmp_path, monkeypatch)

    def mode() -> object:
        open_tracker("wandb", out=tmp_path / "run", config={}, start=0, say=print)
        return heard[-1][1]["mode"]

    entry = "machine {} login user password none\n"
    (tmp_path / ".netrc").write_text(entry.format("github.com"))
    assert mode() == "offline"
    (tmp_path / ".netrc").write_text(entry.format("api.wandb.ai"))
    assert mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com")
    assert mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode() is None


@pytest.mark.parametrize(("name", "key"), [("trackio", "name"), ("wandb", "id")])
def test_a_stopped_run_goes_on_as_the_same_one_in_a_tracker(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = _listening(name, tmp_path, monkeypatch)
    for out, start in (("run", 0), ("run", 5), ("more/run", 0)):
        open_tracker(name, out=tmp_path / out, config={}, start=start, say=print)
    ids = [named[key] for _, named in heard]
    assert ids[0] == ids[1] != ids[2]
    assert {named["resume"] for _, named in heard} == {"allow"}


def test_tensorboard_gets_the_curves(settings: TrainConfig, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    config = replace(settings, out=tmp_path, steps=3, save_every=2, track="tensorboard")
    train(config)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000003")
    train(config)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/denoise")] == [0, 1, 2]
