"""`infer convert`: published layouts into our folder, by table and by numbers; bad files."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.rollout import whole_clip
from colibri.infer import models, tuning
from colibri.infer.cli import main
from colibri.infer.config import ConvertConfig
from colibri.infer.convert import FORMS, convert
from safetensors.torch import save_file
from wan_names import BLOCK, Weights, as_wan


def quiet(_: str) -> None:
    return


@pytest.fixture(scope="module")
def student(t2v: Path) -> wan.WanModel:
    """The base's form with other weights."""
    model = wan.load(t2v, parts=("transformer",))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.transformer.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture
def checkpoint(student: wan.WanModel, tmp_path: Path) -> Path:
    """As Self-Forcing and LongLive write it: several states, names wrapped by FSDP."""
    weights = as_wan(student.transformer)
    inner = "blocks.1._fsdp_wrapped_module."
    ema = {
        "model._fsdp_wrapped_module." + name.replace("blocks.1.", inner): weight
        for name, weight in weights.items()
    }
    other = {name: torch.zeros_like(weight) for name, weight in ema.items()}
    file = tmp_path / "model.pt"
    torch.save({"generator": other, "generator_ema": ema, "critic": other, "step": 600}, file)
    return file


def config(out: Path, base: Path | None = None, **more: Any) -> ConvertConfig:
    return ConvertConfig(out=out, base=base and str(base), **{"dtype": "float32"} | more)


def velocity_of(model: wan.WanModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 8, model.family.transformer["text_dim"], generator=generator)
    latents = torch.randn(1, 16, 3, 8, 8, generator=generator)
    with torch.no_grad():
        out: torch.Tensor = model.transformer(
            latents, torch.tensor([500.0]), text, return_dict=False
        )[0]
    return out


# ---- layouts ----


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_training_checkpoint_becomes_a_student_with_its_steps_and_blocks(
    form: str, checkpoint: Path, student: wan.WanModel, t2v: Path, tmp_path: Path
) -> None:
    made = convert(checkpoint, config(tmp_path / "out", t2v, form=form), say=quiet)
    own = student.transformer.state_dict()
    assert made.tensors == len(own)
    after = wan.load(made.folder)
    assert all(torch.equal(after.transformer.state_dict()[name], own[name]) for name in own)
    assert torch.equal(velocity_of(after), velocity_of(student))
    assert after.family.causal == FORMS[form].causal
    assert after.schedule == FlowSchedule.listed(FORMS[form].timesteps, shift=FORMS[form].shift)
    default = after.family.defaults
    assert (default.sampler, default.guidance) == ("consistency", 1.0)
    assert default.steps == len(FORMS[form].timesteps)
    base = wan.load(t2v, parts=("vae", "text_encoder"))
    assert after.vae_hash == base.vae_hash
    texts = base.text_encoder.state_dict()
    assert all(torch.equal(after.text_encoder.state_dict()[name], texts[name]) for name in texts)


def test_the_released_steps_are_the_sigmas_that_were_published() -> None:
    three = FORMS["hummingbird-xt"]
    sigmas = FlowSchedule.listed(three.timesteps, shift=three.shift).sigmas
    assert sigmas == pytest.approx((1, 30 / 31, 10 / 11, 0))  # 10 s / (1 + 9 s)
    fast = FORMS["fastwan"]
    assert FlowSchedule.listed(fast.timesteps, shift=fast.shift).sigmas == pytest.approx(
        (1, 0.757, 0.522, 0)
    )


@pytest.mark.parametrize("layout", ["wan", "comfy", "diffusers"])
def test_one_safetensors_file_of_any_layout_is_the_same_model(
    layout: str, student: wan.WanModel, t2v: Path, tmp_path: Path
) -> None:
    weights = as_wan(student.transformer)
    if layout == "comfy":
        weights = {f"model.diffusion_model.{name}": one for name, one in weights.items()}
    if layout == "diffusers":
        weights = {name: one.clone() for name, one in student.transformer.state_dict().items()}
    save_file(weights, tmp_path / "student.safetensors")
    flags = ["--out", str(tmp_path / "out"), "--base", str(t2v), "--dtype", "float32"]
    steps = ["--timesteps", "1000,750,500", "--shift", "5"]
    assert main(["convert", str(tmp_path / "student.safetensors"), *flags, *steps]) == 0
    after = wan.load(tmp_path / "out", parts=("transformer",))
    assert torch.equal(velocity_of(after), velocity_of(student))
    assert after.schedule == FlowSchedule.listed((1000, 750, 500), shift=5)


def test_a_diffusers_folder_gets_a_students_steps(ti2v: Path, tmp_path: Path) -> None:
    made = convert(ti2v, config(tmp_path / "fast", form="fastwan"), say=quiet)
    before, after = (wan.load(folder, parts=("transformer",)) for folder in (ti2v, made.folder))
    assert torch.equal(velocity_of(after), velocity_of(before))
    assert after.family.expand_timesteps
    source = models.find_model(str(made.folder))
    assert source.schedule is not None
    assert source.schedule.steps == 3
    # once more over itself: what is replaced is a model folder
    convert(ti2v, config(made.folder), say=quiet)
    assert models.find_model(str(made.folder)).schedule is None


