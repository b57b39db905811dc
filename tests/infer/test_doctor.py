"""`infer doctor`: the chooser on recorded devices, findings, the profile and what it changes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core.config import from_table
from colibri.core.errors import UserError
from colibri.infer import device_profile, models, tuning
from colibri.infer.cli import main
from colibri.infer.config import T2vConfig
from colibri.infer.device_profile import Chosen, Profile, Trial, choose, set_convolutions
from colibri.infer.facts import Facts, findings, weights_folder
from colibri.infer.finish import decode_clip
from colibri.infer.generate import generate
from colibri.infer.trials import SMALL, run_trials

DEVICES = sorted(Path(__file__).with_name("devices").glob("*.json"))


def quiet(_: str) -> None:
    return


def recorded(path: Path) -> tuple[Facts, tuple[Trial, ...], dict[str, Any]]:
    table = json.loads(path.read_text())
    assert table["note"] == "Made up for the tests of the chooser. Not measured on any device."
    trials = tuple(from_table(Trial, one, where=path.name) for one in table["trials"])
    return from_table(Facts, table["facts"], where=path.name), trials, table


@pytest.fixture
def own_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    device_profile._known.cache_clear()
    return device_profile.path_of(models.device_name("cpu"))


def profile_of(**chosen: Any) -> Profile:
    trial = Trial(kind="attention", way="native", dtype="float32", seconds=1.0, error=0.0)
    return Profile(
        device=models.device_name("cpu"),
        torch=torch.__version__,
        trials=(trial,),
        chosen=Chosen(**chosen),
    )


# ---- judging ----


@pytest.mark.parametrize("path", DEVICES, ids=lambda path: path.stem)
def test_what_is_chosen_and_found_on_recorded_devices(path: Path) -> None:
    facts, trials, table = recorded(path)
    assert choose(trials) == Chosen(**table["chosen"])
    found = [f"{one.level}: {one.found}" for one in findings(facts, trials, 24_000_000_000)]
    assert len(found) == len(table["findings"]), found
    for said, wanted in zip(found, table["findings"], strict=True):
        assert said.startswith(wanted)


def test_every_known_device_of_the_notes_is_recorded() -> None:
    assert {path.stem for path in DEVICES} >= {"h200", "gfx1201", "gfx1151", "cpu"}


def test_a_finding_goes_once_it_is_mended() -> None:
    facts, trials, _ = recorded(Path(__file__).with_name("devices") / "gfx1201.json")
    assert any("AOTRITON" in one.mend for one in findings(facts, trials, 0))
    mended = replace(
        facts,
        variables={"TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL": "1", "MIOPEN_FIND_MODE": "2"},
    )
    after = findings(mended, trials, 0)
    assert not any("AOTRITON" in one.mend or "FIND_MODE" in one.mend for one in after)
    (broken,) = [one for one in after if one.found.startswith("3D convolutions do not work")]
    assert broken.mend.startswith("nothing to do: the profile takes sums of 2D")


def test_a_gain_that_is_noise_and_a_wrong_result_are_not_chosen() -> None:
    usual = Trial(kind="convolution", way="dense", dtype="float32", seconds=1.0, error=0.0)
    other = replace(usual, way="2d", seconds=0.97)
    assert choose([usual, other]).convolution == "dense"
    assert choose([usual, replace(other, seconds=0.5)]).convolution == "2d"
    assert choose([usual, replace(other, seconds=0.5, error=0.2)]).convolution == "dense"
    assert choose([usual, replace(other, seconds=0.5, error=None)]).convolution == "dense"
    assert choose([]) == Chosen()


def test_weights_are_looked_for_where_the_hub_puts_them() -> None:
    assert weights_folder({"HF_HUB_CACHE": "/a"}) == Path("/a")
    assert weights_folder({"HF_HOME": "/b"}) == Path("/b/hub")


# ---- timing ----


def test_trials_run_here_take_the_clock_given_and_tell_what_cannot_run() -> None:
    ticks = iter(range(10_000))
    tiny = replace(SMALL, channels=8, video=(4, 6, 6), tokens=16, width=64)
    trials = tuple(run_trials("cpu", sizes=tiny, repeats=2, clock=lambda: next(ticks)))
    by = {(one.kind, one.way): one for one in trials}
    assert by["convolution", "dense"].seconds == 1
    for way in ("dense", "channels_last", "2d"):
        assert by["convolution", way].right
        assert by["convolution", way].error < 1e-5  # type: ignore[operator]
    assert by["attention", "native"].right
    assert by["attention", "xformers"].said == "xformers is not installed"
    assert not by["attention", "xformers"].right
    assert by["matmul", "float32"].error == 0
    assert 0 < by["matmul", "bfloat16"].error < 0.02  # type: ignore[operator]
    assert 0 < by["matmul", "int8-dynamic"].error < 0.05  # type: ignore[operator]
    flops = 2 * 64**3
    assert by["matmul", "float32"].tflops == pytest.approx(flops / 1e12)


def test_the_command_prints_a_table_or_json_and_saves_the_profile(
    own_profiles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = replace(SMALL, channels=8, video=(4, 6, 6), tokens=16, width=64)
    monkeypatch.setattr("colibri.infer.trials.SMALL", tiny)
    assert main(["doctor", "--device", "cpu", "--json", "--no-save"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["format"] == "colibri-doctor/1"
    assert table["saved"] is None
    assert table["facts"]["platform"] == "cpu"
    assert table["facts"]["disk_bytes"] > 0
    assert not own_profiles.exists()
    assert main(["doctor", "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert f"{own_profiles}: used from now on" in told
    assert "Chosen: convolution" in told
    profile = device_profile.find("cpu")
    assert profile is not None
    assert profile.chosen == choose(profile.trials)


def test_a_device_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cuda:7"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: the device 'cuda:7' cannot be used:")
    assert told.count("\n") == 1


# ---- its use ----


@pytest.mark.parametrize("form", ["ti2v", "t2v"])
def test_every_form_of_convolution_decodes_and_encodes_alike(
    form: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(form)
    source = models.find_model(str(folder))
    machine = models.choose_machine("cpu")
    model = models.load(source, machine, "vae")
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    pixels = torch.rand(1, 3, 5, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def run() -> tuple[np.ndarray, torch.Tensor]:
        frames, _ = decode_clip(model, machine, latents, mode="whole", say=quiet)
        with torch.no_grad():
            return frames.astype(int), model.vae.encode(pixels).latent_dist.mode()

    frames, encoded = run()
    for way in ("channels_last", "2d", "dense"):
        set_convolutions(model.vae, way)
        other_frames, other = run()
        assert np.abs(other_frames - frames).max() <= 1
        assert (other - encoded).abs().max() < 1e-4 * encoded.abs().max()
    assert np.array_equal(other_frames, frames)
    assert torch.equal(other, encoded)
    with pytest.raises(UserError, match="no form of convolution 'fast'"):
        set_convolutions(model.vae, "fast")


def test_generation_uses_the_profile_and_records_it(
    ti2v: Path, tmp_path: Path, own_profiles: Path
) -> None:
    config = T2vConfig(
        model=str(ti2v), prompt="a red circle", steps=1, guidance=1.0, frames=5, size=(32, 32),
        device="cpu", out=tmp_path / "plain",
    )  # fmt: skip
    (plain,) = generate(config, say=quiet)
    assert "convolution" not in plain.made.versions
    assert plain.recipe.attention is None
    device_profile.save(profile_of(convolution="2d", attention="_native_flash"))
    (one,) = generate(replace(config, out=tmp_path / "other"), say=quiet)
    assert one.made.versions["convolution"] == "2d"
    assert one.recipe.attention == "_native_flash"
    machine = models.choose_machine("cpu")
    source = models.find_model(str(ti2v))
    convs = [one for one in models.load(source, machine, "vae").vae.modules() if _is_2d(one)]
    assert convs
    assert tuning.choose_attention("native", machine) == "native"
    # of another precision nothing was measured
    assert tuning.choose_attention(None, replace(machine, dtype="bfloat16")) is None


def _is_2d(module: Any) -> bool:
    return "_conv_forward" in vars(module)


def test_a_profile_of_another_pytorch_or_a_damaged_one_is_not_used_and_that_is_said(
    own_profiles: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert device_profile.find("cpu") is None
    device_profile.save(replace(profile_of(convolution="2d"), torch="1.0"))
    assert device_profile.find("cpu") is None
    assert device_profile.convolution_of("cpu") == "dense"
    assert "of PyTorch 1.0 and not used; run infer doctor again" in caplog.text
    for text in ("{", "[]", '{"format": "colibri-profile/1", "device": 3}'):
        own_profiles.write_text(text)
        device_profile._known.cache_clear()
        assert device_profile.find("cpu") is None
    assert caplog.text.count("is damaged and not used") == 3
