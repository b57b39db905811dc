"""One video by two processes, over gloo on the CPU: the same frames, one sentence on failure."""

import contextlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.latents import read_latents
from colibri.core.wan.decoder import to_frames
from colibri.infer import denoise, models
from colibri.infer.cli import main
from colibri.infer.config import LookConfig, ReplayConfig
from colibri.infer.jobs import job_of
from colibri.infer.memory import MemoryPlan, Way
from colibri.infer.recipe import Recipe, read_video
from colibri.infer.replay import replay
from colibri.infer.settings import make_recipes
from colibri.infer.together import Team
from infer_toys import quiet
from PIL import Image
from processes import run_joined

FORK = multiprocessing.get_context("fork")
PROMPT = "a red circle moves left"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one process ended, and what it said."""

    status: int | None
    said: str


def _work(environment: dict[str, str], argv: list[str], said: Path) -> None:
    os.environ |= environment
    torch.set_num_threads(1)
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        status = main(argv)
    said.write_text(told.getvalue())
    os._exit(status)


def together(tmp: Path, argv: list[str]) -> list[Ended]:
    """A command in two processes that are joined as torchrun joins them."""
    said = [tmp / "first.txt", tmp / "second.txt"]
    statuses = run_joined(_work, [(argv, path) for path in said], timeout_s=240)
    return [
        Ended(status=status, said=path.read_text() if path.exists() else "")
        for status, path in zip(statuses, said, strict=True)
    ]


def flags(model: Path, out: Path) -> list[str]:
    given = ["--model", str(model), "--out", str(out), "--device", "cpu", "--guidance", "1"]
    return [*given, "--steps", "3", "--frames", "9", "--size", "48x32"]


@pytest.mark.slow
def test_two_processes_make_the_videos_of_one(ti2v: Path, tmp_path: Path) -> None:
    """From text, and from an image, whose first latent frame has a timestep of its own."""
    Image.new("RGB", (48, 32), "red").save(tmp_path / "first.png")
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": PROMPT}, {"prompt": PROMPT, "image": "first.png"}]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ones, twos = tmp_path / "one", tmp_path / "two"
    wanted = ["t2v", "--prompts-file", str(prompts), "--keep-latents"]
    assert main([*wanted, *flags(ti2v, ones)]) == 0
    first, second = together(tmp_path, [*wanted, *flags(ti2v, twos)])
    assert (first.status, second.status) == (0, 0)
    assert "Shared by 2 processes." in first.said
    assert second.said == ""
    videos = sorted(ones.glob("*.mp4"))
    assert len(videos) == 2
    assert [path.name for path in sorted(twos.glob("*.mp4"))] == [path.name for path in videos]
    for one in videos:
        two = twos / one.name
        assert np.abs(_frames(ti2v, one) - _frames(ti2v, two)).max() <= 1
        (recipe, _), (shared, made) = read_video(one), read_video(two)
        assert shared == recipe
        assert made.versions["shared"] == "by 2 processes"
    again = replay(two, ReplayConfig(device="cpu"), say=quiet)
    assert again.identical or "shared by 2 processes then, not now" in again.text()


def _out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fail", "status", "said"),
    [
        (_out_of_memory, 2, "error: memory ran out in denoising, shared by 2 processes; use more"),
        (lambda: os._exit(9), 9, "error: one of 2 processes has ended; run the same command again"),
    ],
    ids=["out of memory", "killed"],
)
def test_a_process_that_fails_ends_all_with_one_sentence(
    fail: Callable[[], None],
    status: int,
    said: str,
    ti2v: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Said by itself, or by the other where it has no time to."""
    sample = denoise.sample

    def in_the_second(*given: Any) -> torch.Tensor:
        if os.environ["RANK"] == "1":
            fail()
        return sample(*given)

    monkeypatch.setattr(denoise, "sample", in_the_second)
    first, second = together(tmp_path, ["t2v", "--prompt", PROMPT, *flags(ti2v, tmp_path / "out")])
    assert (first.status, second.status) == (2, status)
    errors = [line for line in (first.said + second.said).splitlines() if "rror" in line]
    assert len(errors) == 1
    assert errors[0].startswith(said)


@pytest.mark.slow
def test_what_cannot_be_shared_is_said_once(tmp_path: Path) -> None:
    first, second = together(tmp_path, ["long", "--prompt", PROMPT])
    assert (first.status, second.status) == (2, 2)
    assert first.said == (
        "error: infer long is done by one process, not shared by 2; start it without torchrun\n"
    )
    assert second.said == ""


@pytest.mark.parametrize(
    ("size", "look", "vram", "said"),
    [
        (3, {}, None, "3 processes cannot share 4 heads of tiny-ti2v"),
        (4, {"size": (48, 48)}, None, "4 processes cannot share 27 tokens: 48x48, 9 frames"),
        (2, {"attention": "flex"}, None, "the attention backend flex cannot share"),
        (2, {"compile": True}, None, "--compile cannot be used by 2 processes"),
        (2, {}, "8", "--vram 8 asks for what 2 processes cannot share: transformer block by"),
    ],
)
def test_a_video_that_cannot_be_shared_is_refused_before_anything_loads(
    size: int, look: dict[str, Any], vram: str | None, said: str, ti2v: Path
) -> None:
    source = models.find_model(str(ti2v))
    recipe, machine = _streaming(source, **look)
    with pytest.raises(UserError, match=said):
        Team(rank=0, size=size, store=None).check(source, recipe, machine, vram, say=quiet)


def test_weights_that_would_stream_for_one_process_stay_where_several_share(ti2v: Path) -> None:
    source = models.find_model(str(ti2v))
    recipe, machine = _streaming(source)
    heard: list[str] = []
    team = Team(rank=0, size=2, store=None)
    plan = team.check(source, recipe, machine, "auto", say=heard.append).plan
    assert plan is not None
    assert plan.way == Way(vae_waits=True, ffn_chunks=8)
    assert heard[0].startswith("Shared by 2 processes, so instead: transformer on the device, VAE")


def _streaming(source: models.Source, **look: Any) -> tuple[Recipe, models.Machine]:
    """A recipe, and a GPU whose plan streams weights."""
    config = LookConfig(**{"size": (32, 48), "frames": 9, "steps": 3} | look)
    machine = models.Machine(device="cpu", dtype="float32", vae_dtype="float32")
    (one,) = make_recipes(config, [job_of(PROMPT, 0)], source, machine, say=quiet)
    plan = MemoryPlan(
        budget_bytes=1,
        text="device",
        way=Way(place="stream", vae_waits=True),
        decode="whole",
        stages=(),
        host_bytes=1,
        precision="float32",
    )
    return one.recipe, replace(machine, device="cuda", plan=plan)


def _frames(model: Path, video: Path) -> np.ndarray:
    latents = read_latents(video.with_suffix(".latents.safetensors")).latents["clip"]
    source = models.find_model(str(model))
    vae = models.load(source, models.choose_machine("cpu"), "vae").vae
    with torch.no_grad():
        pixels = vae.decode(source.family.stats.unnormalise(latents)).sample
    return to_frames(pixels)[0].astype(int)
