"""Pixels, latents and the VAE's hash."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.wan import WanModel
from colibri.core.wan.decoder import (
    LatentStats,
    WanDecoder,
    decode_stream,
    encode_video,
    hash_vae,
    hash_vae_folder,
    to_frames,
    to_pixels,
)


def test_every_pixel_value_survives() -> None:
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    pixels = to_pixels(frames)
    assert pixels.shape == (1, 3, 1, 16, 16)
    assert (pixels.min(), pixels.max()) == (-1, 1)
    assert np.array_equal(to_frames(pixels)[0], frames)
    assert to_frames(torch.tensor([[-2.0, 2.0, 0.0]]).view(1, 3, 1, 1, 1)).tolist() == [
        [[[[0, 255, 128]]]]
    ]


def test_normalising_undoes_itself_by_channel() -> None:
    stats = LatentStats(mean=(1.0, -2.0), std=(0.5, 4.0))
    raw = torch.tensor([2.0, 2.0]).view(1, 2, 1, 1, 1)
    assert stats.normalise(raw).flatten().tolist() == [2, 1]
    assert torch.equal(stats.unnormalise(stats.normalise(raw)), raw)


def test_a_config_without_right_statistics_is_refused() -> None:
    with pytest.raises(UserError, match="no latents_mean"):
        LatentStats.of({"z_dim": 2})
    with pytest.raises(UserError, match="1 latent means and 2 stds for 2 channels"):
        LatentStats.of({"z_dim": 2, "latents_mean": [0.0], "latents_std": [1.0, 1.0]})


@pytest.mark.parametrize("name", ["ti2v", "t2v"])
def test_geometry_of_the_codec_is_that_of_the_network(
    name: str, request: pytest.FixtureRequest
) -> None:
    model: WanModel = request.getfixturevalue(name)
    video = torch.zeros(1, 3, 5, 32, 16)
    latents = encode_video(model.vae, video)
    decoder = WanDecoder(model.vae)
    assert latents.shape == (1, decoder.codec.channels, 2, 4, 2)
    assert decoder.decode(latents).shape == video.shape


def _latents(frames: int) -> torch.Tensor:
    return torch.randn(2, 16, frames, 4, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["ti2v", "t2v"])
def test_every_plan_of_chunks_is_the_whole(name: str, request: pytest.FixtureRequest) -> None:
    vae = request.getfixturevalue(name).vae
    latents = _latents(6)
    with torch.no_grad():
        whole = vae.decode(latents).sample
    assert torch.equal(torch.cat(list(decode_stream(vae, latents)), dim=2), whole)
    for chunk in (2, 3, 8):
        parts = list(decode_stream(vae, latents, chunk=chunk))
        assert [part.shape[2] for part in parts][:2] == [1, 4 * min(chunk, 5)]
        assert (torch.cat(parts, dim=2) - whole).abs().max() <= 1e-5
    pieces = (latents[:, :, start:end] for start, end in ((0, 3), (3, 4), (4, 6)))
    joined = torch.cat(list(decode_stream(vae, pieces, chunk=2)), dim=2)
    assert (joined - whole).abs().max() <= 1e-5


def test_streams_do_not_mix_and_come_as_they_are_asked(t2v: WanModel) -> None:
    latents = _latents(3)
    asked: list[int] = []

    def pieces() -> Iterator[torch.Tensor]:
        for index in range(3):
            asked.append(index)
            yield latents[:, :, index : index + 1]

    one, other = decode_stream(t2v.vae, pieces()), decode_stream(t2v.vae, latents.flip(2))
    parts = [next(one)]
    assert asked == [0]
    flipped = [next(other)]
    parts += [next(one), next(one)]
    flipped += list(other)
    with torch.no_grad():
        whole = t2v.vae.decode(latents).sample
        assert (torch.cat(parts, dim=2) - whole).abs().max() <= 1e-5
        assert torch.equal(torch.cat(flipped, dim=2), t2v.vae.decode(latents.flip(2)).sample)
    with pytest.raises(UserError, match="chunk of 0 latents"):
        next(decode_stream(t2v.vae, latents, chunk=0))


def test_the_hash_follows_weights_and_statistics_and_not_the_form(
    t2v: WanModel, tmp_path: Path
) -> None:
    vae = copy.deepcopy(t2v.vae)
    before = hash_vae(vae)
    vae.save_pretrained(tmp_path / "one")
    vae.save_pretrained(tmp_path / "many", max_shard_size="3MB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert hash_vae_folder(tmp_path / "one") == hash_vae_folder(tmp_path / "many") == before

    vae.register_to_config(latents_mean=[0.25] * 16)
    changed = hash_vae(vae)
    assert changed != before
    with torch.no_grad():
        next(vae.parameters()).view(-1)[0] += 1e-3
    assert hash_vae(vae) not in (before, changed)
