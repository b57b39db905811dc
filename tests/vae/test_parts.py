"""Parts of training and measuring: the judge, the bands, the teacher's channels, the 2d decoder,
the bench, the page, FVD, trackers."""

import dataclasses
import importlib.util
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.geometry import Codec, LatentShape
from colibri.core.wan.decoder import LatentStats
from colibri.vae import load_decoder
from colibri.vae.bench import KINDS, bench, counted_flops, measure, peak_bytes
from colibri.vae.cli import main
from colibri.vae.config import BenchConfig, EvaluateConfig, LossConfig
from colibri.vae.decode import Plan
from colibri.vae.evaluate import evaluate
from colibri.vae.fvd import Fvd, frechet_distance
from colibri.vae.gan import PatchJudge, decoder_loss, judge_loss
from colibri.vae.info import export
from colibri.vae.initial import from_teacher
from colibri.vae.light import LightDecoder, flops, light_config
from colibri.vae.losses import multiscale
from colibri.vae.plan import plan
from colibri.vae.taehv import PreviewDecoder
from colibri.vae.train import train
from safetensors.torch import load_file

from .conftest import SMALL_VAE, latents, small_config, small_decoder, small_training


def _facts(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


# ---- judge and bands ----


def test_the_judge_learns_to_tell_and_hears_no_gradient_from_the_decoder() -> None:
    torch.manual_seed(0)
    judge = PatchJudge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3)
    clip = torch.rand(2, 3, 5, 16, 16).round() * 2 - 1
    blurred = torch.nn.functional.avg_pool3d(clip, (1, 3, 3), 1, (0, 1, 1))
    for _ in range(15):
        loss = judge_loss(judge(clip), judge(blurred))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(judge_loss(judge(clip), judge(blurred)).detach()) < 0.5
    assert judge(clip).shape[2:] == (2, 2, 2)  # several verdicts a clip
    optimizer.zero_grad()
    video = blurred.clone().requires_grad_(True)
    better = decoder_loss(judge, video)
    better.backward()
    assert all(weight.grad is None for weight in judge.parameters())
    assert video.grad is not None
    assert float(decoder_loss(judge, clip)) < float(better.detach())


def test_bands_weigh_an_edge_more_than_its_area() -> None:
    clip = torch.zeros(1, 3, 2, 32, 32)
    assert multiscale(clip, clip) == 0
    flat = clip + 0.1
    assert float(multiscale(flat, clip)) == pytest.approx(0.1 / 4, rel=1e-5)  # one band of four
    edges = clip + 0.1 * (-1.0) ** torch.arange(32)
    assert float(multiscale(edges, clip)) == pytest.approx(0.1 / 4, rel=1e-5)
    odd = torch.rand(1, 3, 2, 17, 5)
    assert float(multiscale(odd, torch.zeros_like(odd))) > 0


def test_a_run_with_a_judge_goes_on_to_the_same_bits(vae_folder: Path, tmp_path: Path) -> None:
    terms = {"losses": LossConfig(gan=0.1, multiscale=0.5), "gan_from": 1}
    straight = train(small_training(vae_folder, tmp_path / "a", **terms))
    train(small_training(vae_folder, tmp_path / "b", stop_after=2, **terms))
    resumed = train(small_training(vae_folder, tmp_path / "b", **terms))
    assert straight.sha256 is not None
    assert resumed.sha256 == straight.sha256
    facts = _facts(tmp_path / "a")
    assert "gan" not in facts[0]
    assert {"gan", "judge", "multiscale"} <= set(facts[1])
    without = train(small_training(vae_folder, tmp_path / "c", losses=LossConfig(multiscale=0.5)))
    assert without.sha256 != straight.sha256


def test_accumulating_with_a_judge_is_a_batch_of_two(vae_folder: Path, tmp_path: Path) -> None:
    exact = {"precision": "fp64", "steps": 2, "losses": LossConfig(gan=0.1, multiscale=0.3)}
    batched = train(small_training(vae_folder, tmp_path / "a", batch=2, **exact))
    summed = train(small_training(vae_folder, tmp_path / "b", accumulate=2, **exact))
    name = "diffusion_pytorch_model.safetensors"
    assert batched.folder is not None
    assert summed.folder is not None
    other = load_file(summed.folder / name)
    for key, weight in load_file(batched.folder / name).items():
        torch.testing.assert_close(other[key], weight, rtol=1e-6, atol=1e-8)


# ---- the teacher's channels ----


def _same_widths() -> dict[str, Any]:
    """A teacher as wide as the light decoder below."""
    return SMALL_VAE | {"decoder_base_dim": 16, "dim_mult": [1, 1, 1]}


