"""Light decoders in the place of a model's own: the same in chunks, on replay, after a kill."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.latents import read_latents
from colibri.core.wan.decoder import LatentStats, hash_vae_folder, to_frames
from colibri.infer import light, memory, models
from colibri.infer.cli import main
from colibri.infer.config import DecodeConfig, I2vConfig, ReplayConfig, T2vConfig
from colibri.infer.decode import decode, ways_down
from colibri.infer.finish import decode_file
from colibri.infer.generate import Rendered, generate, plan
from colibri.infer.image import hash_pixels
from colibri.infer.jobs import job_of
from colibri.infer.long import make_long
from colibri.infer.long_config import LongConfig
from colibri.infer.long_stream import BlockWritten
from colibri.infer.recipe import read_video
from colibri.infer.replay import replay
from colibri.infer.settings import make_recipes
from colibri.infer.stream import decoded_blocks
from colibri.testbed.embedded import LIGHT, PREFIX
from colibri.vae import forms, load_decoder
from colibri.vae import taehv as taehv_module
from colibri.vae.adapter import LightVAE
from colibri.vae.light import light_config
from colibri.vae.taehv import PreviewDecoder
from infer_toys import frames_of
from PIL import Image

PROMPT = "a red circle moves left"


def quiet(_: str) -> None:
    return


def _light(model: Path, out: Path, *, causal: bool) -> Path:
    """A random light decoder for a model's VAE."""
    config = json.loads((model / "vae" / "config.json").read_text())
    torch.manual_seed(0)
    teacher = {"id": str(model), "revision": "", "hash": hash_vae_folder(model / "vae")}
    made = LightVAE.of(
        light_config("micro", config, causal=causal), LatentStats.of(config), teacher=teacher
    )
    made.save_pretrained(out)
    return out


def _preview(model: Path, out: Path) -> Path:
    """A random 2D decoder of TAEHV's form."""
    config = json.loads((model / "vae" / "config.json").read_text())
    torch.manual_seed(0)
    codec = models.find_model(str(model)).family.codec
    decoder = PreviewDecoder.sized("micro", codec, LatentStats.of(config))
    out.mkdir()
    teacher = {"id": str(model), "revision": "", "hash": hash_vae_folder(model / "vae")}
    taehv_module.save(out, decoder, teacher=teacher)
    return out


