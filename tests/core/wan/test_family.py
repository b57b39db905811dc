"""Families: sizes, released values, load, build, measure, save."""

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.geometry import Codec, LatentShape, VideoShape, swapped_size_hint
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import FAMILIES, TINY_TI2V, WAN21_T2V_1_3B, WAN22_TI2V_5B

# ---- geometry ----


def test_released_geometry_is_derived() -> None:
    shape = WAN22_TI2V_5B.latent_shape(WAN22_TI2V_5B.video)
    assert shape == LatentShape(channels=48, frames=31, height=44, width=80)
    assert WAN22_TI2V_5B.tokens(WAN22_TI2V_5B.video) == 27_280
    assert WAN21_T2V_1_3B.codec == Codec(time=4, space=8, channels=16)
    assert WAN21_T2V_1_3B.tokens(WAN21_T2V_1_3B.video) == 32_760


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_latents_lead_back_to_their_video(family: wan.ModelFamily) -> None:
    assert family.latent_shape(family.video).video(family.codec) == family.video


@pytest.mark.parametrize(
    ("video", "says"),
    [
        (VideoShape(frames=120, height=704, width=1280), "use 117 or 121"),
        (VideoShape(frames=0, height=704, width=1280), "use 1 or 5"),
        (VideoShape(frames=121, height=720, width=1280), "nearest size is 1280x704"),
        (VideoShape(frames=121, height=704, width=1270), "nearest size is 1280x704"),
        (VideoShape(frames=121, height=0, width=64), "height 0 .* nearest size is 64x32"),
    ],
)
def test_sizes_that_do_not_fit_get_the_nearest(video: VideoShape, says: str) -> None:
    with pytest.raises(UserError, match=says):
        WAN22_TI2V_5B.latent_shape(video)


def test_a_known_size_turned_round_gets_a_hint() -> None:
    hint = swapped_size_hint(1280, 704, WAN22_TI2V_5B.sizes)
    assert hint == "704x1280 is upright; sizes are width x height: did you mean 1280x704?"
    assert swapped_size_hint(704, 1280, WAN22_TI2V_5B.sizes) is None
    assert swapped_size_hint(64, 96, WAN22_TI2V_5B.sizes) is None
    assert swapped_size_hint(64, 64, TINY_TI2V.sizes) is None


# ---- released values ----


def test_the_values_of_wan21_are_diffusers_defaults() -> None:
    from diffusers import AutoencoderKLWan

    signature = inspect.signature(AutoencoderKLWan.__init__).parameters
    for name, value in WAN21_T2V_1_3B.vae.items():
        default = signature[name].default
        assert default == (list(value) if isinstance(value, tuple) else value), name


def test_parameter_counts_are_those_of_the_released_weights() -> None:
    five = wan.measure(WAN22_TI2V_5B)
    assert five["transformer"].parameters == 4_999_787_712
    assert five["vae"].parameters == 704_688_668
    assert five["text_encoder"].parameters == 5_680_910_336
    assert wan.measure(WAN21_T2V_1_3B)["transformer"].parameters == 1_418_996_800
    assert five["vae"].bytes == 4 * five["vae"].parameters
    # A few modules stay in float32: a little over two bytes a parameter.
    assert 2 < five["transformer"].bytes / five["transformer"].parameters < 2.01


def test_the_meta_device_holds_shapes_only() -> None:
    model = wan.build_meta(WAN22_TI2V_5B, "transformer")
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert model.config.in_channels == WAN22_TI2V_5B.codec.channels


def test_statistics_have_a_mean_and_a_positive_std_a_channel() -> None:
    for family in FAMILIES.values():
        assert len(family.stats.mean) == family.codec.channels
        assert min(family.stats.std) > 0


def test_families_are_known_without_torch() -> None:
    code = "import sys, colibri.core.wan.family; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- build, save, load ----


