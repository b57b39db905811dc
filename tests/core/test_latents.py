"""Latent files: what goes in comes out, and a wrong file gets one sentence."""

from pathlib import Path

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.core.latents import read_latents, write_latents

CODEC = Codec(time=4, space=16, channels=48)


def _latents() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "clip": torch.randn(48, 3, 4, 5, generator=generator),
        "pair": torch.randn(5, 48, 1, 2, 2, generator=generator).bfloat16(),
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "latents.safetensors"
    recipe = {"prompt": "ein Café", "seed": 7}
    write_latents(path, _latents(), codec=CODEC, vae_hash="abc", recipe=recipe)
    return path


def test_latents_come_back_as_they_were(path: Path) -> None:
    found = read_latents(path, vae_hash="abc", codec=CODEC)
    assert found.codec == CODEC
    assert found.recipe == {"prompt": "ein Café", "seed": 7}
    for name, tensor in _latents().items():
        assert found.latents[name].dtype == tensor.dtype
        assert torch.equal(found.latents[name], tensor)


def test_equal_latents_are_equal_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    recipe = {"seed": 7, "prompt": "ein Café"}
    latents = dict(reversed(_latents().items()))
    write_latents(again, latents, codec=CODEC, vae_hash="abc", recipe=recipe)
    assert again.read_bytes() == path.read_bytes()


def test_a_failed_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_latents(path, _latents(), codec=CODEC, vae_hash="abc", recipe={"no": object()})
    with pytest.raises(UserError, match="48 channels"):
        write_latents(path, {"x": torch.zeros(16, 1, 2, 2)}, codec=CODEC, vae_hash="abc")
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("keep", [0, 5, 100, 1000, -1])
def test_a_cut_file_is_named(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"is cut off|is not a safetensors file"):
        read_latents(path)


def test_bytes_too_many_and_other_files_are_named(path: Path, tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match="has bytes too many"):
        read_latents(path)
    path.write_bytes(b"PK\x03\x04 some archive or other, long enough to have a header")
    with pytest.raises(UserError, match="is not a safetensors file"):
        read_latents(path)
    with pytest.raises(UserError, match="there is no file"):
        read_latents(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        read_latents(tmp_path)


def test_weights_are_not_latents(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="not one of latents"):
        read_latents(path)


def test_a_changed_vae_refuses_its_stale_children(path: Path) -> None:
    with pytest.raises(UserError, match="encoded by another VAE"):
        read_latents(path, vae_hash="abd")
    with pytest.raises(UserError, match="4x16x16 with 48 channels, but this model has 4x8x8"):
        read_latents(path, codec=Codec(time=4, space=8, channels=16))