@pytest.mark.parametrize("causal", [True, False])
def test_full_convolutions_are_the_teachers_channels(teacher: Any, causal: bool) -> None:
    decoder = LightDecoder(small_config(causal=causal))
    from_teacher(decoder, teacher)
    ours = decoder.stages[-1].blocks[0].conv1.conv.weight
    theirs = teacher.decoder.up_blocks[-1].resnets[1].conv1.weight
    assert theirs.shape[0] > ours.shape[0]
    now = ours[:, :, 2 if causal else 1].flatten(1)
    wanted = theirs[:, :, 2].flatten(2)
    # each of our kernels on this frame is one of the teacher's
    kernels = {tuple(part.tolist()) for part in wanted.flatten(0, 1)}
    assert {tuple(part.tolist()) for part in now.unflatten(1, (-1, 9)).flatten(0, 1)} <= kernels
    if not causal:
        assert not ours[:, :, 2].any()
    assert bool(torch.isfinite(decoder(latents(3, dtype=torch.float32))).all())


def test_separable_ones_are_the_best_product() -> None:
    torch.manual_seed(0)
    decoder = small_decoder(causal=True, dtype=torch.float32)
    unit = decoder.stages[0].blocks[0].conv1
    from colibri.vae.initial import _put_separable

    width = unit.pointwise.weight.shape[0]
    mix, kernel = torch.randn(width, width), torch.randn(width, 3, 3, 3)
    weight = mix[:, :, None, None, None] * kernel[None]
    with torch.no_grad():
        _put_separable(unit, weight, torch.zeros(width))
    made = unit.pointwise.weight[:, :, 0, 0, 0, None, None, None] * unit.depthwise.conv.weight[:, 0]
    torch.testing.assert_close(made, weight, rtol=0, atol=1e-4)


def test_a_step_of_the_whole_teacher_is_its_resampling_of_an_even_picture() -> None:
    from colibri.vae.wan import WanCore
    from diffusers import AutoencoderKLWan

    torch.manual_seed(2)
    vae = AutoencoderKLWan(**_same_widths()).eval().requires_grad_(False)
    config = dataclasses.replace(
        light_config("micro", dict(vae.config), causal=True), widths=(16, 16, 16, 16)
    )
    decoder = LightDecoder(config)
    from_teacher(decoder, vae)
    even = torch.randn(1, 16, 1, 1, 1).expand(1, 16, 4, 9, 9)
    block = vae.decoder.up_blocks[0]
    core = WanCore(vae)
    theirs = core._upsample(
        *("x", block.upsampler, even.contiguous(), core.new_cache(), True),
        (block.avg_shortcut, even.contiguous()),
    )
    from colibri.vae.light import shuffle

    ours = shuffle(decoder.stages[1].step(even), 2, 2)[:, :, 1:]
    # away from the borders of picture and video
    torch.testing.assert_close(
        ours[:, :, -1, 4:-4, 4:-4], theirs[:, :, -1, 4:-4, 4:-4], rtol=0, atol=1e-4
    )