@pytest.fixture(scope="module")
def saved(ti2v: wan.WanModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved student. Read-only by agreement: a test that changes it copies it first."""
    folder = tmp_path_factory.mktemp("models") / "student"
    defaults = replace(TINY_TI2V.defaults, sampler="consistency", steps=3, guidance=1.0)
    student = replace(
        ti2v,
        family=replace(ti2v.family, name="tiny-student", defaults=defaults),
        schedule=FlowSchedule.listed([1000, 750, 500], shift=5),
    )
    wan.save(student, folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_the_same_seed_builds_the_same_weights() -> None:
    state = torch.get_rng_state()
    one, two, other = (
        wan.build(TINY_TI2V, seed=seed, parts=("transformer",)).transformer for seed in (3, 3, 4)
    )
    assert torch.equal(one.proj_out.weight, two.proj_out.weight)
    assert not torch.equal(one.proj_out.weight, other.proj_out.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_saved_model_comes_back(saved: Path, ti2v: wan.WanModel) -> None:
    model = wan.load(saved)
    for part in wan.WEIGHTS:
        before, after = getattr(ti2v, part), getattr(model, part)
        assert not after.training
        state = after.state_dict()
        assert state.keys() == before.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in before.state_dict().items())
    assert model.tokenizer("a red circle").input_ids == ti2v.tokenizer("a red circle").input_ids
    assert model.vae_hash == ti2v.vae_hash
    assert model.family.name == "tiny-student"
    assert model.family.expand_timesteps
    assert model.family.codec == TINY_TI2V.codec
    assert model.family.stats.mean == pytest.approx(ti2v.vae.config.latents_mean)
    assert model.family.defaults.guidance == 1
    assert [*saved.parent.iterdir()] == [saved]


def test_a_students_schedule_travels_with_its_weights(saved: Path) -> None:
    model = wan.load(saved, parts=())
    trained = FlowSchedule.listed([1000, 750, 500], shift=5)
    assert model.sampling_schedule() == trained
    assert model.sampling_schedule(steps=4) == FlowSchedule.euler(4, 3.0)
    assert model.sampling_schedule(sampler="unipc", shift=8.0) == FlowSchedule.unipc(3, 8.0)


def test_a_students_causal_form_travels_with_its_weights(
    ti2v: wan.WanModel, copied: Path, tmp_path: Path
) -> None:
    assert wan.load(copied, parts=()).family.causal is None
    causal = wan.Causal(first_block=1, block=3, sink=1, window=6)
    wan.save(replace(ti2v, family=replace(ti2v.family, causal=causal)), tmp_path / "causal")
    assert wan.describe(tmp_path / "causal")[0].causal == causal
    for wrong, says in (
        ({"block": 3, "window": 2}, "window of 2 frames does not hold a block of 3"),
        ({"blok": 3}, "unknown key 'blok'; did you mean 'block'"),
    ):
        _edit("colibri.json", causal=wrong)(tmp_path / "causal")
        with pytest.raises(UserError, match=says):
            wan.load(tmp_path / "causal", parts=())


def test_diffusers_opens_what_we_save(saved: Path, ti2v: wan.WanModel) -> None:
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(saved)
    assert pipeline.config.expand_timesteps
    pipeline.scheduler.set_timesteps(3)
    assert pipeline.scheduler.sigmas.tolist() == pytest.approx([1, 0.9375, 5 / 6, 0], abs=1e-7)
    assert torch.equal(pipeline.transformer.proj_out.weight, ti2v.transformer.proj_out.weight)


def test_a_folder_without_our_file_is_known_by_its_form(copied: Path) -> None:
    (copied / "colibri.json").unlink()
    family, schedule = wan.describe(copied)
    assert (family.name, schedule) == ("tiny-ti2v", None)
    assert family.defaults == TINY_TI2V.defaults
    config = copied / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 7}))
    other, _ = wan.describe(copied)
    assert other.name == "model"
    assert other.defaults == TINY_TI2V.defaults


def test_a_teachers_folder_keeps_its_shift(ti2v: wan.WanModel, tmp_path: Path) -> None:
    from diffusers import UniPCMultistepScheduler

    wan.save(ti2v, tmp_path / "teacher")
    scheduler = UniPCMultistepScheduler.from_pretrained(tmp_path / "teacher" / "scheduler")
    assert scheduler.config.flow_shift == 3.0
    table = json.loads((tmp_path / "teacher" / "scheduler/scheduler_config.json").read_text())
    assert table["_class_name"] == "UniPCMultistepScheduler"
    (tmp_path / "teacher" / "colibri.json").unlink()
    _edit("scheduler/scheduler_config.json", flow_shift=7.0)(tmp_path / "teacher")
    assert wan.describe(tmp_path / "teacher")[0].defaults.shift == 7.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_measured_bytes_are_loaded_bytes(saved: Path, dtype: wan.DType) -> None:
    model = wan.load(saved, dtype=dtype, parts=wan.WEIGHTS)
    for part, footprint in wan.measure(model.family, dtype=dtype).items():
        weights = list(getattr(model, part).parameters())
        assert sum(weight.numel() for weight in weights) == footprint.parameters
        assert sum(weight.nbytes for weight in weights) == footprint.bytes


def test_only_the_asked_parts_are_loaded_and_needed(copied: Path) -> None:
    shutil.rmtree(copied / "tokenizer")
    model = wan.load(copied, parts=("transformer",))
    assert model.transformer is not None
    assert model.vae is model.text_encoder is model.tokenizer is None


def test_a_student_is_saved_with_its_teachers_other_parts(saved: Path, tmp_path: Path) -> None:
    student = wan.load(saved, parts=("transformer",))
    with torch.no_grad():
        student.transformer.proj_out.weight += 1
    wan.save(student, tmp_path / "student")
    whole, teacher = wan.load(tmp_path / "student"), wan.load(saved)
    assert torch.equal(whole.transformer.proj_out.weight, teacher.transformer.proj_out.weight + 1)
    assert whole.vae_hash == teacher.vae_hash
    assert whole.tokenizer is not None
    index = [(folder / "model_index.json") for folder in (saved, tmp_path / "student")]
    assert json.loads(index[0].read_text()) == json.loads(index[1].read_text())
    with pytest.raises(UserError, match="without tokenizer and text_encoder and vae"):
        wan.save(replace(student, folder=None), tmp_path / "other")


def _edit(name: str, **changes: Any) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def _cut(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _lose_a_shard(folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    index = {"weight_map": {"a": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    weights.with_name(weights.name + ".index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "there is no .*model_index.json"),
        (_edit("model_index.json", _class_name="FluxPipeline"), "not a Wan model"),
        (_edit("model_index.json", transformer_2=["diffusers", "X"]), "two transformers"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "has no tokenizer"),
        (lambda folder: (folder / "vae" / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "vae" / "config.json").unlink(), "there is no .*config.json"),
        (_cut, "is cut off .* bytes"),
        (_lose_a_shard, "there is no file .*00002-of-00002"),
        (
            lambda folder: (folder / "text_encoder" / "model.safetensors").unlink(),
            "holds no weights",
        ),
        (_edit("transformer/config.json", num_layers=5), "lacks .* of its weights"),
        (_edit("transformer/config.json", ffn_dim=64), "transformer cannot be loaded"),
        (_edit("vae/config.json", z_dim=48), "transformer of 16 channels and a VAE of 48"),
        (_edit("colibri.json", format="colibri-model/9"), "is of the form 'colibri-model/9'"),
        (_edit("colibri.json", defaults={"stepz": 3}), "unknown key 'stepz'"),
    ],
)
def test_a_wrong_or_half_downloaded_folder_gets_one_sentence(
    copied: Path, damage: Callable[[Path], object], says: str
) -> None:
    damage(copied)
    with pytest.raises(UserError, match=says) as caught:
        wan.load(copied)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="no model folder '/nowhere/model'"):
        wan.load("/nowhere/model")


def test_what_a_killed_save_left_does_not_stop_the_next(copied: Path, ti2v: wan.WanModel) -> None:
    shutil.copytree(copied, copied.with_name(f".{copied.name}.old"))
    wan.save(ti2v, copied)
    assert wan.load(copied, parts=()).family.name == ti2v.family.name
    assert [*copied.parent.iterdir()] == [copied]


def test_a_failed_save_leaves_the_old_model(copied: Path, ti2v: wan.WanModel) -> None:
    broken = replace(ti2v, family=replace(ti2v.family, name=object()))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        wan.save(broken, copied)
    assert wan.load(copied, parts=()).family.name == "tiny-student"
    assert [*copied.parent.iterdir()] == [copied]
