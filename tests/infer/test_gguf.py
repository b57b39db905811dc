"""GGUF files of Wan transformers: equal to their unpacked weights; bad files in one sentence."""

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.wan import gguf_file
from colibri.infer.cli import main
from colibri.infer.config import ConvertConfig
from colibri.infer.convert import convert
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from gguf import GGMLQuantizationType as Kind
from wan_names import Weights, as_wan


def write_gguf(
    file: Path, weights: Weights, kind: Kind = Kind.Q8_0, *, arch: str = "wan"
) -> Weights:
    """As city96's tools do: matrices of the blocks in few bits, the others in F32. The weights that
    the file holds, unpacked by the package that wrote it."""
    writer = gguf.GGUFWriter(path=None, arch=arch)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    held: Weights = {}
    for name, weight in weights.items():
        own = kind if name.startswith("blocks.") and weight.ndim == 2 else Kind.F32
        packed = gguf.quants.quantize(weight.float().numpy(), own)
        writer.add_tensor(name, packed, raw_dtype=own)
        held[name] = torch.from_numpy(np.array(gguf.quants.dequantize(packed, own)))
    writer.write_header_to_file(path=str(file))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


@pytest.fixture(scope="module")
def weights(t2v: Path) -> Weights:
    network: Any = wan.load(t2v, parts=("transformer",)).transformer
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return as_wan(network)


@pytest.fixture
def file(weights: Weights, tmp_path: Path) -> Path:
    write_gguf(tmp_path / "wan.gguf", weights)
    return tmp_path / "wan.gguf"


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q5_1, Kind.Q4_0, Kind.BF16, Kind.F16])
def test_a_file_becomes_a_model_of_exactly_its_weights(
    kind: Kind, weights: Weights, t2v: Path, tmp_path: Path
) -> None:
    held = write_gguf(tmp_path / "wan.gguf", weights, kind)
    flags = ["--base", str(t2v), "--out", str(tmp_path / "out"), "--dtype", "float32"]
    assert main(["convert", str(tmp_path / "wan.gguf"), *flags, "--timesteps", "1000,500"]) == 0
    after = wan.load(tmp_path / "out")
    found = as_wan(after.transformer)
    assert found.keys() == held.keys()
    assert all(torch.equal(found[name], held[name]) for name in held)
    assert not torch.equal(found["blocks.0.ffn.0.weight"], weights["blocks.0.ffn.0.weight"])
    assert after.schedule is not None
    assert after.schedule.steps == 2


def test_narrower_weights_are_rounded_once(file: Path, t2v: Path, tmp_path: Path) -> None:
    made = convert(file, ConvertConfig(out=tmp_path / "out", base=str(t2v)), say=lambda _: None)
    after = wan.load(made.folder, parts=("transformer",), dtype="bfloat16").transformer
    own = gguf_file.read_packed(file)["blocks.1.self_attn.q.weight"].to(torch.float32)
    assert torch.equal(after.blocks[1].attn1.to_q.weight, own.bfloat16())
    assert after.scale_shift_table.dtype == torch.float32  # as in every model folder


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K])
def test_k_quants_are_what_diffusers_makes_of_them(kind: Kind, tmp_path: Path) -> None:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    bits = np.random.default_rng(0).integers(0, 256, (6, 2 * block_bytes), dtype=np.uint8)
    high = bits.reshape(-1, block_bytes)
    for at in {Kind.Q2_K: (-3, -1), Kind.Q3_K: (-1,), Kind.Q6_K: (-1,)}.get(kind, (1, 3)):
        high[:, at] &= 0x3B  # scales in half precision that are no NaN
    writer = gguf.GGUFWriter(path=None, arch="wan")
    writer.add_tensor("blocks.0.ffn.0.weight", bits, raw_dtype=kind)
    writer.write_header_to_file(path=str(tmp_path / "k.gguf"))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    packed = gguf_file.read_packed(tmp_path / "k.gguf")["blocks.0.ffn.0.weight"]
    assert packed.shape == (6, 2 * block)
    theirs = dequantize_gguf_tensor(GGUFParameter(torch.from_numpy(bits), quant_type=kind))
    assert torch.isfinite(theirs).all()
    assert torch.allclose(packed.to(torch.float32), theirs.float(), rtol=2e-3, atol=1e-2)


def test_shapes_that_were_laid_out_anew_are_the_old_ones(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(path=None, arch="wan")
    writer.add_array("comfy.gguf.orig_shape.patch_embedding.weight", [8, 4, 1, 2, 2])
    writer.add_tensor("patch_embedding.weight", np.arange(128, dtype=np.float32).reshape(4, 32))
    writer.add_tensor("blocks.0.modulation", np.zeros((6, 8), np.float32))
    writer.write_header_to_file(path=str(tmp_path / "x.gguf"))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = gguf_file.read_packed(tmp_path / "x.gguf")
    patch = found["patch_embedding.weight"].to(torch.float32)
    assert torch.equal(patch, torch.arange(128.0).reshape(8, 4, 1, 2, 2))
    assert found["blocks.0.modulation"].shape == (1, 6, 8)


# ---- bad files ----


def test_another_architecture_is_named(weights: Weights, t2v: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", weights, arch="flux")
    with pytest.raises(UserError, match=r"x\.gguf is of the architecture 'flux', not 'wan'"):
        convert(tmp_path / "x.gguf", ConvertConfig(out=tmp_path / "out", base=str(t2v)))


def test_a_file_cut_anywhere_is_one_sentence(
    file: Path, t2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = file.read_bytes()
    flags = ["--base", str(t2v), "--out", str(tmp_path / "out")]
    cut = tmp_path / "cut.gguf"
    for length in (0, 3, 10, 30, 90, 1000, len(whole) // 2, len(whole) - 40):
        cut.write_bytes(whole[:length])
        assert main(["convert", str(cut), *flags]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {cut} ")
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_header_with_flipped_bits_is_read_or_refused_but_never_believed(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    header = min(one.offset for one in gguf_file.read_header(file).values())
    generator = np.random.default_rng(0)
    for at in generator.integers(0, header, 150):
        changed = bytearray(whole)
        changed[at] ^= int(generator.integers(1, 256))
        file.write_bytes(changed)
        try:
            found = gguf_file.read_packed(file)
        except UserError:
            continue
        assert all(one.offset < len(whole) for one in found.values())


def test_a_length_beyond_the_file_ends_at_once(tmp_path: Path) -> None:
    name = b"general.tags"
    head = b"GGUF" + np.array([3], "<u4").tobytes() + np.array([0, 1], "<u8").tobytes()
    value = np.array([9, 0], "<u4").tobytes() + np.array([2**60], "<u8").tobytes()
    file = tmp_path / "long.gguf"
    file.write_bytes(head + np.array([len(name)], "<u8").tobytes() + name + value)
    with pytest.raises(UserError, match="it ends within its header"):
        gguf_file.read_header(file)


def test_without_the_package_its_extra_is_named(
    file: Path, t2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"need the gguf package; pip .*colibri-infer\[quant\]"):
        convert(file, ConvertConfig(out=tmp_path / "out", base=str(t2v)))
