"""LoRA files, attention backends and compiling change how a transformer computes."""

from pathlib import Path

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.infer import tuning
from colibri.infer.config import ReplayConfig, T2vConfig
from colibri.infer.generate import generate
from colibri.infer.models import Machine
from colibri.infer.replay import replay
from safetensors.torch import load_file, save_file


def quiet(_: str) -> None:
    return


@pytest.fixture(scope="module")
def lora(ti2v: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA file of diffusers' form with random weights."""
    from diffusers import WanPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    folder = tmp_path_factory.mktemp("lora")
    transformer = wan.load(ti2v, parts=("transformer",)).transformer
    torch.manual_seed(0)
    transformer.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    WanPipeline.save_lora_weights(
        folder, transformer_lora_layers=get_peft_model_state_dict(transformer)
    )
    (path,) = folder.glob("*.safetensors")
    return path


def _velocity(ti2v: Path, *flags: str) -> torch.Tensor:
    transformer = wan.load(ti2v, parts=("transformer",)).transformer
    tuning.add_loras(transformer, tuning.read_loras(flags))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return transformer(
            hidden_states=torch.randn(1, 16, 1, 4, 4, generator=generator),
            timestep=torch.tensor([500.0]),
            encoder_hidden_states=torch.randn(1, 4, 64, generator=generator),
            return_dict=False,
        )[0]


def test_a_lora_counts_by_its_scale(ti2v: Path, lora: Path) -> None:
    plain, full = _velocity(ti2v), _velocity(ti2v, str(lora))
    assert (full - plain).abs().max() > 1e-3
    assert (_velocity(ti2v, f"{lora}:0") - plain).abs().max() < 1e-6
    twice = _velocity(ti2v, f"{lora}:0.5", f"{lora}:0.5")
    assert (twice - full).abs().max() < 1e-5


def test_a_lora_of_wans_original_names_is_the_same(ti2v: Path, lora: Path, tmp_path: Path) -> None:
    names = {"attn1.to_q": "self_attn.q", "attn1.to_v": "self_attn.v"}
    names |= {"attn2.to_q": "cross_attn.q", "attn2.to_v": "cross_attn.v"}
    original = {}
    for key, tensor in load_file(lora).items():
        name = key.replace("transformer.", "diffusion_model.")
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        original[name] = tensor
    save_file(original, tmp_path / "original.safetensors")
    same = _velocity(ti2v, str(tmp_path / "original.safetensors"))
    assert torch.equal(same, _velocity(ti2v, str(lora)))


def test_a_lora_for_another_model_gets_one_sentence(ti2v: Path, lora: Path, tmp_path: Path) -> None:
    shapes = {key: torch.zeros(3, 3) for key in load_file(lora)}
    save_file(shapes, tmp_path / "shapes.safetensors")
    with pytest.raises(UserError, match="does not fit this model"):
        _velocity(ti2v, str(tmp_path / "shapes.safetensors"))
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"does not fit|holds no LoRA"):
        _velocity(ti2v, str(tmp_path / "other.safetensors"))
    with pytest.raises(UserError, match="'strong' is not a scale"):
        tuning.read_loras([f"{lora}:strong"])


def test_a_video_with_a_lora_is_replayed_and_a_changed_file_refused(
    ti2v: Path, lora: Path, tmp_path: Path
) -> None:
    file = tmp_path / "style.safetensors"
    file.write_bytes(lora.read_bytes())
    config = T2vConfig(
        prompt="a red circle",
        model=str(ti2v),
        steps=1,
        guidance=1.0,
        frames=1,
        device="cpu",
        lora=(f"{file}:0.7",),
        attention="_native_math",
        out=tmp_path / "out",
    )
    (one,) = generate(config, say=quiet)
    assert one.recipe.loras[0].scale == 0.7
    assert replay(one.video, ReplayConfig(device="cpu"), say=quiet).identical
    save_file(load_file(lora), file, metadata={"changed": "yes"})
    with pytest.raises(UserError, match="not the LoRA file that the recipe names"):
        replay(one.video, ReplayConfig(device="cpu"), say=quiet)


def test_a_backend_is_the_models_own(ti2v: Path) -> None:
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    transformer = wan.load(ti2v, parts=("transformer",)).transformer
    tuning.set_attention(transformer, "_native_flash")  # it takes no mask
    q, mask = torch.ones(1, 2, 1, 8), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="attn_mask"):
        dispatch_attention_fn(
            q,
            q,
            q,
            attn_mask=mask,
            backend=transformer.blocks[0].attn1.processor._attention_backend,
        )
    assert dispatch_attention_fn(q, q, q, attn_mask=mask).shape == q.shape


def test_attention_backends_give_the_same_and_missing_ones_one_sentence(ti2v: Path) -> None:
    transformer = wan.load(ti2v, parts=("transformer",)).transformer
    tuning.set_attention(transformer, "native")
    with pytest.raises(UserError, match=r"--attention fast cannot be used: .* must be one of"):
        tuning.set_attention(transformer, "fast")
    with pytest.raises(UserError, match="--attention sage cannot be used"):
        tuning.set_attention(transformer, "sage")
    cpu = Machine(device="cpu", dtype="float32", vae_dtype="float32")
    assert tuning.choose_attention(None, cpu) is None
    assert tuning.choose_attention("Native", cpu) == "native"
