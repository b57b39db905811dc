"""The tiny family in Wan2.1's layout: another autoencoder on the same latents."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from colibri.core import wan  # noqa: E402
from colibri.testbed.small import small_clip, small_scene  # noqa: E402
from colibri.testbed.train import dit, family, text, vae  # noqa: E402
from colibri.testbed.train.card import write_card  # noqa: E402
from colibri.testbed.train.loop import save_training  # noqa: E402


def test_two_chunks_equal_diffusers_own_encode_and_decode() -> None:
    model = vae.tiny_vae("wan2.1").eval()
    x = vae.pixels(small_clip(small_scene(np.random.default_rng(0)), frames=9)[None])
    with torch.no_grad():
        z = vae.encode(model, x)
        assert z.shape == (1, vae.CHANNELS, 3, 8, 8)
        assert torch.allclose(z, model.encode(x).latent_dist.mode(), atol=1e-5)
        y = vae.decode(model, z).clamp(-1, 1)
        assert torch.allclose(y, model.decode(z).sample, atol=1e-5)


@pytest.mark.slow
def test_the_autoencoder_says_which_family_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = text.tiny_tokenizer(0, scenes=60)
    monkeypatch.setattr(family, "tiny_tokenizer", lambda seed: tokenizer)
    vae.tiny_vae("wan2.1").save_pretrained(tmp_path / "vae")
    both = torch.nn.ModuleList([dit.TinyModel(), dit.TinyModel()])
    save_training(tmp_path / "dit", both, [], 1)
    folder = family.save_family(tmp_path / "vae", tmp_path / "dit", tmp_path / "tiny-t2v")
    found, _ = wan.describe(folder)
    assert (found.name, found.expand_timesteps) == ("tiny-t2v", False)
    assert json.loads((folder / "model_index.json").read_text())["expand_timesteps"] is False
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 8e6
    card = write_card(folder, videos=1, steps=1)
    assert card.startswith("# tiny-t2v")
    assert "in the layout of Wan2.1-T2V" in card
    assert "image, 1 steps" not in card