def test_other_steps_leave_a_causal_student_its_blocks(
    causal_student: Path, tmp_path: Path
) -> None:
    before, _ = wan.describe(causal_student)
    steps = {"timesteps": ("1000", "750", "500"), "shift": 5.0}
    made = convert(causal_student, config(tmp_path / "out", **steps), say=quiet)
    after, schedule = wan.describe(made.folder)
    assert schedule == FlowSchedule.listed((1000, 750, 500), shift=5)
    assert after.causal == before.causal is not None


def test_a_merged_lora_gives_what_the_adapter_gives(t2v: Path, tmp_path: Path) -> None:
    base = wan.load(t2v, parts=("transformer",))
    generator = torch.Generator().manual_seed(2)
    weights: Weights = {}
    for block in range(2):
        for layer, width in (("self_attn.q", 128), ("ffn.0", 128)):
            rows = dict(base.transformer.named_parameters())[
                f"blocks.{block}.{BLOCK[layer]}.weight"
            ].shape[0]
            name = f"diffusion_model.blocks.{block}.{layer}"
            weights[f"{name}.lora_A.weight"] = torch.randn(4, width, generator=generator) * 0.1
            weights[f"{name}.lora_B.weight"] = torch.randn(rows, 4, generator=generator) * 0.1
    file = tmp_path / "style.safetensors"
    save_file(weights, file)
    plain = velocity_of(base)
    made = convert(file, config(tmp_path / "out", t2v, scale=0.5), say=quiet)
    after = wan.load(made.folder, parts=("transformer",))
    assert after.transformer.state_dict().keys() == base.transformer.state_dict().keys()
    tuning.add_loras(base.transformer, tuning.read_loras((f"{file}:0.5",)))
    expected = velocity_of(base)
    assert (expected - plain).abs().max() > 1e-3
    assert (velocity_of(after) - expected).abs().max() < 1e-5
    with pytest.raises(UserError, match="is a LoRA file; give its model as --base"):
        convert(file, config(tmp_path / "other"), say=quiet)


def test_a_converted_student_renders_at_its_own_steps(
    checkpoint: Path, student: wan.WanModel, t2v: Path, tmp_path: Path
) -> None:
    made = convert(checkpoint, config(tmp_path / "out", t2v, form="hummingbird-xt"), say=quiet)
    after = wan.load(made.folder)
    assert after.schedule is not None
    clips = [
        whole_clip(
            one.transformer,
            torch.ones(1, 8, student.family.transformer["text_dim"]),
            shape=student.family.latent_shape(student.family.video),
            schedule=after.schedule,
            sampler="consistency",
            generator=torch.Generator().manual_seed(0),
        )
        for one in (after, student)
    ]
    assert torch.equal(*clips)


# ---- bad input ----


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def _write(kind: str, file: Path, weights: Weights) -> None:
    if kind == "hostile":
        hostile = {"generator_ema": {"head.modulation": Hostile(file.with_name("ran"))}}
        file.write_bytes(pickle.dumps(hostile, protocol=2))
    elif kind == "cut":
        torch.save({"generator_ema": weights}, file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "text":
        file.write_text("not a model")
    elif kind == "missing":
        del weights["blocks.1.ffn.0.weight"]
        torch.save({"generator_ema": weights}, file)
    elif kind == "shape":
        weights["blocks.1.ffn.0.weight"] = torch.zeros(3, 3)
        torch.save({"generator_ema": weights}, file)
    else:
        torch.save({"generator_ema": {"conv.weight": torch.zeros(2)}}, file)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("hostile", "holds code, which is never run"),
        ("cut", "cannot be read as plain tensors"),
        ("text", "cannot be read as plain tensors"),
        ("missing", "lacks 1 of its weights, blocks.1.ffn.net.0.proj.weight among them"),
        ("shape", "of shape (3, 3), expected"),
        ("other", "holds no transformer, VAE or text encoder of Wan"),
    ],
)
def test_a_hostile_cut_or_foreign_file_gets_one_sentence_and_nothing_is_written(
    kind: str,
    said: str,
    student: wan.WanModel,
    t2v: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "model.pt"
    _write(kind, file, as_wan(student.transformer))
    out = tmp_path / "out"
    assert main(["convert", str(file), "--out", str(out), "--base", str(t2v)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1
    assert not out.exists()
    assert not (tmp_path / "ran").exists()


def test_flags_that_cannot_be_are_one_sentence(checkpoint: Path, t2v: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for more, said in (
        ({"form": "fastwan", "shift": 5.0}, "--form says the steps"),
        ({"shift": 5.0}, "--shift is of --timesteps"),
        ({"timesteps": ("500", "750")}, "--timesteps 500,750 do not fall from 1000 towards 0"),
        ({"timesteps": ("1000", "x")}, "--timesteps 1000,x do not fall"),
        ({"timesteps": ("2000", "500")}, "--timesteps 2000,500 do not fall"),
    ):
        with pytest.raises(UserError, match=said):
            convert(checkpoint, config(out, t2v, **more), say=quiet)
    with pytest.raises(UserError, match="--out is missing"):
        convert(checkpoint, ConvertConfig(), say=quiet)
    with pytest.raises(UserError, match=r"there is no .*nothing\.pt"):
        convert(tmp_path / "nothing.pt", config(out, t2v), say=quiet)
    with pytest.raises(UserError, match="--base is for one file"):
        convert(t2v, config(out, t2v), say=quiet)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("keep")
    with pytest.raises(UserError, match="is there and is no model folder"):
        convert(checkpoint, config(mine, t2v), say=quiet)
    assert (mine / "letter.txt").read_text() == "keep"
    assert not out.exists()
