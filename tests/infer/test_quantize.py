"""`infer quantize`: folders that load anywhere, with a true report; bad input in one sentence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.infer import models, quantized, tuning
from colibri.infer.cli import main
from colibri.infer.config import QuantizeConfig, ReplayConfig, T2vConfig
from colibri.infer.denoise import load_denoiser
from colibri.infer.generate import generate
from colibri.infer.quantize import Report, quantize, sqnr_db, text
from colibri.infer.replay import replay

LOOK = {"steps": 1, "frames": 5, "size": (32, 32), "device": "cpu", "guidance": 1.0}


def quiet(_: str) -> None:
    return


@pytest.fixture(scope="module")
def int4(ti2v: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A folder and its report. Read-only by agreement."""
    out = tmp_path_factory.mktemp("quantised") / "int4"
    config = QuantizeConfig(model=str(ti2v), scheme="int4", out=out, prompt="a red circle", **LOOK)  # type: ignore[arg-type]
    return out, quantize(config, say=quiet)


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def render(folder: Path, out: Path) -> np.ndarray:
    config = T2vConfig(model=str(folder), out=out, prompt="a red circle", **LOOK)  # type: ignore[arg-type]
    (one,) = generate(replace(config, keep_latents=True), say=quiet)
    assert replay(one.video, ReplayConfig(device="cpu"), say=quiet).identical
    from colibri.core.latents import read_latents

    file = one.video.with_name(one.video.stem + ".latents.safetensors")
    return read_latents(file).latents["clip"].numpy()


def test_a_quantised_folder_renders_replays_and_differs_by_what_the_report_says(
    int4: tuple[Path, Report], ti2v: Path, tmp_path: Path
) -> None:
    folder, report = int4
    before, after = (
        torch.from_numpy(render(one, tmp_path / str(index)))
        for index, one in enumerate((ti2v, folder))
    )
    assert report.difference is not None
    assert sqnr_db(before, after) == pytest.approx(report.difference.latents_sqnr_db)
    assert 20 < report.difference.latents_sqnr_db < 80
    assert "dB PSNR" in text(report)
    kept = json.loads((folder / "quantization.json").read_text())
    assert kept["difference"]["frames_psnr_db"] == report.difference.frames_psnr_db


def test_only_linear_layers_of_inner_blocks_are_quantised_and_the_rest_is_bit_for_bit(
    int4: tuple[Path, Report], ti2v: Path
) -> None:
    folder, report = int4
    parts = {part.part: part for part in report.parts}
    names = {layer.name for layer in parts["transformer"].layers}
    assert len(names) == 20
    assert {name.split(".")[1] for name in names} == {"1", "2"}
    assert len(parts["text_encoder"].layers) == 14
    source = wan.load(ti2v, parts=("transformer",)).transformer.state_dict()
    family, _ = wan.describe(folder)
    loaded = quantized.load_part(folder / "transformer", family, "transformer", dtype="float32")
    changed = {f"{name}.weight" for name in names}
    state = loaded.state_dict()
    for name, tensor in source.items():
        if name not in changed:
            assert torch.equal(state[name], tensor), name
    for layer in parts["transformer"].layers:
        back = loaded.get_submodule(layer.name).unpacked()
        assert sqnr_db(source[f"{layer.name}.weight"], back) == pytest.approx(layer.sqnr_db)
        assert layer.sqnr_db > 20
    size = (folder / "transformer" / "quantized-00001.safetensors").stat().st_size
    assert parts["transformer"].bytes_after == size


def test_half_precision_keeps_what_the_source_keeps_in_float32(int4: tuple[Path, Report]) -> None:
    folder, _ = int4
    family, _ = wan.describe(folder)
    for dtype in ("bfloat16", "float16"):
        for part in quantized.PARTS:
            network = quantized.load_part(folder / part, family, part, dtype=dtype)
            plain = wan.build_meta(family, part)
            full = wan.model.kept_in_float32(plain, part, dtype)  # type: ignore[attr-defined]
            for name, weight in network.named_parameters():
                wide = bool(full & set(name.split(".")))
                assert weight.dtype == (torch.float32 if wide else getattr(torch, dtype)), name


def test_every_scheme_loads_in_the_precision_of_the_machine(ti2v: Path, tmp_path: Path) -> None:
    tokens = torch.tensor([[3, 4, 5, 1]])
    exact = wan.load(ti2v, parts=("text_encoder",)).text_encoder(tokens).last_hidden_state
    least = {"int8": 30, "int8-dynamic": 28, "fp8": 20}
    for scheme, decibels in least.items():
        out = tmp_path / scheme
        config = QuantizeConfig(
            model=str(ti2v),
            scheme=scheme,  # type: ignore[arg-type]
            out=out,
            parts=("text_encoder",),
            compare=False,
            device="cpu",
        )
        quantize(config, say=quiet)
        source = models.find_model(str(out))
        machine = models.choose_machine("cpu", "bfloat16")
        encoder = models.load(source, machine, "text_encoder").text_encoder
        found = encoder(tokens).last_hidden_state
        assert found.dtype == torch.bfloat16
        assert sqnr_db(exact, found) > decibels
        assert not quantized.is_quantized(out / "transformer")


