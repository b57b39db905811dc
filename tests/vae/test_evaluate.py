"""Figures and commands: what metrics see, the table, and the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core.config import load_toml
from colibri.core.errors import UserError
from colibri.core.wan.decoder import LatentStats
from colibri.testbed.footage import big_buck_bunny
from colibri.vae import metrics
from colibri.vae.adapter import LightVAE
from colibri.vae.cli import TINY_RECIPE, main
from colibri.vae.clips import usual_crop
from colibri.vae.config import EvaluateConfig, TrainConfig
from colibri.vae.decode import WHOLE, Plan, VideoDecoder
from colibri.vae.evaluate import _measure, evaluate, table, too_many_seams
from colibri.vae.load import load_decoder
from colibri.vae.train import Trained

from .conftest import SMALL_VAE, small_config, small_decoder

SMALL = [
    *("--size", "micro", "--frames", "5", "--crop", "32x32", "--batch", "1", "--accumulate", "1"),
    *("--steps", "30", "--warmup", "1", "--precision", "fp32", "--device", "cpu"),
    *("--save-every", "2", "--preview-every", "0"),
]


def _clip(frames: int = 17) -> torch.Tensor:
    return torch.rand(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(0))


def test_psnr_and_ssim_have_their_known_values() -> None:
    clip = _clip() * 0.8
    assert metrics.psnr(clip, clip) == float("inf")
    assert metrics.psnr(clip + 0.1, clip) == pytest.approx(20, abs=1e-3)
    assert metrics.ssim(clip, clip) == pytest.approx(1)
    assert metrics.ssim(clip, torch.rand(clip.shape)) < 0.2
    with pytest.raises(UserError, match="11x11"):
        metrics.ssim(clip[..., :8], clip[..., :8])


def test_flicker_sees_changing_errors_only() -> None:
    clip = _clip() * 0.5
    assert metrics.flicker(clip + 0.2, clip) == pytest.approx(0, abs=1e-4)
    shaken = clip + 0.02 * (-1.0) ** torch.arange(17).view(1, 1, 17, 1, 1)
    assert metrics.flicker(shaken, clip) == pytest.approx(0.04 * 255, rel=1e-3)


def test_seams_are_found_where_they_are_planted() -> None:
    clip = _clip()
    noisy = clip + 0.01 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))
    boundaries = metrics.latent_boundaries(17, 4)
    assert boundaries == [1, 5, 9, 13]
    assert metrics.latent_boundaries(17, 4, 2) == [5, 13]
    assert metrics.seams(noisy, clip, boundaries) == pytest.approx(1, abs=0.1)
    step = torch.zeros(17)
    step[5:9] = step[13:] = 0.05
    planted = noisy + step.view(1, 1, 17, 1, 1)
    assert metrics.seams(planted, clip, metrics.latent_boundaries(17, 4, 2)) > 2


def _train(vae_folder: Path, out: Path, *more: str) -> int:
    return main(["train", "--teacher", str(vae_folder), "--out", str(out), *SMALL, *more])


def test_commands_train_evaluate_tell_and_export(
    vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(vae_folder, tmp_path / "run", "--steps", "2", "--no-causal") == 0
    decoder = tmp_path / "run" / "decoder"
    figures = tmp_path / "figures.json"
    arguments = ["evaluate", "--decoders", str(decoder), "--count", "2", "--frames", "9"]
    arguments += ["--crop", "32x32", "--chunk", "1", "--halo", "1", "--out", str(figures)]
    capsys.readouterr()
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[:3]] == [
        "decoder",
        "teacher",
        str(decoder),
    ]
    rows = json.loads(figures.read_text())["rows"]
    assert rows[0]["psnr"] > 0
    assert rows[1]["seams"] is not None
    assert rows[1]["lpips"] is None

    assert main(["info", str(decoder), "--frames", "17", "--size", "64x64"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["codec"] == {"time": 4, "space": 8, "channels": 16}
    assert facts["causal"] is False
    assert sum(facts["tflop_by_stage"].values()) == pytest.approx(facts["tflop"], abs=0.01)

    assert main(["info", str(vae_folder), "--sizes", "--size", "64x64", "--frames", "17"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 8

    exported = tmp_path / "exported"
    arguments = ["export", str(tmp_path / "run"), str(exported), "--teacher", str(vae_folder)]
    assert main(arguments) == 0
    weights = "diffusion_pytorch_model.safetensors"
    assert (exported / weights).read_bytes() == (decoder / weights).read_bytes()
    assert main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err


def test_evaluate_without_arguments_measures_the_embedded_decoder(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["evaluate", "--count", "2", "--device", "cpu"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["decoder", "teacher", "embedded:tiny-light"]
    assert caplog.messages == [
        "No --teacher, no --decoders: embedded:tiny-ti2v and embedded:tiny-light."
    ]


def test_without_clips_the_crop_is_the_small_world(vae_folder: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(teacher=str(vae_folder), count=1, frames=5, device="cpu")
    figures = tmp_path / "figures.json"
    evaluate(replace(config, out=figures))
    assert json.loads(figures.read_text())["settings"]["crop"] == [64, 64]
    assert usual_crop(tmp_path) == (256, 256)


def _seams_planted(folder: str, **where: Any) -> VideoDecoder:
    """A decoder whose every other chunk of two latents is brighter."""
    decoder = load_decoder(folder, **where)
    plain = decoder.decode

    def decode(latents: torch.Tensor, plan: Plan = WHOLE) -> torch.Tensor:
        video = plain(latents, plan)
        step = torch.zeros(video.shape[2])
        step[5:9] = step[13:] = 2.0
        return video + step.view(1, 1, -1, 1, 1)

    decoder.decode = decode  # type: ignore[method-assign]
    return decoder


def test_more_seams_than_are_allowed_end_the_command(
    vae_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["evaluate", "--decoders", str(vae_folder), "--count", "1", "--chunk", "2"]
    words += ["--device", "cpu", "--max-seams", "2", "--out", str(tmp_path / "figures.json")]
    assert main(words) == 0
    monkeypatch.setattr("colibri.vae.evaluate.load_decoder", _seams_planted)
    capsys.readouterr()
    assert main(words) == 1
    told = capsys.readouterr()
    assert "PSNR" in told.out
    assert f"error: {vae_folder} has seams of " in told.err
    assert "more than --max-seams 2" in told.err
    assert json.loads((tmp_path / "figures.json").read_text())["rows"][1]["seams"] > 2
    rows = evaluate(EvaluateConfig(teacher=str(vae_folder), count=1, frames=1, device="cpu"))
    with pytest.raises(UserError, match="no chunk begins within these frames"):
        too_many_seams(rows, 2)


def test_the_peak_of_a_cpu_is_that_of_decoding(vae_folder: Path) -> None:
    config = EvaluateConfig(teacher=str(vae_folder), count=1, frames=5, device="cpu")
    rows = [evaluate(replace(config, frames=frames))[0] for frames in (5, 17)]
    assert 5 * 3 * 64 * 64 * 4 < rows[0].peak_bytes < rows[1].peak_bytes  # the video, float32
    assert table(rows).splitlines()[0].endswith("peak MB")


class _OnGpu(torch.Tensor):
    is_cuda = True


def test_the_peak_of_a_gpu_leaves_out_what_compares_the_videos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = {"now": 1000, "peak": 0}

    def take(size: int) -> None:
        memory["peak"] = max(memory["peak"], memory["now"] + size)

    def keep(size: int) -> None:
        memory["now"] += size
        take(0)

    def decode(latents: torch.Tensor, _plan: Plan) -> torch.Tensor:
        take(int(latents.max()))
        keep(10)
        return torch.zeros(1, 3, 5, 16, 16)

    def ssim(_ours: torch.Tensor, _theirs: torch.Tensor) -> float:
        take(1_000_000)
        return 1.0

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda: memory.update(peak=memory["now"])
    )
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: memory["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: memory["peak"])
    monkeypatch.setattr(metrics, "ssim", ssim)
    decoder = VideoDecoder(core=small_decoder(causal=True))
    decoder.decode = decode  # type: ignore[method-assign, assignment]
    latents = [torch.full((1,), size).as_subclass(_OnGpu) for size in (30, 70, 50)]
    clips = [torch.zeros(1, 3, 5, 16, 16)] * 3
    row, _ = _measure("light", decoder, clips, latents, Plan(), None, 0)
    assert row.peak_bytes == 70


def test_evaluate_refuses_what_it_cannot_compare(vae_folder: Path, tmp_path: Path) -> None:
    nameless = LightVAE.of(small_config(causal=True), LatentStats.of(SMALL_VAE), teacher={})
    nameless.save_pretrained(tmp_path / "nameless")
    with pytest.raises(UserError, match="no teacher to encode with"):
        evaluate(EvaluateConfig(decoders=(str(tmp_path / "nameless"),)))
    rows = evaluate(
        EvaluateConfig(teacher=str(vae_folder), count=1, frames=5, crop=(32, 32), chunk=1)
    )
    assert table(rows).splitlines()[1].startswith("teacher")
    with pytest.raises(UserError, match="18 frames do not fit"):
        evaluate(EvaluateConfig(teacher=str(vae_folder), frames=18))
    with pytest.raises(UserError, match="width 60 is not a multiple of 8"):
        evaluate(EvaluateConfig(teacher=str(vae_folder), crop=(64, 60)))
    with pytest.raises(UserError, match="--count has to be at least 1"):
        EvaluateConfig(count=0)


def test_evaluate_says_which_clips_it_leaves_out(
    vae_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(big_buck_bunny(), tmp_path / "good.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    evaluate(EvaluateConfig(teacher=str(vae_folder), clips=tmp_path, frames=5, crop=(32, 32)))
    assert caplog.messages == ["clips measured: 1; refused: 1 unreadable_video"]
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(UserError, match="none of the 1 clips can be used: 1 unreadable_video"):
        evaluate(EvaluateConfig(teacher=str(vae_folder), clips=tmp_path, frames=5))


def test_a_process_that_wrote_nothing_does_not_say_that_the_run_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, said in ((30, False), (10, True)):
        done = Trained(folder=None, step=step, sha256=None)
        monkeypatch.setattr("colibri.vae.train.train", lambda _config, done=done: done)
        assert main(["train", "--out", str(tmp_path), *SMALL]) == 0
        assert (f"stopped after step {step};" in capsys.readouterr().out) == said


def test_the_tiny_recipe_is_a_valid_config() -> None:
    config = load_toml(TrainConfig, TINY_RECIPE)
    assert (config.size, config.crop, config.teacher) == ("tiny", (64, 64), None)


def test_help_and_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--help"]) == 0
    assert "evaluate" in capsys.readouterr().out
    assert main(["paint"]) == 2
    assert main(["train", "--teacher", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "there is no VAE folder" in capsys.readouterr().err


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from colibri.vae.cli import main\n"
        "import contextlib\n"
        "for words in (['--help'], ['train', '--help'], ['evaluate', '--help'], ['info', '-h']):\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main(words)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-500:]


@pytest.mark.slow
def test_a_run_that_was_killed_outright_ends_with_the_same_weights(
    vae_folder: Path, tmp_path: Path
) -> None:
    def start(out: Path) -> subprocess.Popen[bytes]:
        words = ["train", "--teacher", str(vae_folder), "--out", str(out), *SMALL]
        return subprocess.Popen(
            [sys.executable, "-m", "colibri.vae", *words],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start(tmp_path / "a").wait(timeout=300) == 0
    killed = start(tmp_path / "b")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "b" / "checkpoints").glob("step-*.pt")):
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "b" / "decoder").exists()
    assert start(tmp_path / "b").wait(timeout=300) == 0
    weights = "decoder/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "b" / weights).read_bytes() == (tmp_path / "a" / weights).read_bytes()
