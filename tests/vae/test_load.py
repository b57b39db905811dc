"""Decoders from folders: parity with published layouts, equal plans, refusals in a sentence."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.wan.decoder import LatentStats, hash_vae, hash_vae_folder
from colibri.vae import forms, load_decoder
from colibri.vae.adapter import LightVAE
from colibri.vae.decode import Plan, VideoDecoder
from colibri.vae.light import Conv
from colibri.vae.load import teacher_folder
from colibri.vae.taehv import STATS, PreviewDecoder
from colibri.vae.turbo import TurboConfig, TurboDecoder
from safetensors.torch import load_file, save_file
from torch.nn import functional

from .conftest import latents, small_config, small_decoder

FIXTURE = Path(__file__).parents[1] / "data" / "turbovaed-noncausal"


def test_turbo_vaed_gives_the_expected_video() -> None:
    io = load_file(FIXTURE / "io.safetensors")
    video = load_decoder(FIXTURE).decode(io["latents_raw"])
    assert video.shape == io["video"].shape
    assert float((video - io["video"]).abs().max()) <= 1e-4


def _turbo(**changes: Any) -> TurboDecoder:
    config = json.loads((FIXTURE / "config.json").read_text())
    config |= {"latent_channels": 16, "decoder_block_out_channels": [8, 8, 16, 16]} | changes
    torch.manual_seed(0)
    keys = frozenset(config.pop("keys", ["norm3.weight"]))
    return TurboDecoder(TurboConfig.of(config, keys)).double().eval().requires_grad_(False)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"decoder_causal": True},
        {"decoder_causal": True, "decoder_is_dw_conv": [False] * 5},
        {"decoder_dw_kernel_size": 5},
        {"patch_size": 4, "decoder_block_out_channels": [16, 8, 16, 16]},
        {"patch_size": 1},
        {"is_video_dc_ae": True},
        {"use_unpatchify": True, "keys": ["up_blocks.0.upsamplers.0.resample.1.weight"]},
        {"decoder_layers_per_block": [1, 1, 1, 1, 1], "decoder_spatio_only": [False] * 4},
    ],
    ids=str,
)
def test_every_member_of_the_family_decodes_in_windows_as_whole(changes: dict[str, Any]) -> None:
    decoder = VideoDecoder(core=_turbo(**changes))
    past, future = decoder.core.reach or (0, 0)
    z = latents(past + future + 6, rows=1, columns=2)
    whole = decoder.decode(z)
    lead = 0 if changes.get("is_video_dc_ae") else decoder.codec.time - 1
    assert whole.shape[2] == z.shape[2] * decoder.codec.time - lead
    assert whole.shape[3] == decoder.codec.space
    torch.testing.assert_close(decoder.decode(z, Plan(chunk=4)), whole, rtol=0, atol=1e-9)


def test_a_turbo_vaed_without_depthwise_stages_is_causal_when_it_says_so() -> None:
    core = _turbo(decoder_causal=True, decoder_is_dw_conv=[False] * 5)
    assert core.reach[1] == 0
    z = latents(3, rows=1, columns=2)
    torch.testing.assert_close(core(z)[:, :, :5], core(z[:, :, :2]), rtol=0, atol=1e-12)


def test_turbo_vaed_configs_that_cannot_run_are_refused() -> None:
    with pytest.raises(UserError, match="timestep_conditioning"):
        _turbo(timestep_conditioning=True)
    with pytest.raises(UserError, match="1 entries in decoder_is_dw_conv, not 5"):
        _turbo(decoder_is_dw_conv=[True])
    with pytest.raises(UserError, match="too narrow for patch_size 4"):
        _turbo(patch_size=4)


# ---- TAEHV ----


def _taew_weights(channels: int, patch: int) -> dict[str, torch.Tensor]:
    """Random weights under the names and shapes of the released files."""
    widths, generator = (16, 8, 4, 4), torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) / (shape[1] * 9) ** 0.5

    weights = {"decoder.1.weight": random(16, channels, 3, 3), "decoder.1.bias": torch.zeros(16)}
    for stage, at in enumerate((3, 9, 15)):
        width = widths[stage]
        for block in range(3):
            for layer, inputs in ((0, 2 * width), (2, width), (4, width)):
                name = f"decoder.{at + block}.conv.{layer}"
                weights[f"{name}.weight"] = random(width, inputs, 3, 3)
                weights[f"{name}.bias"] = torch.zeros(width)
        weights[f"decoder.{at + 4}.conv.weight"] = random(2 * width, width, 1, 1)
        weights[f"decoder.{at + 5}.weight"] = random(widths[stage + 1], width, 3, 3)
    weights["decoder.22.weight"] = random(3 * patch**2, 4, 3, 3)
    weights["decoder.22.bias"] = torch.zeros(3 * patch**2)
    weights["encoder.0.weight"] = random(4, 3, 3, 3)
    return weights


@pytest.mark.parametrize(("channels", "patch", "space"), [(48, 2, 16), (16, 1, 8)])
def test_taehv_weights_load_under_their_own_names(
    tmp_path: Path, channels: int, patch: int, space: int
) -> None:
    name = "taew2_2" if patch == 2 else "taew2_1"
    weights = _taew_weights(channels, patch)
    torch.save(weights, tmp_path / f"{name}.pth")
    decoder = load_decoder(tmp_path)
    z = torch.randn(1, channels, 3, 2, 2)
    video = decoder.decode(z)
    assert (decoder.codec.time, decoder.codec.space) == (4, space)
    assert tuple(video.shape) == (1, 3, 9, 2 * space, 2 * space)
    torch.testing.assert_close(video, _plain_taehv(weights, z, patch), rtol=0, atol=1e-5)
    torch.testing.assert_close(decoder.decode(z, Plan(chunk=1)), video, rtol=0, atol=1e-5)


def _plain_taehv(weights: dict[str, torch.Tensor], z: torch.Tensor, patch: int) -> torch.Tensor:
    """A second, slow writing of the network: frame by frame, with a loop over the layers."""

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        return functional.conv2d(
            x, weight, weights.get(f"{name}.bias"), padding=weight.shape[-1] // 2
        )

    stats = STATS[z.shape[1]]
    frames = list((3 * (stats.normalise(z) / 3).tanh()).unbind(2))
    frames = [conv(x, "decoder.1").relu() for x in frames]
    for at, grow in ((3, 1), (9, 2), (15, 2)):
        for block in range(at, at + 3):
            before = torch.zeros_like(frames[0])
            out = []
            for x in frames:
                y = conv(torch.cat([x, before], 1), f"decoder.{block}.conv.0").relu()
                y = conv(conv(y, f"decoder.{block}.conv.2").relu(), f"decoder.{block}.conv.4")
                out.append((x + y).relu())
                before = x
            frames = out
        frames = [functional.interpolate(x, scale_factor=2) for x in frames]
        grown = []
        for x in frames:
            y = functional.conv2d(x, weights[f"decoder.{at + 4}.conv.weight"])
            grown += list(y.chunk(2, dim=1))[-grow:]
        frames = [conv(x, f"decoder.{at + 5}") for x in grown]
    frames = [functional.pixel_shuffle(conv(x.relu(), "decoder.22"), patch) for x in frames]
    return torch.stack(frames[3:], dim=2) * 2 - 1


def test_other_weights_are_not_taken_for_taehv(tmp_path: Path) -> None:
    save_file({"decoder.1.weight": torch.zeros(4, 16, 3, 3)}, tmp_path / "taew2_1.safetensors")
    with pytest.raises(UserError, match="have not the layers"):
        load_decoder(tmp_path / "taew2_1.safetensors")
    with pytest.raises(UserError, match="not those of Wan"):
        PreviewDecoder((4, 4, 4, 4), 32, 2)


# ---- the teacher ----


def test_wan_decodes_as_diffusers_for_any_plan(teacher: Any, tmp_path: Path) -> None:
    teacher.save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path)
    z = latents(6, dtype=torch.float32)
    with torch.no_grad():
        expected = teacher.decode(z).sample
    for plan in (Plan(), Plan(chunk=1), Plan(chunk=3)):
        video = decoder.decode(z, plan).clamp(-1, 1)
        torch.testing.assert_close(video, expected, rtol=0, atol=1e-5)
    assert decoder.teacher["hash"] == hash_vae(teacher)


def test_teacher_features_are_those_of_its_blocks(teacher: Any) -> None:
    from colibri.vae.wan import WanCore

    core, z = WanCore(teacher), latents(3, dtype=torch.float32)
    features = core.features(z)
    assert [tuple(part.shape[2:]) for part in features] == [(3, 3, 4), (5, 6, 8), (9, 12, 16)]
    decoder = small_decoder(causal=False, dtype=torch.float32)
    taps: list[torch.Tensor] = []
    decoder(z, taps=taps)
    assert [part.shape[2:] for part in taps[:3]] == [part.shape[2:] for part in features]
    torch.testing.assert_close(core(z), core(z))  # the hooks are gone


# ---- plans ----


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "plan",
    [Plan(chunk=1), Plan(chunk=4), Plan(chunk=40), Plan(chunk=3, tile=2), Plan(tile=3)],
    ids=str,
)
def test_exact_plans_agree_with_the_whole(causal: bool, plan: Plan) -> None:
    decoder = VideoDecoder(core=small_decoder(causal=causal))
    z = latents(14, rows=4, columns=5)
    torch.testing.assert_close(decoder.decode(z, plan), decoder.decode(z), rtol=0, atol=1e-12)


def test_blending_two_exact_chunks_changes_nothing() -> None:
    decoder, z = VideoDecoder(core=small_decoder(causal=False)), latents(13)
    whole = decoder.decode(z)
    for plan in (Plan(chunk=5, blend=2), Plan(chunk=2, blend=2), Plan(chunk=13, blend=1)):
        torch.testing.assert_close(decoder.decode(z, plan), whole, rtol=0, atol=1e-12)


def test_blending_softens_the_seams_of_a_short_halo() -> None:
    decoder, z = VideoDecoder(core=small_decoder(causal=False)), latents(24)
    whole = decoder.decode(z)

    def worst(plan: Plan) -> float:
        return float((decoder.decode(z, plan) - whole).abs().max())

    hard, soft = worst(Plan(chunk=6, halo=0)), worst(Plan(chunk=6, halo=0, blend=2))
    assert 0 < soft < hard
    assert worst(Plan(chunk=6, halo=2)) < hard


@pytest.mark.parametrize("causal", [True, False])
def test_latents_may_come_in_pieces(causal: bool) -> None:
    decoder, z = VideoDecoder(core=small_decoder(causal=causal)), latents(11)

    def pieces() -> Iterator[torch.Tensor]:
        yield from z.split([1, 3, 2, 5], dim=2)

    parts = list(decoder.stream(pieces(), Plan(chunk=3)))
    assert len(parts) > 2
    torch.testing.assert_close(torch.cat(parts, 2), decoder.decode(z), rtol=0, atol=1e-12)


def test_plans_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1 latent"):
        Plan(chunk=0)
    with pytest.raises(UserError, match="cannot exceed chunk"):
        Plan(chunk=2, blend=3)
    with pytest.raises(UserError, match="has no seams"):
        VideoDecoder(core=small_decoder(causal=True)).decode(latents(2), Plan(chunk=1, blend=1))


# ---- our folders ----


def _light(teacher: Any, *, causal: bool = True) -> LightVAE:
    torch.manual_seed(3)
    about = {"id": "", "revision": "", "hash": hash_vae(teacher)}
    stats = LatentStats.of(teacher.config)
    config = small_config(causal=causal, teacher=dict(teacher.config))
    return LightVAE.of(config, stats, teacher=about).eval()


@pytest.mark.parametrize("causal", [True, False])
def test_a_saved_decoder_decodes_the_same(teacher: Any, tmp_path: Path, causal: bool) -> None:
    light = _light(teacher, causal=causal)
    light.save_pretrained(tmp_path)
    decoder, z = load_decoder(tmp_path), latents(3, dtype=torch.float32)
    torch.testing.assert_close(decoder.decode(z), light(z), rtol=0, atol=1e-5)
    again = LightVAE.from_pretrained(tmp_path).decode(z).sample
    assert torch.equal(again, decoder.decode(z).clamp(-1, 1))
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["scale_factor_temporal"], config["scale_factor_spatial"]) == (4, 8)
    assert config["reach"] == list(decoder.reach or ())
    assert decoder.causal is causal


def test_a_changed_teacher_is_refused(teacher: Any, tmp_path: Path) -> None:
    light = _light(teacher)
    light.save_pretrained(tmp_path / "light")
    teacher.save_pretrained(tmp_path / "vae")
    load_decoder(tmp_path / "light", teacher=tmp_path / "vae")
    weights = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    weights["post_quant_conv.bias"][0] += 1
    save_file(weights, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match="is not the VAE that this decoder was trained for"):
        load_decoder(tmp_path / "light", teacher=tmp_path / "vae")


def test_encoding_is_the_teachers_or_a_sentence(teacher: Any) -> None:
    light, pixels = _light(teacher), torch.rand(1, 3, 5, 16, 16)
    with pytest.raises(UserError, match="names no teacher VAE"):
        light.encode(pixels)
    light.attach_teacher(teacher)
    expected = teacher.encode(pixels).latent_dist.mode()
    assert torch.equal(light.encode(pixels).latent_dist.mode(), expected)
    light.to(torch.bfloat16)
    asked = light.encode(pixels.bfloat16()).latent_dist.mode()
    assert (asked - expected).abs().max() < 0.1


def test_offload_hooks_hear_of_decoding_and_encoding(teacher: Any) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Heard(ModelHook):
        calls = 0

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return args, kwargs

    light, heard = _light(teacher), Heard()
    light.attach_teacher(teacher)
    add_hook_to_module(light, heard)
    light.decode(latents(2, dtype=torch.float32))
    assert heard.calls == 1
    light.encode(torch.rand(1, 3, 5, 16, 16))
    assert heard.calls == 2


def test_slices_and_diffusers_tiles_decode_the_same(teacher: Any) -> None:
    light = _light(teacher)
    one = latents(3, rows=4, columns=4, dtype=torch.float32)
    z = torch.cat([one, -one])
    whole = light.decode(z).sample
    light.enable_slicing()
    light.enable_tiling(tile_sample_min_height=16, tile_sample_min_width=24)
    assert light.plan.tile == 2
    torch.testing.assert_close(light.decode(z).sample, whole, rtol=0, atol=1e-5)
    light.disable_slicing()
    light.disable_tiling()
    assert torch.equal(light.decode(z).sample, whole)


def test_a_teacher_on_the_hub_is_its_vae_alone(
    vae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hub_server import HubServer

    server = HubServer()
    kept = {f"vae/{path.name}": path.read_bytes() for path in vae_folder.iterdir()}
    server.files["me/wan"] = kept | {"transformer/weights.safetensors": b"large"}
    with server.standing_in(monkeypatch, tmp_path / "hub", large=1000):
        folder = teacher_folder("me/wan", weights=False)
        assert [path.name for path in folder.iterdir()] == ["config.json"]
        folder = teacher_folder("me/wan")
        assert hash_vae_folder(folder) == hash_vae_folder(vae_folder)
    assert server.served["transformer/weights.safetensors"] == 0


def test_a_form_that_was_found_fastest_is_used(
    teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _light(teacher).save_pretrained(tmp_path / "light")
    core: Any = load_decoder(tmp_path / "light").core
    assert forms.chosen(core, "cpu") == forms.usual(core, "cpu")
    other = forms.Choice(dense="3d", depthwise="2d", channels_last=False)
    note = forms.remember(core, "cpu", other)
    assert forms.chosen(core, "cpu") == other
    again: Any = load_decoder(tmp_path / "light").core
    assert {conv.form for conv in again.modules() if isinstance(conv, Conv)} == {"2d", "3d"}
    assert forms.chosen(core.bfloat16(), "cpu") == forms.usual(core, "cpu")
    note.write_text("{")
    assert forms.chosen(core.float(), "cpu") == forms.usual(core, "cpu")


def test_bad_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no decoder folder"):
        load_decoder(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_decoder(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "UNet"}')
    with pytest.raises(UserError, match="no decoder known here"):
        load_decoder(tmp_path)
    shutil.copytree(FIXTURE, tmp_path / "cut")
    file = tmp_path / "cut" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is cut off"):
        load_decoder(tmp_path / "cut")


@pytest.mark.parametrize("kind", ["teacher", "light"])
def test_weights_that_are_lacking_or_of_other_shapes_are_one_sentence(
    kind: str, teacher: Any, tmp_path: Path
) -> None:
    (teacher if kind == "teacher" else _light(teacher)).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    name = next(key for key in weights if key.startswith("decoder.") and key.endswith("weight"))
    save_file({key: value for key, value in weights.items() if key != name}, file)
    with pytest.raises(UserError, match="lacks 1 of its weights"):
        load_decoder(tmp_path)
    save_file(weights | {name: weights[name][:1].contiguous()}, file)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_decoder(tmp_path)


def test_light_vae_takes_the_place_of_wan_in_a_pipeline() -> None:
    from colibri.core import wan
    from colibri.core.wan.family import TINY_TI2V
    from colibri.core.wan.text import word_tokenizer
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    tokenizer = word_tokenizer("a red circle".split())
    model = wan.build(TINY_TI2V, seed=0, tokenizer=tokenizer)
    light = _light(model.vae, causal=False)

    def run(vae: Any, kind: str) -> torch.Tensor:
        pipe = WanPipeline(
            tokenizer=model.tokenizer,
            text_encoder=model.text_encoder,
            transformer=model.transformer,
            vae=model.vae,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            expand_timesteps=True,
        )
        pipe.vae = vae
        pipe.set_progress_bar_config(disable=True)
        frames: torch.Tensor = pipe(
            prompt="a red circle",
            height=32,
            width=32,
            num_frames=5,
            num_inference_steps=1,
            guidance_scale=1.0,
            max_sequence_length=8,
            output_type=kind,
            generator=torch.Generator().manual_seed(0),
        ).frames
        return frames

    z = run(light, "latent")
    video = run(light, "pt")
    assert tuple(video.shape) == (1, 5, 3, 32, 32)
    with torch.no_grad():
        raw = LatentStats.of(model.vae.config).unnormalise(z)
        expected = (light(raw).clamp(-1, 1) / 2 + 0.5).permute(0, 2, 1, 3, 4)
    torch.testing.assert_close(video, expected, rtol=0, atol=1e-6)


def test_image_to_video_encodes_with_the_teacher() -> None:
    from colibri.core import wan
    from colibri.core.wan.family import TINY_TI2V
    from colibri.core.wan.text import word_tokenizer
    from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
    from PIL import Image

    model = wan.build(TINY_TI2V, seed=0, tokenizer=word_tokenizer("a red circle".split()))
    light = _light(model.vae, causal=True)
    light.attach_teacher(model.vae)
    pipe = WanImageToVideoPipeline(
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder,
        transformer=model.transformer,
        vae=light,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        expand_timesteps=True,
    )
    pipe.set_progress_bar_config(disable=True)
    video = pipe(
        image=Image.new("RGB", (32, 32), "red"),
        prompt="a red circle",
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=1,
        guidance_scale=1.0,
        max_sequence_length=8,
        output_type="pt",
    ).frames
    assert tuple(video.shape) == (1, 5, 3, 32, 32)


@pytest.mark.parametrize("causal", [True, False])
def test_work_at_once_depends_on_the_plan_and_not_on_the_length(causal: bool) -> None:
    core = small_decoder(causal=causal)
    seen: list[int] = []
    core.conv_in.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[2]))
    decoder = VideoDecoder(core=core)
    largest = []
    for frames in (20, 40):
        seen.clear()
        for _ in decoder.stream(latents(frames, rows=1, columns=1), Plan(chunk=4)):
            pass
        largest.append(max(seen))
    past, future = core.reach
    assert largest[0] == largest[1] == (4 if causal else 4 + past + future)


def test_a_turbo_vaed_config_without_a_class_is_known_by_its_fields(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "plain")
    config = json.loads((FIXTURE / "config.json").read_text())
    del config["_class_name"]
    (tmp_path / "plain" / "config.json").write_text(json.dumps(config))
    weights = load_file(FIXTURE / "diffusion_pytorch_model.safetensors")
    bare = {k.removeprefix("decoder."): v for k, v in weights.items() if k.startswith("decoder.")}
    save_file(bare, tmp_path / "plain" / "diffusion_pytorch_model.safetensors")
    io = load_file(FIXTURE / "io.safetensors")
    video = load_decoder(tmp_path / "plain").decode(io["latents_raw"])
    assert float((video - io["video"]).abs().max()) <= 1e-4
