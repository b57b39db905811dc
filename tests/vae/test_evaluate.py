"""Figures and commands: what metrics see, the table, and the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from colibri.core.config import load_toml
from colibri.core.errors import UserError
from colibri.testbed.footage import big_buck_bunny
from colibri.vae import metrics
from colibri.vae.cli import TINY_RECIPE, main
from colibri.vae.config import EvaluateConfig, TrainConfig
from colibri.vae.evaluate import evaluate, table
from colibri.vae.train import Trained

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


def test_evaluate_refuses_what_it_cannot_compare(vae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no teacher to encode with"):
        evaluate(EvaluateConfig())
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