def test_large_parts_are_written_in_several_files(
    ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colibri.infer.quantize.SHARD_BYTES", 500_000)
    out = tmp_path / "sharded"
    config = QuantizeConfig(model=str(ti2v), scheme="fp8", out=out, compare=False, device="cpu")
    quantize(config, say=quiet)
    assert len(list((out / "transformer").glob("*.safetensors"))) > 2
    family, _ = wan.describe(out)
    quantized.load_part(out / "transformer", family, "transformer", dtype="float32")


def test_damaged_files_are_named(int4: tuple[Path, Report], tmp_path: Path) -> None:
    folder, _ = int4
    machine = models.choose_machine("cpu")

    def loading(copy: Path) -> None:
        models.load(models.find_model(str(copy)), machine, "transformer")

    name = "transformer/quantized-00001.safetensors"
    cut = copied(folder, tmp_path / "cut")
    whole = (cut / name).read_bytes()
    (cut / name).write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"quantized-00001.safetensors is cut off"):
        loading(cut)
    (cut / name).write_bytes(whole[:-4] + b"\0\1\2\3")
    with pytest.raises(UserError, match=r"quantized-00001.safetensors has changed"):
        loading(cut)
    (cut / name).unlink()
    with pytest.raises(UserError, match=r"no file .*quantized-00001.safetensors|holds no weights"):
        loading(cut)
    other = copied(folder, tmp_path / "other")
    about = other / "transformer" / "quantized.json"
    table = json.loads(about.read_text())
    about.write_text(json.dumps(table | {"layers": [*table["layers"], "blocks.9.ffn.net.2"]}))
    with pytest.raises(UserError, match=r"quantized.json names a layer"):
        loading(other)
    about.write_text(json.dumps(table | {"layers": table["layers"][1:]}))
    with pytest.raises(UserError, match="does not fit"):
        loading(other)
    about.write_text(json.dumps(table | {"format": "colibri-quantized/9"}))
    with pytest.raises(UserError, match="not of the form"):
        loading(other)
    about.write_text("{")
    with pytest.raises(UserError, match=r"quantized.json cannot be read"):
        loading(other)


def test_bad_input_is_refused_before_anything_is_written(
    int4: tuple[Path, Report], ti2v: Path, tmp_path: Path
) -> None:
    folder, _ = int4
    config = QuantizeConfig(model=str(ti2v), out=tmp_path / "out", compare=False, device="cpu")
    with pytest.raises(UserError, match="quantised already"):
        quantize(replace(config, model=str(folder)), say=quiet)
    with pytest.raises(UserError, match="no scheme 'int2'"):
        quantize(replace(config, scheme="int2"), say=quiet)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--parts vae"):
        quantize(replace(config, parts=("vae",)), say=quiet)
    with pytest.raises(UserError, match="--keep-blocks 2 leaves nothing"):
        quantize(replace(config, keep_blocks=2), say=quiet)
    with pytest.raises(UserError, match="the device 'cuda:99' cannot be used"):
        quantize(replace(config, device="cuda:99"), say=quiet)
    with pytest.raises(UserError, match="merge it first: infer convert"):
        quantize(replace(config, lora=("x.safetensors",)), say=quiet)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.txt").touch()
    with pytest.raises(UserError, match="no quantised model"):
        quantize(replace(config, out=photos), say=quiet)
    with pytest.raises(UserError, match="is quantised"):
        wan.load(folder, parts=("transformer",))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_the_compared_video_is_made_with_the_memory_and_attention_that_are_asked_for(
    ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: list[str | None] = []
    monkeypatch.setattr(tuning, "set_attention", lambda _, backend: set_to.append(backend))
    told: list[str] = []
    config = QuantizeConfig(
        model=str(ti2v),
        out=tmp_path / "out",
        vram="2",
        attention="_native_flash",
        **LOOK,  # type: ignore[arg-type]
    )
    quantize(config, say=told.append)
    assert sum(line.startswith("Memory plan for 2.00 GiB") for line in told) == 2
    assert set_to == ["_native_flash"] * 2


def test_weights_that_are_not_numbers_are_named(ti2v: Path, tmp_path: Path) -> None:
    model = wan.load(ti2v)
    with torch.no_grad():
        model.transformer.blocks[1].attn1.to_q.weight[0, 0] = float("nan")
    wan.save(model, tmp_path / "broken")
    config = QuantizeConfig(
        model=str(tmp_path / "broken"), out=tmp_path / "out", compare=False, device="cpu"
    )
    with pytest.raises(UserError, match=r"blocks.1.attn1.to_q.weight cannot be quantised"):
        quantize(config, say=quiet)
    assert not (tmp_path / "out").exists()


def test_a_lora_on_quantised_weights_is_refused(int4: tuple[Path, Report], tmp_path: Path) -> None:
    from colibri.infer.jobs import job_of
    from colibri.infer.recipe import LoraUse
    from colibri.infer.settings import make_recipes

    source = models.find_model(str(int4[0]))
    machine = models.choose_machine("cpu")
    config = T2vConfig(model=str(int4[0]), **LOOK)  # type: ignore[arg-type]
    (planned,) = make_recipes(config, [job_of("a red circle", 0)], source, machine, say=quiet)
    recipe = replace(planned.recipe, loras=(LoraUse(path="x", scale=1.0, sha256=""),))
    with pytest.raises(UserError, match="--lora cannot be put on a quantised model"):
        load_denoiser(source, machine, recipe)


def test_the_command_prints_the_report(
    ti2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["quantize", str(ti2v), "--scheme", "int8", "--out", str(tmp_path / "q")]
    assert main([*words, "--no-compare", "--keep-blocks", "0"]) == 0
    said = capsys.readouterr().out
    assert "transformer.blocks.0.attn1.to_q" in said
    assert "transformer: int8, 40 layers" in said
    with pytest.raises(SystemExit, match="2"):
        main([*words[:3], "int3"])