@pytest.fixture(scope="module")
def decoders(ti2v: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of every kind, for the model `ti2v`."""
    folder = tmp_path_factory.mktemp("decoders")
    return {
        "causal": _light(ti2v, folder / "causal", causal=True),
        "ahead": _light(ti2v, folder / "ahead", causal=False),
        "2d": _preview(ti2v, folder / "2d"),
        "own": ti2v,
    }


def settings(model: Path, out: Path, decoder: Path, **more: object) -> T2vConfig:
    given = {"model": str(model), "out": out, "prompt": PROMPT, "steps": 1, "frames": 9}
    given |= {"device": "cpu", "size": (32, 48), "guidance": 1.0, "decoder": str(decoder)}
    return T2vConfig(**given | more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rendered(
    ti2v: Path, decoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Rendered:
    config = settings(ti2v, tmp_path_factory.mktemp("out"), decoders["causal"], keep_latents=True)
    (one,) = generate(config, say=quiet)
    return one


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of models that are loaded, as they are."""
    load, parts = models.load, []

    def heard(*args: Any) -> wan.WanModel:
        parts.extend(args[2:])
        return load(*args)

    monkeypatch.setattr(models, "load", heard)
    return parts


# ---- a render ----


def test_the_frames_are_the_decoders_and_the_recipe_names_it(
    rendered: Rendered, ti2v: Path, decoders: dict[str, Path]
) -> None:
    recipe, made = read_video(rendered.video)
    assert recipe.decoder is not None
    assert recipe.decoder.source == str(decoders["causal"])
    latents = read_latents(rendered.video.with_suffix(".latents.safetensors")).latents["clip"]
    raw = models.find_model(str(ti2v)).family.stats.unnormalise(latents)
    video = load_decoder(decoders["causal"]).decode(raw)
    assert hash_pixels(to_frames(video)[0]) == made.frames_sha256


def test_a_form_that_was_found_fastest_is_used_and_recorded(
    ti2v: Path, decoders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (usual,) = generate(settings(ti2v, tmp_path / "a", decoders["causal"]), say=quiet)
    assert "convolution" not in usual.made.versions
    way = forms.Choice(dense="3d", depthwise="2d", channels_last=False)
    core: Any = load_decoder(decoders["causal"]).core
    forms.remember(core, "cpu", way)
    (other,) = generate(settings(ti2v, tmp_path / "b", decoders["causal"]), say=quiet)
    assert other.made.versions["convolution"] == str(way)


def test_replay_decodes_with_it_again_and_refuses_another(
    rendered: Rendered, decoders: dict[str, Path], tmp_path: Path
) -> None:
    assert replay(rendered.video, ReplayConfig(device="cpu"), say=quiet).identical
    moved = tmp_path / "moved"
    decoders["causal"].rename(moved)
    try:
        with pytest.raises(UserError, match="there is no decoder"):
            replay(rendered.video, ReplayConfig(device="cpu"), say=quiet)
        there = ReplayConfig(device="cpu", decoder=str(moved))
        assert replay(rendered.video, there, say=quiet).identical
    finally:
        moved.rename(decoders["causal"])
    other = ReplayConfig(device="cpu", decoder=str(decoders["ahead"]))
    with pytest.raises(UserError, match="not the one that the recipe names"):
        replay(rendered.video, other, say=quiet)


def test_the_models_own_vae_is_not_even_loaded(
    ti2v: Path, decoders: dict[str, Path], tmp_path: Path, loaded: list[str]
) -> None:
    generate(settings(ti2v, tmp_path, decoders["causal"]), say=quiet)
    assert loaded == ["tokenizer", "text_encoder", "transformer"]


def test_a_first_frame_is_encoded_by_the_models_own_vae(
    ti2v: Path, decoders: dict[str, Path], tmp_path: Path, loaded: list[str]
) -> None:
    image = tmp_path / "first.png"
    Image.new("RGB", (48, 32), "red").save(image)
    given = vars(settings(ti2v, tmp_path, decoders["causal"])) | {"keep_latents": True}
    (light_one,) = generate(I2vConfig(**given, image=image), say=quiet)
    assert loaded[-1] == "vae"
    (own,) = generate(I2vConfig(**given | {"decoder": None}, image=image), say=quiet)
    both = [
        read_latents(one.video.with_suffix(".latents.safetensors")).latents["clip"]
        for one in (light_one, own)
    ]
    assert torch.equal(*both)


def test_decode_takes_the_recipes_decoder_or_another(
    rendered: Rendered, decoders: dict[str, Path], tmp_path: Path
) -> None:
    latents = rendered.video.with_suffix(".latents.safetensors")

    def decoded(name: str, **more: Any) -> str | None:
        out = tmp_path / f"{name}.mp4"
        decode_file(latents, DecodeConfig(device="cpu", out=out, **more), say=quiet)
        return read_video(out)[1].frames_sha256

    assert decoded("same") == rendered.made.frames_sha256
    hashes = {name: decoded(name, decoder=str(path)) for name, path in decoders.items()}
    assert hashes["causal"] == rendered.made.frames_sha256
    hashes["models"] = decoded("models", decoder="own")
    assert len(set(hashes.values())) >= 4


# ---- memory ----


@pytest.mark.parametrize("kind", ["causal", "ahead", "2d", "own"])
def test_frames_are_the_same_in_every_way_up_to_rounding(
    kind: str, ti2v: Path, decoders: dict[str, Path]
) -> None:
    source = models.find_model(str(ti2v))
    machine = models.choose_machine("cpu")
    use = light.find_decoder(str(decoders[kind]), source, say=quiet)
    vae = light.load(source, machine, use, "vae").vae
    latents = torch.randn(1, 16, 20, 4, 6, generator=torch.Generator().manual_seed(0))
    whole, _ = decode(vae, latents, source.family, mode="whole", say=quiet)
    assert whole.shape == (77, 32, 48, 3)
    for way in ways_down(vae, "cuda")[1:]:
        frames, _ = decode(vae, latents, source.family, mode=way, say=quiet)
        assert np.abs(frames.astype(int) - whole).max() <= 1
    assert ("tiles" in ways_down(vae, "cuda")) == (kind in ("causal", "ahead"))


def test_out_of_memory_steps_down_to_what_the_decoder_can(
    ti2v: Path, decoders: dict[str, Path]
) -> None:
    source, machine = models.find_model(str(ti2v)), models.choose_machine("cpu")
    use = light.find_decoder(str(decoders["2d"]), source, say=quiet)
    vae = light.load(source, machine, use, "vae").vae
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    whole, _ = decode(vae, latents, source.family, say=quiet)
    stream, left = vae.decoder.stream, [1]

    def scarce(*args: Any) -> Iterator[torch.Tensor]:
        if left and left.pop():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return stream(*args)

    vae.decoder.stream = scarce
    heard: list[str] = []
    frames, way = decode(vae, latents, source.family, say=heard.append)
    assert way == "chunks"
    assert "in chunks (the same frames, up to rounding)" in heard[0]
    assert np.abs(frames.astype(int) - whole).max() <= 1
    with pytest.raises(UserError, match="cannot decode in tiles; --decode chunks can be used"):
        decode(vae, latents, source.family, mode="tiles", say=quiet)


def test_a_memory_plan_counts_the_light_decoder(
    ti2v: Path, decoders: dict[str, Path], tmp_path: Path
) -> None:
    source, machine = models.find_model(str(ti2v)), models.choose_machine("cpu")
    (own,), (one,) = (_recipes(ti2v, tmp_path, decoder) for decoder in (None, decoders["ahead"]))
    shapes = memory.Shapes(source, one, machine)
    model = light.load(source, machine, one.decoder, "vae")
    assert shapes.decode("whole").weights_bytes == memory.weights_bytes(model.vae)
    assert shapes.decode("whole").working_bytes > shapes.decode("chunks").working_bytes
    assert shapes.decode("whole") != memory.Shapes(source, own, machine).decode("whole")
    config = settings(ti2v, tmp_path, decoders["ahead"], vram="8")
    assert "Memory plan for 8.00 GiB" in plan(config, say=quiet)


def _recipes(model: Path, out: Path, decoder: Path | None) -> list[Any]:
    source, machine = models.find_model(str(model)), models.choose_machine("cpu")
    config = settings(model, out, Path("x"), frames=81)
    use = light.find_decoder(str(decoder), source, say=quiet) if decoder else None
    jobs = [job_of(PROMPT, 0)]
    found = make_recipes(config, jobs, source, machine, decoder=use, say=quiet)
    return [one.recipe for one in found]


# ---- refusals ----


def _other_teacher(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    config["teacher"]["hash"] = "0" * 64
    (to / "config.json").write_text(json.dumps(config))
    return to


def _other_channels(_: Path, to: Path) -> Path:
    return Path(__file__).parents[1] / "data" / "turbovaed-noncausal"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_other_teacher, "is not the VAE that this decoder was trained for"),
        (_other_channels, "takes latents of 48 channels"),
        (lambda _, to: to, "there is no decoder"),
        (lambda _, to: to.mkdir() or to, "has no config.json"),
    ],
    ids=["another VAE", "channels", "nothing", "empty"],
)
def test_a_decoder_that_does_not_fit_is_refused_in_one_sentence(
    make: Callable[[Path, Path], Path],
    said: str,
    ti2v: Path,
    decoders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong = make(decoders["causal"], tmp_path / "decoder")
    flags = ["--prompt", PROMPT, "--model", str(ti2v), "--device", "cpu", "--out", str(tmp_path)]
    assert main(["t2v", *flags, "--decoder", str(wrong)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("*.mp4"))


def test_a_decoder_that_names_no_teacher_is_used_and_said_to_be_unchecked(
    ti2v: Path, decoders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "2d"
    shutil.copytree(decoders["2d"], folder)
    config = json.loads((folder / "config.json").read_text())
    del config["teacher"]
    (folder / "config.json").write_text(json.dumps(config))
    heard: list[str] = []
    generate(settings(ti2v, tmp_path, folder), say=heard.append)
    assert any("cannot be checked" in line for line in heard)


def test_info_describes_a_decoder_beside_its_model(
    ti2v: Path, decoders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--device", "cpu", "--vram", "4"]
    assert main(["info", str(ti2v), "--decoder", str(decoders["causal"]), *flags]) == 0
    light_one = capsys.readouterr().out
    assert "decoder       LightDecoder, causal, " in light_one
    assert f"of the VAE {hash_vae_folder(ti2v / 'vae')[:12]}" in light_one
    assert main(["info", str(ti2v), *flags]) == 0
    own = capsys.readouterr().out
    decoding = [
        next(line for line in told.splitlines() if line.startswith("  decode"))
        for told in (light_one, own)
    ]
    assert decoding[0] != decoding[1]
    assert main(["info", "tiny-ti2v", "--decoder", str(decoders["2d"])]) == 0
    assert main(["info", str(ti2v), "--decoder", str(ti2v.parent / "none")]) == 2


# ---- long videos ----


@pytest.mark.parametrize("kind", ["causal", "ahead", "2d"])
def test_a_long_video_streams_through_it_and_a_kill_changes_no_frame(
    kind: str, causal_student: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "decoder"
    if kind == "2d":
        _preview(causal_student, folder)
    else:
        _light(causal_student, folder, causal=kind == "causal")
    config = LongConfig(
        model=str(causal_student),
        prompt=PROMPT,
        seconds=10.0,
        size=(16, 16),
        device="cpu",
        decoder=str(folder),
        save_every_s=0.0,
        out=tmp_path / "whole",
    )
    whole = make_long(config, say=quiet)
    assert whole.recipe.decoder is not None

    def stop(one: BlockWritten) -> None:
        if one.blocks == 7:
            raise KeyboardInterrupt

    killed = replace(config, out=tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        make_long(killed, say=quiet, watch=stop)
    again = make_long(killed, say=quiet)
    assert again.speed is not None
    assert again.speed.frames < whole.recipe.frames
    assert again.made.frames_sha256 == whole.made.frames_sha256
    assert replay(whole.video, ReplayConfig(device="cpu"), say=quiet).identical


@pytest.mark.parametrize("kind", ["causal", "ahead"])
def test_blocks_in_a_stream_are_the_whole_up_to_rounding(
    kind: str, ti2v: Path, decoders: dict[str, Path]
) -> None:
    source, machine = models.find_model(str(ti2v)), models.choose_machine("cpu")
    use = light.find_decoder(str(decoders[kind]), source, say=quiet)
    vae = light.load(source, machine, use, "vae").vae
    latents = torch.randn(1, 16, 13, 2, 2, generator=torch.Generator().manual_seed(0))
    whole, _ = decode(vae, latents, source.family, mode="whole", say=quiet)
    pieces = [latents[:, :, :1], *latents[:, :, 1:].split(3, dim=2)]
    streamed = list(decoded_blocks(vae, pieces, source.family))
    assert [len(frames) for frames in streamed] == [1, 12, 12, 12, 12]
    assert np.abs(np.concatenate(streamed).astype(int) - whole).max() <= 1


def test_the_embedded_decoder_shows_what_its_teacher_shows(tmp_path: Path) -> None:
    """The student that is infer's default, its frames by both decoders."""
    given: dict[str, Any] = {"prompt": "a red circle moves left", "device": "cpu"}
    frames = []
    for decoder in (None, PREFIX + LIGHT):
        config = T2vConfig(**given, out=tmp_path / str(decoder), decoder=decoder)
        (made,) = generate(config, say=quiet)
        assert (made.recipe.decoder is None) == (decoder is None)
        frames.append(frames_of(made.video))
    error = np.square(frames[0] / 255.0 - frames[1] / 255.0).mean()
    assert -10 * np.log10(error) > 30
