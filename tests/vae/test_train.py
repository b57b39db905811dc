"""Training a light decoder: losses fall, a killed run goes on to the same bits, bad input."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file
from colibri.core.video import VideoProbe, probe
from colibri.core.wan.decoder import hash_vae_folder
from colibri.core.wan.family import TINY_T2V
from colibri.testbed.footage import big_buck_bunny
from colibri.vae import load_decoder
from colibri.vae.clips import open_source
from colibri.vae.config import LossConfig, TrainConfig
from colibri.vae.load import EMBEDDED
from colibri.vae.losses import feature_distance, l1, posterior_kl, temporal
from colibri.vae.lpips import Lpips
from colibri.vae.plan import plan
from colibri.vae.train import learning_rate, train
from safetensors.torch import load_file


def _config(vae_folder: Path, out: Path, **changes: Any) -> TrainConfig:
    plain = {
        "teacher": str(vae_folder),
        "out": out,
        "size": "micro",
        "frames": 5,
        "crop": (32, 32),
        "batch": 1,
        "accumulate": 1,
        "steps": 6,
        "lr": 2e-3,
        "warmup": 1,
        "precision": "fp32",
        "device": "cpu",
        "save_every": 2,
        "preview_every": 0,
    }
    return TrainConfig(**(plain | changes))


@pytest.fixture(scope="module")
def plain_vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE of Wan2.1's form: no patches, and blocks whose last step halves the channels."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("plain") / "vae"
    table = {name: list(v) if isinstance(v, tuple) else v for name, v in TINY_T2V.vae.items()}
    AutoencoderKLWan(**table).save_pretrained(folder)
    return folder


class Killed(Exception):
    pass


def _kill_at(step: int) -> Any:
    def after(done: int) -> None:
        if done == step:
            raise Killed

    return after


@pytest.mark.parametrize("causal", [True, False])
def test_a_killed_run_goes_on_to_the_same_bits(
    vae_folder: Path, tmp_path: Path, causal: bool
) -> None:
    straight = train(_config(vae_folder, tmp_path / "a", causal=causal))
    with pytest.raises(Killed):  # one step after a checkpoint: that step is lost
        train(_config(vae_folder, tmp_path / "b", causal=causal), after_step=_kill_at(3))
    assert not (tmp_path / "b" / "decoder").exists()
    resumed = train(_config(vae_folder, tmp_path / "b", causal=causal))
    assert straight.sha256 is not None
    assert resumed.sha256 == straight.sha256
    log = "metrics.jsonl"
    assert (tmp_path / "b" / log).read_text() == (tmp_path / "a" / log).read_text()


def _weights(folder: Path | None) -> dict[str, torch.Tensor]:
    assert folder is not None
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def test_accumulating_two_clips_is_a_batch_of_two(vae_folder: Path, tmp_path: Path) -> None:
    exact = {"precision": "fp64", "steps": 3}
    batched = train(_config(vae_folder, tmp_path / "a", batch=2, **exact))
    summed = train(_config(vae_folder, tmp_path / "b", accumulate=2, **exact))
    other = _weights(summed.folder)
    for name, weight in _weights(batched.folder).items():  # saved in float32
        torch.testing.assert_close(other[name], weight, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_two_processes_are_a_batch_of_two(vae_folder: Path, tmp_path: Path) -> None:
    words = [
        *("--teacher", str(vae_folder), "--size", "micro", "--frames", "5", "--crop", "32x32"),
        *("--accumulate", "1", "--steps", "3", "--lr", "2e-3", "--warmup", "1", "--threads", "1"),
        *("--precision", "fp64", "--device", "cpu", "--preview-every", "0"),
    ]

    def run(out: Path, batch: int, *launch: str) -> dict[str, torch.Tensor]:
        more = ["--out", str(out), "--batch", str(batch)]
        command = [sys.executable, *launch, "-m", "colibri.vae", "train", *words, *more]
        done = subprocess.run(command, capture_output=True, timeout=500)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return _weights(out / "decoder")

    one = run(tmp_path / "one", 2)
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29613")
    two = run(tmp_path / "two", 1, *launch)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-6, atol=1e-8)


def test_losses_fall_on_real_footage(vae_folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(big_buck_bunny(), clips / "bunny.mp4")
    config = _config(
        vae_folder, tmp_path / "out", clips=clips, steps=40, log_every=1, save_every=40, batch=2
    )
    trained = train(config)
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    facts = [json.loads(line) for line in lines]

    def mean(name: str, part: list[dict[str, float]]) -> float:
        return sum(entry[name] for entry in part) / len(part)

    for name in ("l1", "features", "loss"):
        assert mean(name, facts[-8:]) < 0.9 * mean(name, facts[:8]), name
    assert trained.folder is not None
    decoder = load_decoder(trained.folder, teacher=vae_folder)
    assert decoder.teacher["hash"] == hash_vae_folder(vae_folder)
    assert decoder.decode(torch.randn(1, 16, 2, 4, 4)).shape == (1, 3, 5, 32, 32)


def test_a_run_starts_from_a_light_decoder_and_stops_when_asked(
    vae_folder: Path, tmp_path: Path
) -> None:
    first = train(_config(vae_folder, tmp_path / "a", steps=2))
    second = train(
        _config(vae_folder, tmp_path / "b", init=first.folder, lr=1e-9, stop_after=1, steps=2)
    )
    assert (second.folder, second.step) == (None, 1)
    third = train(_config(vae_folder, tmp_path / "b", init=first.folder, lr=1e-9, steps=2))
    assert first.folder is not None
    assert third.folder is not None
    z = torch.randn(1, 16, 2, 4, 4)
    one, other = load_decoder(first.folder).decode(z), load_decoder(third.folder).decode(z)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("init", [None, "teacher"])
@pytest.mark.parametrize("causal", [True, False])
def test_features_of_a_teacher_without_patches_are_distilled(
    plain_vae_folder: Path, tmp_path: Path, causal: bool, init: str | None
) -> None:
    start = Path(init) if init else None
    config = _config(plain_vae_folder, tmp_path, causal=causal, init=start, steps=1, log_every=1)
    assert train(config).step == 1
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["features"] > 0


def test_lpips_runs_in_the_precision_of_the_rest(vae_folder: Path, tmp_path: Path) -> None:
    weights = _lpips_files(tmp_path / "lpips")
    config = _config(vae_folder, tmp_path / "o", steps=1, precision="fp64", lpips_weights=weights)
    assert train(config).step == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": LossConfig(l1=0, features=0, temporal=0)},
        {"losses": LossConfig(l1=0, temporal=0), "kind": "2d"},
    ],
)
def test_a_run_without_a_loss_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="every loss that this run could have is off"):
        _config(tmp_path, tmp_path, **changes)


def test_stopping_before_the_first_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--stop-after has to be at least 1"):
        _config(tmp_path, tmp_path, stop_after=0)


def test_other_settings_in_the_same_folder_are_refused(vae_folder: Path, tmp_path: Path) -> None:
    train(_config(vae_folder, tmp_path, steps=2, stop_after=1))
    with pytest.raises(UserError, match=r"holds a run with another lr \(0.002, now 0.5\)"):
        train(_config(vae_folder, tmp_path, steps=2, lr=0.5))


def test_every_term_can_be_on_and_bf16_runs(vae_folder: Path, tmp_path: Path) -> None:
    terms = LossConfig(teacher_output=0.5, normalise_features=False)
    trained = train(
        _config(
            vae_folder,
            tmp_path,
            steps=2,
            losses=terms,
            precision="bf16",
            accumulate=2,
            preview_every=1,
        )
    )
    facts = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(facts) == {"step", "l1", "temporal", "features", "teacher_output", "kl", "loss"}
    assert len(list((tmp_path / "previews").glob("*.png"))) == 2
    assert trained.sha256


def test_lpips_is_off_without_weights_and_says_so(
    vae_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(_config(vae_folder, tmp_path, steps=1))
    assert "LPIPS is off" in caplog.text
    assert "lpips" not in (tmp_path / "metrics.jsonl").read_text()


def test_bad_clips_are_refused_and_the_run_goes_on(vae_folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(big_buck_bunny(), clips / "good.mp4")
    (clips / "broken.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    trained = train(_config(vae_folder, out, clips=clips, steps=6, batch=2, preview_every=3))
    assert trained.folder is not None
    entries = (out / "refused.jsonl").read_text().splitlines()
    assert [json.loads(entry)["clip"] for entry in entries] == ["broken.mp4"]
    assert json.loads((out / "progress.jsonl").read_text().splitlines()[-1])["refused"] == 1
    assert len([*(out / "previews").iterdir()]) == 2  # of the next clip


def test_a_picture_that_cannot_be_made_costs_nothing_else(
    vae_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = _shards(
        tmp_path, {"video": "bunny.mp4", "split": "train"}, {"video": "x", "split": "held-out"}
    )
    config = _config(vae_folder, tmp_path / "out", clips=clips, data_root=tmp_path / "data")
    config = dataclasses.replace(config, steps=1, preview_every=1)
    assert train(config).folder is not None
    assert "none of 1 held-out clips can be used" in caplog.text
    assert not (tmp_path / "out" / "previews").exists()

    def fail(_run: object) -> None:
        raise Killed

    monkeypatch.setattr("colibri.vae.train._Run._preview", fail)
    with pytest.raises(Killed):
        train(dataclasses.replace(config, out=tmp_path / "killed"))
    assert [*(tmp_path / "killed" / "checkpoints").iterdir()]


def test_input_that_cannot_work_is_one_sentence(vae_folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no clips"):
        train(_config(vae_folder, tmp_path / "a", clips=empty))
    (empty / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="100 clips in a row"):
        train(_config(vae_folder, tmp_path / "b", clips=empty))
    with pytest.raises(UserError, match="6 frames do not fit"):
        train(_config(vae_folder, tmp_path / "c", frames=6))
    with pytest.raises(UserError, match="there is no VAE folder"):
        train(_config(tmp_path / "none", tmp_path / "e"))


def _shards(folder: Path, *rows: dict[str, Any]) -> Path:
    """Curated shards of `rows`; bunny.mp4 lies in `folder`/data."""
    from colibri.core.shards import SHARD_SCHEMA, write_shard

    (folder / "data").mkdir()
    shutil.copy(big_buck_bunny(), folder / "data" / "bunny.mp4")
    empty: dict[str, Any] = dict.fromkeys(SHARD_SCHEMA.names) | {"id": "1", "num_frames": 132}
    whole = [empty | row for row in rows]
    write_shard(folder / "shards" / "data" / "train-0.parquet", whole, SHARD_SCHEMA)
    return folder / "shards"


def test_curated_shards_are_a_source_of_clips(vae_folder: Path, tmp_path: Path) -> None:
    clips = _shards(tmp_path, {"video": "bunny.mp4", "split": "train"})
    config = _config(vae_folder, tmp_path / "out", clips=clips, steps=1)
    with pytest.raises(UserError, match="pass --data-root"):
        train(config)
    assert train(dataclasses.replace(config, data_root=tmp_path / "data")).folder is not None


def test_a_segment_starts_where_it_does_without_a_rate_in_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = _shards(tmp_path, {"video": "bunny.mp4", "split": "train", "start_s": 2.0})
    source = open_source(clips, tmp_path / "data", "train")
    expected = source.read(0, 2, 0.0)

    def without_rate(file: BinaryIO) -> VideoProbe:
        return dataclasses.replace(probe(file), fps=0.0)

    monkeypatch.setattr("colibri.vae.clips.probe", without_rate)
    assert (source.read(0, 2, 0.0) == expected).all()


# ---- terms ----


def test_terms_are_zero_for_equal_videos_and_see_what_they_should() -> None:
    video = torch.rand(1, 3, 4, 8, 8)
    assert l1(video, video) == 0
    assert temporal(video + 0.3, video) < 1e-6  # a constant offset is no flicker
    assert l1(video + 0.3, video) > 0.29
    shaken = video + 0.1 * torch.tensor([1.0, -1, 1, -1]).view(1, 1, 4, 1, 1)
    assert float(temporal(shaken, video)) == pytest.approx(0.2, abs=1e-4)


def test_normalised_features_weigh_channels_alike() -> None:
    theirs = torch.randn(1, 2, 3, 8, 8) * torch.tensor([100.0, 1]).view(1, 2, 1, 1, 1)
    distance = feature_distance(torch.zeros_like(theirs), theirs, normalise=True)
    assert float(distance) == pytest.approx(1, abs=0.2)
    assert float(feature_distance(torch.zeros_like(theirs), theirs, normalise=False)) > 1000


def test_kl_of_a_unit_gaussian_is_zero() -> None:
    zeros = torch.zeros(2, 3)
    assert posterior_kl(zeros, zeros) == 0
    assert float(posterior_kl(zeros + 2, zeros)) == pytest.approx(2)


def test_learning_rate_rises_then_falls(tmp_path: Path) -> None:
    config = TrainConfig(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_plan_tells_size_memory_and_time(vae_folder: Path, tmp_path: Path) -> None:
    config = _config(vae_folder, tmp_path)
    one, four = _planned(config), _planned(dataclasses.replace(config, batch=4))
    assert one["decoder"].startswith("micro, causal, ")
    assert _number(four["memory"], "GB of activations", "MB of activations") == pytest.approx(
        4 * _number(one["memory"], "GB of activations", "MB of activations"), rel=0.05
    )
    assert _number(one["time"], "TFLOP/s") > 0
    plain = _planned(dataclasses.replace(config, losses=LossConfig(features=0)))
    assert 0 < _number(plain["a step"], "in the teacher") < _number(one["a step"], "in the teacher")
    cached = dataclasses.replace(config, losses=LossConfig(features=0), latents=tmp_path)
    assert _number(_planned(cached)["a step"], "in the teacher") == 0
    assert not (tmp_path / "run.json").exists()


def _planned(config: TrainConfig) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in plan(config).splitlines()}


def _number(line: str, *units: str) -> float:
    """The number that stands before one of these words."""
    (found,) = [before for unit in units for before, at, _ in [line.partition(f" {unit}")] if at]
    return float(found.split()[-1])


@pytest.mark.parametrize("kind", ["light", "2d"])
def test_plan_tells_the_size_of_what_a_run_starts_from(
    kind: Literal["light", "2d"], vae_folder: Path, tmp_path: Path
) -> None:
    first = _config(vae_folder, tmp_path, kind=kind, steps=1)
    start = train(first).folder
    begun = plan(dataclasses.replace(first, init=start, size="base")).splitlines()
    named = plan(first).splitlines()
    assert begun[0] == named[0].replace(first.size, str(start))
    assert begun[1:4] == named[1:4]


def test_plan_names_a_teacher_without_a_config(vae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        plan(_config(tmp_path, tmp_path / "out"))


# ---- LPIPS: random numbers under the real names test the plumbing, nothing more ----


def _lpips_files(folder: Path, *, sign: float = 1) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    shapes = {
        0: (64, 3, 11),
        3: (192, 64, 5),
        6: (384, 192, 3),
        8: (256, 384, 3),
        10: (256, 256, 3),
    }
    backbone = {}
    for index, (outputs, inputs, side) in shapes.items():
        weight = torch.randn(outputs, inputs, side, side, generator=generator)
        backbone[f"features.{index}.weight"] = weight / (inputs * side**2) ** 0.5
        backbone[f"features.{index}.bias"] = torch.zeros(outputs)
    heads = {
        f"lin{index}.model.1.weight": sign * torch.rand(1, width, 1, 1, generator=generator)
        for index, width in enumerate((64, 192, 384, 256, 256))
    }
    torch.save(backbone, folder / "alexnet.pth")
    torch.save(heads, folder / "alex.pth")
    return folder


def test_lpips_loads_by_name_and_is_zero_for_equal_videos(tmp_path: Path) -> None:
    lpips = Lpips.load(_lpips_files(tmp_path / "w"))
    video = torch.rand(1, 3, 2, 64, 64) * 2 - 1
    noisy = (video + 0.2 * torch.randn(video.shape)).requires_grad_(True)
    assert lpips(video, video) == 0
    distance = lpips(noisy, video)
    distance.backward()
    assert float(distance.detach()) > 0
    assert noisy.grad is not None


def test_what_is_not_lpips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="negative weights"):
        Lpips.load(_lpips_files(tmp_path / "w", sign=-1))
    (tmp_path / "w" / "alex.pth").unlink()
    with pytest.raises(UserError, match="lacks the LPIPS heads"):
        Lpips.load(tmp_path / "w")
    with pytest.raises(UserError, match="there is no folder"):
        Lpips.load(tmp_path / "none")


@pytest.mark.parametrize("kind", ["light", "2d"])
def test_a_decoder_comes_with_a_card(kind: Literal["light", "2d"], tmp_path: Path) -> None:
    done = train(_config(Path("unused"), tmp_path, teacher=None, kind=kind, steps=1))
    assert done.folder is not None
    card = (done.folder / "README.md").read_text("utf-8")
    assert f"# A light decoder for {EMBEDDED}" in card
    assert load_decoder(done.folder).teacher["hash"] in card


def test_decoder_weights_hash_is_of_the_file(vae_folder: Path, tmp_path: Path) -> None:
    trained = train(_config(vae_folder, tmp_path, steps=1))
    assert trained.folder is not None
    file = trained.folder / "diffusion_pytorch_model.safetensors"
    assert hash_file(file) == trained.sha256
