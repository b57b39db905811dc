"""The light decoder: grids, cost, reach, and equal results however a video is cut."""

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.wan.family import TINY_T2V, TINY_TI2V, WAN21_T2V_1_3B, WAN22_TI2V_5B, ModelFamily
from colibri.vae.forms import CHOICES, Choice, fastest, usual
from colibri.vae.light import (
    Cache,
    LightConfig,
    LightDecoder,
    Separable,
    flops,
    light_config,
    reach,
    reach_space,
)
from torch.utils.flop_counter import FlopCounterMode

from .conftest import latents, small_config, small_decoder

FAMILIES = [WAN22_TI2V_5B, WAN21_T2V_1_3B, TINY_TI2V, TINY_T2V]
PLANS = [[9], [1] * 9, [1, 8], [1, 4, 4], [3, 1, 5], [5, 4], [2, 2, 2, 2, 1]]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("causal", [True, False])
def test_codec_is_the_teachers(family: ModelFamily, causal: bool) -> None:
    assert light_config("slim", family.vae, causal=causal).codec == family.codec


@pytest.mark.parametrize("causal", [True, False])
def test_video_has_the_size_of_its_latents(causal: bool) -> None:
    decoder = small_decoder(causal=causal)
    shape = LatentShape(channels=16, frames=4, height=3, width=5)
    with torch.no_grad():
        video = decoder(latents(4, rows=3, columns=5))
    wanted = shape.video(decoder.codec)
    assert tuple(video.shape) == (1, 3, wanted.frames, wanted.height, wanted.width)


def test_depthwise_in_all_but_the_last_two_stages() -> None:
    with torch.device("meta"):
        decoder = LightDecoder(light_config("slim", WAN22_TI2V_5B.vae, causal=True))
    separable = [isinstance(stage.blocks[0].conv1, Separable) for stage in decoder.stages]
    assert separable == [True, True, True, False, False]
    assert {type(module).__name__ for module in decoder.modules()}.isdisjoint({"Attention"})


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_any_chunk_plan_gives_the_same_video(plan: list[int]) -> None:
    decoder, z = small_decoder(causal=True), latents(9)
    cache = Cache()
    parts = [decoder(chunk, cache) for chunk in z.split(plan, dim=2)]
    torch.testing.assert_close(torch.cat(parts, dim=2), decoder(z), rtol=0, atol=1e-13)
    assert cache.latents == 9


def test_cache_does_not_grow_and_streams_do_not_mix() -> None:
    decoder = small_decoder(causal=True)
    one, other = Cache(), Cache()
    first, second = latents(6), latents(6) + 1
    sizes, mixed = [], []
    for index in range(6):
        mixed.append(decoder(first[:, :, index : index + 1], one))
        decoder(second[:, :, index : index + 1], other)
        sizes.append(one.nbytes)
    assert len(set(sizes)) == 1
    torch.testing.assert_close(torch.cat(mixed, dim=2), decoder(first), rtol=0, atol=1e-13)