def test_a_run_begins_with_the_teachers_channels(vae_folder: Path, tmp_path: Path) -> None:
    still = {"init": Path("teacher"), "lr": 1e-12, "steps": 1}
    trained = train(small_training(vae_folder, tmp_path / "a", **still))
    assert trained.folder is not None
    from colibri.vae.load import load_teacher

    vae = load_teacher(vae_folder)
    expected = LightDecoder(light_config("micro", dict(vae.config), causal=True))
    from_teacher(expected, vae)
    core: Any = load_decoder(trained.folder).core
    last = expected.stages[-1].blocks[0].conv2.conv.weight
    torch.testing.assert_close(core.stages[-1].blocks[0].conv2.conv.weight, last, rtol=0, atol=1e-6)
    export(tmp_path / "a", tmp_path / "x", teacher=str(vae_folder))
    z = latents(2, dtype=torch.float32)
    again = load_decoder(tmp_path / "x").decode(z)
    torch.testing.assert_close(again, load_decoder(trained.folder).decode(z), rtol=0, atol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_a_teacher_without_patches_gives_its_channels_too(causal: bool) -> None:
    from colibri.core.wan.family import TINY_T2V
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    table = {k: list(v) if isinstance(v, tuple) else v for k, v in TINY_T2V.vae.items()}
    vae = AutoencoderKLWan(**table).eval().requires_grad_(False)
    decoder = LightDecoder(light_config("micro", dict(vae.config), causal=causal))
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    from_teacher(decoder, vae)
    changed = {
        name for name, value in decoder.state_dict().items() if (value != before[name]).any()
    }
    assert "conv_in.conv.weight" in changed
    last = len(decoder.stages) - 1
    assert not any(name.startswith((f"stages.{last}", "conv_out")) for name in changed)


# ---- the 2d decoder ----


def test_a_2d_decoder_trains_saves_and_streams(vae_folder: Path, tmp_path: Path) -> None:
    config = small_training(
        vae_folder, tmp_path / "a", kind="2d", steps=25, batch=2, preview_every=25
    )
    trained = train(config)
    facts = _facts(tmp_path / "a")
    assert facts[-1]["l1"] < 0.9 * facts[0]["l1"]
    assert "features" not in facts[0]
    assert trained.folder is not None
    decoder = load_decoder(trained.folder, teacher=vae_folder)
    assert isinstance(decoder.core, PreviewDecoder)
    z = latents(4, dtype=torch.float32)
    whole = decoder.decode(z)
    assert whole.shape == (1, 3, 13, 24, 32)
    torch.testing.assert_close(decoder.decode(z, Plan(chunk=1)), whole, rtol=0, atol=1e-5)
    export(tmp_path / "a", tmp_path / "x", teacher=str(vae_folder))
    torch.testing.assert_close(load_decoder(tmp_path / "x").decode(z), whole, rtol=0, atol=0)
    more = train(
        small_training(vae_folder, tmp_path / "b", kind="2d", init=trained.folder, steps=1)
    )
    assert more.folder is not None
    assert "2d, " in plan(config)


def test_2d_decoders_that_cannot_be_are_one_sentence(vae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --no-causal"):
        small_training(vae_folder, tmp_path, kind="2d", causal=False)
    with pytest.raises(UserError, match="cannot start from the teacher"):
        train(small_training(vae_folder, tmp_path / "a", kind="2d", init=Path("teacher")))
    light = train(small_training(vae_folder, tmp_path / "b", steps=1))
    with pytest.raises(UserError, match="is no 2d decoder"):
        train(small_training(vae_folder, tmp_path / "c", kind="2d", init=light.folder))
    stats = LatentStats(mean=(0.0,) * 8, std=(1.0,) * 8)
    with pytest.raises(UserError, match="takes latents of 4 frames and 8 or 16 pixels"):
        PreviewDecoder.sized("tiny", Codec(time=8, space=8, channels=8), stats)
    with pytest.raises(UserError, match="known: base"):
        PreviewDecoder.sized("huge", Codec(time=4, space=8, channels=8), stats)


# ---- bench ----


def test_work_is_counted_without_moving_the_decoder() -> None:
    decoder = small_decoder(causal=True)
    shape = LatentShape(channels=16, frames=3, height=3, width=4)
    assert counted_flops(decoder, shape) == flops(decoder.config, shape)
    assert next(decoder.parameters()).device.type == "cpu"


def test_memory_at_its_fullest_is_what_tensors_hold_at_once() -> None:
    def run() -> None:
        one = torch.ones(1000, 1000)
        two = one + 1
        del one
        torch.ones(500, 1000).add_(two[:500])

    assert peak_bytes(run, torch.device("cpu")) == pytest.approx(8e6, rel=0.01)


def test_every_kind_is_measured_and_fast_wan_does_less_work() -> None:
    config = BenchConfig(
        frames=(5,), size=(32, 32), light="micro", runs=1, device="cpu", save=False
    )
    assert set(config.decoders) < set(KINDS)
    rows = {name: measure(config, name, 5) for name in config.decoders}
    for row in rows.values():
        assert row.seconds > 0
        assert row.tflop_per_s == pytest.approx(row.tflop / row.seconds)
    assert rows["fast-wan"].tflop < rows["diffusers-wan"].tflop
    assert rows["light"].tflop < rows["fast-wan"].tflop
    assert "channels" in rows["light"].form
    assert rows["light"].slowest_form is not None
    assert rows["light"].slowest_form >= 1
    assert not rows["fast-wan"].form


def test_work_of_windows_counts_what_they_do_twice() -> None:
    config = BenchConfig(
        frames=(33,), size=(32, 32), light="micro", runs=1, chunk=2, device="cpu", save=False
    )
    whole = dataclasses.replace(config, chunk=100)
    for name, again in (("light", True), ("light-causal", False)):
        cut = measure(config, name, 33).tflop
        assert (cut > 1.5 * measure(whole, name, 33).tflop) == again


def test_bench_runs_each_in_a_process_and_tells_what_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["bench", "--frames", "5", "--size", "32x32", "--light", "micro", "--runs", "1"]
    words += ["--decoders", f"light,{tmp_path / 'none'}", "--out", str(tmp_path / "b.json")]
    assert main([*words, "--device", "cpu"]) == 0
    table = json.loads((tmp_path / "b.json").read_text())
    assert table["rows"][0]["frames"] == 5
    assert list((tmp_path / "cache" / "colibri" / "forms").iterdir())
    assert table["rows"][0]["error"] is None
    assert "there is no decoder folder" in table["rows"][1]["error"]
    assert "there is no decoder folder" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"known: wan2\.2"):
        bench(BenchConfig(family="wan9"))


# ---- page and FVD ----


def test_the_page_shows_clips_and_what_was_made_of_them(vae_folder: Path, tmp_path: Path) -> None:
    html = tmp_path / "page.html"
    words = ["eval", "--teacher", str(vae_folder), "--count", "2", "--frames", "5"]
    assert main([*words, "--crop", "32x32", "--html", str(html), "--device", "cpu"]) == 0
    text = html.read_text()
    assert text.count("<h2>small world") == 2
    assert text.count("data:image/png;base64,") == 2 * 3  # clip, teacher, teacher's error
    assert "teacher, error" in text
    assert "<script" not in text
    assert "http" not in text


def test_frechet_distance_of_known_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one + 2, one) == pytest.approx(12, rel=1e-6)
    # widths 1 and 3 in one direction: (3 - 1) squared
    wide = one * torch.tensor([3.0, 1, 1], dtype=torch.float64)
    assert frechet_distance(wide, one) == pytest.approx(4, rel=0.05)
    with pytest.raises(UserError, match="at least two videos"):
        frechet_distance(one[:1], one)


