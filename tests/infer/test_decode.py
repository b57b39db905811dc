"""Latents to frames: the ways down when memory runs out, and finishing what was stopped."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.infer.config import DecodeConfig, ReplayConfig, T2vConfig
from colibri.infer.decode import decode
from colibri.infer.finish import decode_file
from colibri.infer.generate import generate
from colibri.infer.outputs import Outputs, sweep, writing
from colibri.infer.recipe import read_video
from colibri.infer.replay import replay
from infer_toys import quiet, settings


class Scarce:
    """A VAE whose decoding runs out of memory in the first tries."""

    def __init__(self, vae: Any, tries: int) -> None:
        self.vae, self.left = vae, tries

    def __getattr__(self, name: str) -> Any:
        return getattr(self.vae, name)

    def _spend(self) -> None:
        if self.left:
            self.left -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    def decode(self, *arguments: Any) -> Any:
        self._spend()
        return self.vae.decode(*arguments)

    def post_quant_conv(self, x: torch.Tensor) -> Any:
        self._spend()
        return self.vae.post_quant_conv(x)


@pytest.fixture(scope="module", params=["ti2v", "t2v"])
def model(request: pytest.FixtureRequest) -> wan.WanModel:
    """Of either form of VAE."""
    return wan.load(request.getfixturevalue(request.param), parts=("vae",))


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def test_chunks_give_the_same_frames_as_the_whole(
    model: wan.WanModel, latents: torch.Tensor
) -> None:
    whole, way = decode(model.vae, latents, model.family, mode="whole", say=quiet)
    assert way == "whole"
    assert whole.shape == (9, 32, 48, 3)
    for mode in ("chunks", "cpu"):
        frames, _ = decode(model.vae, latents, model.family, mode=mode, say=quiet)
        assert np.array_equal(frames, whole)


def test_out_of_memory_steps_down_and_says_so(model: wan.WanModel, latents: torch.Tensor) -> None:
    heard: list[str] = []
    room: list[str] = []
    frames, way = decode(
        Scarce(model.vae, 1),
        latents,
        model.family,
        say=heard.append,
        make_room=lambda: room.append("asked"),
    )
    whole, _ = decode(model.vae, latents, model.family, say=quiet)
    assert way == "chunks"
    assert np.array_equal(frames, whole)
    assert heard == [
        "Memory ran out in decoding; trying again in chunks of one latent frame (the same frames)."
    ]
    assert room == ["asked"]
    _, way = decode(Scarce(model.vae, 2), latents, model.family, say=heard.append)
    assert way == "tiles"
    assert not model.vae.use_tiling


def test_other_errors_are_not_taken_for_memory(model: wan.WanModel) -> None:
    with pytest.raises(RuntimeError, match="must match"):
        decode(model.vae, torch.zeros(1, 5, 1, 2, 2), model.family, say=quiet)


def test_memory_out_in_every_way_is_one_sentence(
    model: wan.WanModel, latents: torch.Tensor
) -> None:
    with pytest.raises(UserError, match="memory ran out in every way of decoding"):
        decode(Scarce(model.vae, 9), latents, model.family, say=quiet)


def _flags(ti2v: Path, out: Path) -> list[str]:
    flags = ["--prompt", "a red circle", "--model", str(ti2v), "--steps", "1", "--guidance", "1"]
    return ["t2v", *flags, "--frames", "129", "--device", "cpu", "--out", str(out)]


def _stop_when_denoised(ti2v: Path, out: Path, how: signal.Signals) -> tuple[int, str]:
    """Start a render, stop it once its latents are there; exit status and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "colibri.infer", *_flags(ti2v, out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 200
    while not list(out.glob("*.latents.safetensors")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    _, said = process.communicate(timeout=200)
    return process.returncode, said


def _config(ti2v: Path, out: Path) -> T2vConfig:
    return T2vConfig(
        prompt="a red circle",
        model=str(ti2v),
        steps=1,
        guidance=1.0,
        frames=129,
        device="cpu",
        out=out,
    )


def test_a_killed_render_is_finished_from_its_latents(ti2v: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, _ = _stop_when_denoised(ti2v, out, signal.SIGKILL)
    assert status == -signal.SIGKILL
    (latents,) = out.glob("*.latents.safetensors")
    assert not list(out.glob("*.mp4"))
    video = decode_file(latents, DecodeConfig(device="cpu"), say=quiet)
    (there,) = generate(_config(ti2v, out), say=quiet)
    assert there.video == video
    assert not there.new
    (fresh,) = generate(_config(ti2v, tmp_path / "fresh"), say=quiet)
    assert fresh.made == there.made


def test_the_interrupted_command_again_goes_on_with_the_latents(ti2v: Path, tmp_path: Path) -> None:
    status, said = _stop_when_denoised(ti2v, tmp_path, signal.SIGINT)
    assert status == 130, said
    assert "run the same command again to go on" in said
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    heard: list[str] = []
    (one,) = generate(_config(ti2v, tmp_path), say=heard.append)
    assert any("is there already: it only has to be decoded" in line for line in heard)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".mp4"]
    assert one.new


def test_damaged_latents_are_refused_and_rendered_again(ti2v: Path, tmp_path: Path) -> None:
    config = T2vConfig(
        prompt="a",
        model=str(ti2v),
        steps=1,
        guidance=1.0,
        frames=1,
        device="cpu",
        out=tmp_path,
        keep_latents=True,
    )
    (one,) = generate(config, say=quiet)
    (latents,) = tmp_path.glob("*.safetensors")
    latents.write_bytes(latents.read_bytes()[:-7])
    one.video.unlink()
    with pytest.raises(UserError, match="is cut off"):
        decode_file(latents, DecodeConfig(device="cpu"), say=quiet)
    (again,) = generate(config, say=quiet)
    assert again.made == one.made


def test_latents_of_another_vae_are_refused(ti2v: Path, t2v: Path, tmp_path: Path) -> None:
    config = T2vConfig(
        prompt="a",
        model=str(ti2v),
        steps=1,
        guidance=1.0,
        frames=1,
        device="cpu",
        out=tmp_path,
        keep_latents=True,
    )
    generate(config, say=quiet)[0].video.unlink()
    (latents,) = tmp_path.glob("*.safetensors")
    with pytest.raises(UserError, match="another VAE"):
        decode_file(latents, DecodeConfig(device="cpu", model=str(t2v)), say=quiet)


def test_the_precision_of_a_decoding_is_the_recipes_or_goes_into_it(
    ti2v: Path, tmp_path: Path
) -> None:
    given = settings(ti2v, tmp_path / "clip.mp4", vae_dtype="bfloat16", keep_latents=True)
    (one,) = generate(given, say=quiet)
    one.video.unlink()
    latents = tmp_path / "clip.latents.safetensors"
    recipe, made = read_video(decode_file(latents, DecodeConfig(device="cpu"), say=quiet))
    assert recipe.vae_dtype == "bfloat16"
    assert made == one.made
    finer = DecodeConfig(device="cpu", vae_dtype="float32", out=tmp_path / "finer.mp4")
    video = decode_file(latents, finer, say=quiet)
    recipe, made = read_video(video)
    assert recipe.vae_dtype == "float32"
    assert made.frames_sha256 != one.made.frames_sha256
    assert replay(video, ReplayConfig(device="cpu"), say=quiet).identical


def test_what_a_kill_left_beside_a_finished_video_goes_with_the_same_command(
    ti2v: Path, tmp_path: Path
) -> None:
    given = settings(ti2v, tmp_path, keep_latents=True)
    (one,) = generate(given, say=quiet)
    Outputs(video=one.video).preview.touch()
    (again,) = generate(given, say=quiet)
    assert not again.new
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".safetensors", ".mp4"]
    generate(replace(given, keep_latents=False), say=quiet)
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".mp4"]


def test_what_dead_processes_left_is_swept_and_what_living_ones_write_is_not(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, alive = (
        tmp_path / f".clip.{name}.part"
        for name in (f"mp4.{process.pid}", f"latents.safetensors.{os.getpid()}")
    )
    other = tmp_path / f".another.mp4.{process.pid}.part"
    for path in (dead, alive, other):
        path.touch()
    sweep(Outputs(video=tmp_path / "clip.mp4"))
    assert [path.exists() for path in (dead, alive, other)] == [False, True, True]


def test_latents_of_another_unfinished_render_are_not_written_over(
    ti2v: Path, tmp_path: Path
) -> None:
    config = T2vConfig(
        prompt="a",
        model=str(ti2v),
        steps=1,
        guidance=1.0,
        frames=1,
        device="cpu",
        out=tmp_path / "clip.mp4",
        keep_latents=True,
    )
    generate(config, say=quiet)[0].video.unlink()
    with pytest.raises(UserError, match="holds another render that is not finished"):
        generate(replace(config, seed=1), say=quiet)


def test_a_disk_that_is_full_is_one_sentence(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(UserError, match="No space left on device"), writing(tmp_path / "x"):
        full.write_bytes(b"x" * 10)