@pytest.mark.parametrize("causal", [True, False])
def test_a_latent_changes_only_the_frames_within_reach(causal: bool) -> None:
    decoder = small_decoder(causal=causal)
    past, future = decoder.reach
    centre = past + future + 1
    z = latents(2 * centre + 1)
    changed = z.clone()
    changed[:, :, centre] += 1
    different = (decoder(z) != decoder(changed)).flatten(3).any(-1).any(1)[0]
    frames = different.nonzero().flatten()
    # frame f belongs to latent ceil(f / 4); a frame that looks `future` ahead lies that far behind
    touched = -(-frames // decoder.codec.time) - centre
    assert (int(touched.min()), int(touched.max())) == (-future, past)


def test_a_latent_changes_only_the_rows_within_reach() -> None:
    decoder = small_decoder(causal=False)
    side = decoder.reach_space
    z = latents(1, rows=2 * side + 3, columns=1)
    changed = z.clone()
    changed[:, :, :, side + 1] += 1
    different = (decoder(z) != decoder(changed)).any(-1).any(1)[0, 0]
    rows = different.nonzero().flatten() // decoder.codec.space - (side + 1)
    assert -side <= int(rows.min())
    assert int(rows.max()) <= side
    assert int(rows.max()) >= side - 1


@pytest.mark.parametrize("size", ["base", "slim", "tiny"])
def test_a_non_causal_decoder_sees_a_few_latents(size: str) -> None:
    assert max(reach(light_config(size, WAN22_TI2V_5B.vae, causal=False))) <= 5


@pytest.mark.parametrize("causal", [True, False])
def test_flops_are_those_of_a_counted_forward(causal: bool) -> None:
    config = small_config(causal=causal)
    decoder = small_decoder(causal=causal)
    with FlopCounterMode(display=False) as counter:
        decoder(latents(3))
    shape = LatentShape(channels=16, frames=3, height=3, width=4)
    assert flops(config, shape) == counter.get_total_flops()


@pytest.mark.parametrize(("size", "low", "high"), [("base", 140, 165), ("slim", 40, 85)])
def test_named_sizes_cost_what_they_promise(size: str, low: float, high: float) -> None:
    shape = WAN22_TI2V_5B.latent_shape(VideoShape(frames=121, height=704, width=1280))
    for causal in (True, False):
        config = light_config(size, WAN22_TI2V_5B.vae, causal=causal)
        assert low <= flops(config, shape) / 1e12 <= high


@pytest.mark.parametrize("causal", [True, False])
def test_forms_of_convolution_agree(causal: bool) -> None:
    decoder, z = small_decoder(causal=causal), latents(3)
    expected = decoder(z)
    decoder.set_form("2d")
    torch.testing.assert_close(decoder(z), expected, rtol=0, atol=1e-12)
    decoder.set_form("3d", depthwise="2d")
    torch.testing.assert_close(decoder(z), expected, rtol=0, atol=1e-12)
    moved = decoder.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(moved(z), expected, rtol=0, atol=1e-12)


def test_the_fastest_form_is_kept() -> None:
    decoder, z = small_decoder(causal=False), latents(2)
    expected = decoder(z)
    ticks = iter(range(10_000))
    wanted = Choice(dense="2d", depthwise="3d", channels_last=False)
    calls = iter(CHOICES)
    now: list[Choice] = []

    def clock() -> float:
        """Two calls a decode: every one takes 1, those of the wanted form nothing."""
        tick = next(ticks)
        if tick % 4 == 0:
            now[:] = [next(calls)]
        return 0.0 if now[0] == wanted else float(tick)

    times = fastest(decoder, z, repeats=1, clock=clock)
    assert min(times, key=times.__getitem__) == wanted
    assert decoder.conv_out.form == "2d"
    torch.testing.assert_close(decoder(z), expected, rtol=0, atol=1e-12)


def test_without_a_clock_the_choice_is_a_rule() -> None:
    decoder = small_decoder(causal=False)
    assert usual(decoder, "cpu").dense == "2d"
    assert usual(decoder, "cuda").dense == "3d"


def test_config_survives_json() -> None:
    import dataclasses
    import json

    config = small_config(causal=True)
    assert LightConfig.of(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_wrong_latents_are_refused_in_one_sentence() -> None:
    decoder = small_decoder(causal=False)
    with pytest.raises(UserError, match=r"expected \(batch, 16, latent frames"):
        decoder(torch.zeros(1, 48, 2, 3, 4))
    with pytest.raises(UserError, match="keeps no cache"):
        decoder(latents(2), Cache())
    with pytest.raises(UserError, match="known: base"):
        light_config("huge", WAN22_TI2V_5B.vae, causal=True)


def test_space_reach_is_known_for_every_size() -> None:
    config = light_config("slim", WAN22_TI2V_5B.vae, causal=False)
    assert 0 < reach_space(config) < 20