class _Network(torch.nn.Module):
    """Stands in for I3D: the same call, features that are means of the pixels."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(
        self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool
    ) -> torch.Tensor:
        assert rescale
        assert resize
        assert return_features
        return x.flatten(1)[:, : self.features] / 255


def test_fvd_appears_with_its_network_only(vae_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "i3d.pt"
    torch.jit.script(_Network(400)).save(str(path))
    config = EvaluateConfig(
        teacher=str(vae_folder), count=3, frames=13, crop=(32, 32), device="cpu", fvd_weights=path
    )
    row = evaluate(config)[0]
    assert row.fvd is not None
    assert row.fvd > 0
    assert evaluate(dataclasses.replace(config, fvd_weights=None))[0].fvd is None
    torch.jit.script(_Network(7)).save(str(path))
    with pytest.raises(UserError, match="not the network that FVD is defined on"):
        evaluate(config)
    path.write_bytes(b"no network")
    with pytest.raises(UserError, match="is no TorchScript file"):
        Fvd(path)
    with pytest.raises(UserError, match="there is no file"):
        Fvd(tmp_path / "none.pt")


# ---- trackers ----


def test_terms_go_to_the_tracker_that_was_chosen(vae_folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    train(small_training(vae_folder, tmp_path, tracker="tensorboard", steps=2))
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_a_tracker_that_is_not_installed_is_one_sentence(
    vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install trackio"):
        train(small_training(vae_folder, tmp_path, tracker="trackio"))


# ---- the table of decoders ----


@pytest.mark.slow
def test_the_table_trains_measures_and_goes_on(
    vae_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "vae_table.py"
    words = [
        "vae_table.py",
        "--teacher",
        str(vae_folder),
        "--steps",
        "2",
        "--rows",
        "warm-micro,2d",
    ]
    words += ["--frames", "5", "--count", "4", "--held-out", "2", "--long", "9"]
    words += ["--work", str(tmp_path / "w"), "--out", str(tmp_path / "t.json")]
    monkeypatch.syspath_prepend(script.parent)  # as `python benchmarks/vae_table.py` does
    monkeypatch.setattr(sys, "argv", words)
    tables = []
    for _ in range(2):
        runpy.run_path(str(script), run_name="__main__")
        table = json.loads((tmp_path / "t.json").read_text())["rows"]
        tables.append({row["row"]: (row["psnr"], row["ssim"], row["gflop"]) for row in table})
    assert set(tables[0]) == {"teacher", "teacher-diffusers", "warm-micro", "2d"}
    assert tables[0] == tables[1]
    assert "warm micro, causal" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words, "--rows", "huge"])
    with pytest.raises(SystemExit, match="there is no row 'huge'"):
        runpy.run_path(str(script), run_name="__main__")
