"""Wan's own files: written here by a table of their names, read as the same model."""

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.wan.decoder import hash_vae
from colibri.core.wan.family import TINY_TI2V, WAN21_T2V_1_3B, WAN22_TI2V_5B, ModelFamily
from colibri.core.wan.text import word_tokenizer
from safetensors.torch import load_file, save_file

WORDS = "a red circle moves".split()
Weights = dict[str, torch.Tensor]

# ---- the two released forms with few channels ----

TEXT = {**TINY_TI2V.text_encoder, "d_model": 32, "d_ff": 48, "num_heads": 2, "d_kv": 8}
NARROW = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "ffn_dim": 24}
OLD = replace(
    WAN21_T2V_1_3B,
    transformer={**WAN21_T2V_1_3B.transformer, **NARROW, "text_dim": 32, "freq_dim": 16},
    vae={**WAN21_T2V_1_3B.vae, "base_dim": 4},
    text_encoder=TEXT,
)
NEW = replace(
    WAN22_TI2V_5B,
    transformer={**WAN22_TI2V_5B.transformer, **NARROW, "text_dim": 32, "freq_dim": 16},
    vae={**WAN22_TI2V_5B.vae, "base_dim": 4, "decoder_base_dim": 8},
    text_encoder=TEXT,
)

# ---- names from Wan's side: Wan-Video/Wan2.2 wan/modules/{model,vae2_1,vae2_2,t5}.py ----


def _transformer_names(layers: int) -> dict[str, str]:
    """Wan's name of each weight -> diffusers'."""
    names = {
        "patch_embedding": "patch_embedding",
        "text_embedding.0": "condition_embedder.text_embedder.linear_1",
        "text_embedding.2": "condition_embedder.text_embedder.linear_2",
        "time_embedding.0": "condition_embedder.time_embedder.linear_1",
        "time_embedding.2": "condition_embedder.time_embedder.linear_2",
        "time_projection.1": "condition_embedder.time_proj",
        "head.head": "proj_out",
    }
    for i in range(layers):
        for mine, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2")):
            for letter, name in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0")):
                names[f"blocks.{i}.{mine}.{letter}"] = f"blocks.{i}.{theirs}.{name}"
        # Wan calls the norm before cross-attention norm3; diffusers counts in order of use.
        names[f"blocks.{i}.norm3"] = f"blocks.{i}.norm2"
        names[f"blocks.{i}.ffn.0"] = f"blocks.{i}.ffn.net.0.proj"
        names[f"blocks.{i}.ffn.2"] = f"blocks.{i}.ffn.net.2"
    table = {f"{a}.{kind}": f"{b}.{kind}" for a, b in names.items() for kind in ("weight", "bias")}
    for i in range(layers):
        table[f"blocks.{i}.modulation"] = f"blocks.{i}.scale_shift_table"
        for attention, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2")):
            for norm in ("norm_q", "norm_k"):
                table[f"blocks.{i}.{attention}.{norm}.weight"] = (
                    f"blocks.{i}.{theirs}.{norm}.weight"
                )
    return table | {"head.modulation": "scale_shift_table"}


def _residual(mine: str, theirs: str) -> dict[str, str]:
    table = {f"{mine}.residual.{i}.gamma": f"{theirs}.norm{n}.gamma" for i, n in ((0, 1), (3, 2))}
    for kind in ("weight", "bias"):
        for i, n in ((2, 1), (6, 2)):
            table[f"{mine}.residual.{i}.{kind}"] = f"{theirs}.conv{n}.{kind}"
        table[f"{mine}.shortcut.{kind}"] = f"{theirs}.conv_shortcut.{kind}"
    return table


def _resample(mine: str, theirs: str) -> dict[str, str]:
    inner = [
        f"{layer}.{kind}" for layer in ("resample.1", "time_conv") for kind in ("weight", "bias")
    ]
    return {f"{mine}.{name}": f"{theirs}.{name}" for name in inner}


def _vae_names(deep: bool) -> dict[str, str]:
    """More than a VAE has: shortcuts and time convolutions are in some blocks only."""
    table: dict[str, str] = {}
    for kind in ("weight", "bias"):
        table |= {f"conv1.{kind}": f"quant_conv.{kind}", f"conv2.{kind}": f"post_quant_conv.{kind}"}
        for side in ("encoder", "decoder"):
            table[f"{side}.conv1.{kind}"] = f"{side}.conv_in.{kind}"
            table[f"{side}.head.2.{kind}"] = f"{side}.conv_out.{kind}"
            for layer in ("to_qkv", "proj"):
                table[f"{side}.middle.1.{layer}.{kind}"] = (
                    f"{side}.mid_block.attentions.0.{layer}.{kind}"
                )
    for side in ("encoder", "decoder"):
        table[f"{side}.head.0.gamma"] = f"{side}.norm_out.gamma"
        table[f"{side}.middle.1.norm.gamma"] = f"{side}.mid_block.attentions.0.norm.gamma"
        table |= _residual(f"{side}.middle.0", f"{side}.mid_block.resnets.0")
        table |= _residual(f"{side}.middle.2", f"{side}.mid_block.resnets.1")
    down = up = 0
    for stage in range(4):
        for block in range(2):
            if deep:
                mine = f"encoder.downsamples.{stage}.downsamples.{block}"
                theirs = f"encoder.down_blocks.{stage}.resnets.{block}"
            else:
                mine, theirs = f"encoder.downsamples.{down}", f"encoder.down_blocks.{down}"
            table |= _residual(mine, theirs)
            down += 1
        for block in range(3):
            theirs = f"decoder.up_blocks.{stage}.resnets.{block}"
            mine = (
                f"decoder.upsamples.{stage}.upsamples.{block}"
                if deep
                else f"decoder.upsamples.{up}"
            )
            table |= _residual(mine, theirs)
            up += 1
        if stage < 3 and deep:
            table |= _resample(
                f"encoder.downsamples.{stage}.downsamples.2",
                f"encoder.down_blocks.{stage}.downsampler",
            )
            table |= _resample(
                f"decoder.upsamples.{stage}.upsamples.3", f"decoder.up_blocks.{stage}.upsampler"
            )
        elif stage < 3:
            table |= _resample(f"encoder.downsamples.{down}", f"encoder.down_blocks.{down}")
            table |= _resample(f"decoder.upsamples.{up}", f"decoder.up_blocks.{stage}.upsamplers.0")
            down, up = down + 1, up + 1
    return table


def _text_names(layers: int) -> dict[str, str]:
    table = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
    for i in range(layers):
        attention, forward = (f"encoder.block.{i}.layer.{n}" for n in (0, 1))
        for letter in "qkvo":
            table[f"blocks.{i}.attn.{letter}"] = f"{attention}.SelfAttention.{letter}"
        bias = f"{attention}.SelfAttention.relative_attention_bias"
        table[f"blocks.{i}.pos_embedding.embedding"] = bias
        table[f"blocks.{i}.norm1"] = f"{attention}.layer_norm"
        table[f"blocks.{i}.norm2"] = f"{forward}.layer_norm"
        # gate.0 goes through the GELU, fc1 is what it multiplies.
        for mine, theirs in (("gate.0", "wi_0"), ("fc1", "wi_1"), ("fc2", "wo")):
            table[f"blocks.{i}.ffn.{mine}"] = f"{forward}.DenseReluDense.{theirs}"
    return {f"{mine}.weight": f"{theirs}.weight" for mine, theirs in table.items()}


def _as_wan(network: Any, table: dict[str, str]) -> Weights:
    own = network.state_dict()
    named = {mine: own[theirs].contiguous() for mine, theirs in table.items() if theirs in own}
    left = own.keys() - set(table.values()) - {"encoder.embed_tokens.weight"}
    assert not left, sorted(left)[:5]
    return named


# ---- a model of each form and its files ----


def _build(family: ModelFamily) -> wan.WanModel:
    model = wan.build(family, seed=0, tokenizer=word_tokenizer(WORDS))
    for part in wan.WEIGHTS:  # norms and biases that do something
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in getattr(model, part).parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


def _write(model: wan.WanModel, folder: Path, *, shards: bool, deep: bool) -> Path:
    folder.mkdir()
    transformer = _as_wan(model.transformer, _transformer_names(2))
    if shards:
        names = sorted(transformer)
        cut = {1: names[: len(names) // 2], 2: names[len(names) // 2 :]}
        file = "diffusion_pytorch_model-0000{}-of-00002.safetensors"
        for number, part in cut.items():
            save_file({name: transformer[name] for name in part}, folder / file.format(number))
        index = {name: file.format(number) for number, part in cut.items() for name in part}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": index})
        )
    else:
        save_file(transformer, folder / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "WanModel", "model_type": "ti2v" if deep else "t2v", "num_heads": 2}
    (folder / "config.json").write_text(json.dumps(config))
    vae = "Wan2.2_VAE.pth" if deep else "Wan2.1_VAE.pth"
    torch.save(_as_wan(model.vae, _vae_names(deep)), folder / vae)
    text = _as_wan(model.text_encoder, _text_names(2))
    torch.save(text, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    model.tokenizer.save_pretrained(folder / "google" / "umt5-xxl")
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[wan.WanModel, Path]:
    """Wan2.1's layout, one file. Read-only by agreement."""
    model = _build(OLD)
    return model, _write(model, tmp_path_factory.mktemp("a") / "old", shards=False, deep=False)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> tuple[wan.WanModel, Path]:
    """Wan2.2-TI2V's layout, shards. Read-only by agreement."""
    model = _build(NEW)
    return model, _write(model, tmp_path_factory.mktemp("b") / "new", shards=True, deep=True)


@pytest.fixture(params=["old", "new"])
def both(request: pytest.FixtureRequest) -> tuple[wan.WanModel, Path]:
    pair: tuple[wan.WanModel, Path] = request.getfixturevalue(request.param)
    return pair


@pytest.fixture
def copied(old: tuple[wan.WanModel, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(old[1], tmp_path / "model"))


# ---- reading ----


@torch.no_grad()
def _outputs(model: wan.WanModel) -> list[torch.Tensor]:
    # Copies: weights that lie in a mapped file may be aligned otherwise, which rounds otherwise.
    model = replace(model, **{part: copy.deepcopy(getattr(model, part)) for part in wan.WEIGHTS})
    generator = torch.Generator().manual_seed(0)
    channels = model.transformer.config.in_channels
    latents = torch.randn(1, channels, 2, 4, 4, generator=generator)
    ids = torch.tensor([[3, 4, 5, 1, 0, 0]])
    mask = (ids > 0).long()
    text = model.text_encoder(ids, mask).last_hidden_state
    video = model.vae.decode(latents).sample
    return [
        text,
        model.transformer(latents, torch.tensor([500.0]), text, return_dict=False)[0],
        video,
        model.vae.encode(video[:, :, :5]).latent_dist.mode(),
    ]


def test_wans_own_files_are_the_same_model(both: tuple[wan.WanModel, Path]) -> None:
    before, folder = both
    after = wan.load(folder)
    for part in wan.WEIGHTS:
        state, own = getattr(after, part).state_dict(), getattr(before, part).state_dict()
        assert state.keys() == own.keys()
        assert all(torch.equal(state[name], own[name]) for name in own), part
        assert not getattr(after, part).training
    for ours, theirs in zip(_outputs(after), _outputs(before), strict=True):
        assert torch.equal(ours, theirs)
    assert after.tokenizer("a red circle").input_ids == before.tokenizer("a red circle").input_ids


def test_its_family_is_told_from_shapes(both: tuple[wan.WanModel, Path]) -> None:
    model, folder = both
    family, schedule = wan.describe(folder)
    assert schedule is None
    expected = model.family
    assert family.expand_timesteps == expected.expand_timesteps
    assert family.codec == expected.codec
    assert family.defaults == expected.defaults
    for part in ("transformer", "vae", "text_encoder"):
        told, known = getattr(family, part), getattr(expected, part)
        assert {key: told.get(key) for key in known} == dict(known)


def test_the_released_models_are_known_by_name(tmp_path: Path) -> None:
    for known in (WAN21_T2V_1_3B, WAN22_TI2V_5B):
        network = wan.build_meta(known, "transformer")
        own = dict(network.state_dict())
        table = _transformer_names(30)
        header = {
            mine: {"dtype": "F32", "shape": list(own[theirs].shape), "data_offsets": [0, 0]}
            for mine, theirs in table.items()
        }
        text = json.dumps(header).encode()
        file = tmp_path / f"{known.name}_bf16.safetensors"
        file.write_bytes(len(text).to_bytes(8, "little") + text)
        family, _ = wan.describe(file)
        assert (family.name, family.repo) == (known.name, known.repo)
        assert dict(family.transformer) == {**known.transformer}
        assert dict(family.vae) == dict(known.vae)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_precision_is_that_of_a_diffusers_folder(
    old: tuple[wan.WanModel, Path], tmp_path: Path, dtype: wan.DType
) -> None:
    before, folder = old
    wan.save(before, tmp_path / "saved")
    theirs = wan.load(tmp_path / "saved", dtype=dtype, vae_dtype=dtype, parts=wan.WEIGHTS)
    ours = wan.load(folder, dtype=dtype, vae_dtype=dtype, parts=wan.WEIGHTS)
    for part in wan.WEIGHTS:
        one, other = (dict(getattr(model, part).state_dict()) for model in (ours, theirs))
        assert all(one[name].dtype == other[name].dtype for name in other)
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_its_vae_has_the_same_hash_in_either_layout(both: tuple[wan.WanModel, Path]) -> None:
    before, folder = both
    assert wan.load(folder, parts=()).vae_hash == hash_vae(before.vae)


def test_it_is_saved_as_a_diffusers_folder(new: tuple[wan.WanModel, Path], tmp_path: Path) -> None:
    before, folder = new
    student = wan.load(folder, parts=("transformer",))
    wan.save(student, tmp_path / "saved")
    after = wan.load(tmp_path / "saved")
    assert after.vae_hash == student.vae_hash
    for ours, theirs in zip(_outputs(after), _outputs(before), strict=True):
        assert torch.equal(ours, theirs)


def test_the_files_of_a_part_are_named_in_either_layout(
    new: tuple[wan.WanModel, Path], tmp_path: Path
) -> None:
    before, folder = new
    assert [path.name for path in wan.part_files(folder, "transformer")] == [
        f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)
    ]
    assert [path.name for path in wan.part_files(folder, "vae")] == ["Wan2.2_VAE.pth"]
    wan.save(before, tmp_path / "saved")
    assert [path.name for path in wan.part_files(tmp_path / "saved", "vae")] == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]


# ---- single files ----


def test_one_file_brings_what_lies_beside_it(new: tuple[wan.WanModel, Path]) -> None:
    before, folder = new
    model = wan.load(folder / "diffusion_pytorch_model-00002-of-00002.safetensors")
    for ours, theirs in zip(_outputs(model), _outputs(before), strict=True):
        assert torch.equal(ours, theirs)


def test_a_vae_alone_is_loaded_alone(new: tuple[wan.WanModel, Path], tmp_path: Path) -> None:
    before, folder = new
    shutil.copy(folder / "Wan2.2_VAE.pth", tmp_path / "mine.pth")
    model = wan.load(tmp_path / "mine.pth", parts=("vae",))
    assert hash_vae(model.vae) == hash_vae(before.vae) == model.vae_hash
    with pytest.raises(UserError, match=r"mine\.pth comes without a transformer; put diffusion_"):
        wan.load(tmp_path / "mine.pth", parts=("transformer",))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model.", ""])
@pytest.mark.parametrize("form", ["safetensors", "pickle", "checkpoint", "diffusers"])
def test_names_and_wrappings_of_other_programs_are_known(
    old: tuple[wan.WanModel, Path], tmp_path: Path, prefix: str, form: str
) -> None:
    before, folder = old
    weights = _as_wan(before.transformer, _transformer_names(2))
    if form == "diffusers":
        weights = dict(before.transformer.state_dict())
    weights = {prefix + name: weight for name, weight in weights.items()}
    shutil.copy(folder / "config.json", tmp_path)
    file = tmp_path / ("student.safetensors" if form in ("safetensors", "diffusers") else "x.pt")
    if file.suffix == ".safetensors":
        save_file(weights, file)
    else:
        torch.save({"generator_ema": weights, "step": 5} if form == "checkpoint" else weights, file)
    model = wan.load(file, parts=("transformer",))
    own = before.transformer.state_dict()
    state = model.transformer.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in own)


def test_an_older_pickle_is_read_too(old: tuple[wan.WanModel, Path], copied: Path) -> None:
    weights = _as_wan(old[0].vae, _vae_names(deep=False))
    torch.save(weights, copied / "Wan2.1_VAE.pth", _use_new_zipfile_serialization=False)
    assert wan.load(copied, parts=("vae",)).vae_hash == hash_vae(old[0].vae)


def test_a_gguf_file_brings_what_lies_beside_it(
    old: tuple[wan.WanModel, Path], copied: Path
) -> None:
    (weights,) = copied.glob("diffusion_pytorch_model*.safetensors")
    writer = gguf.GGUFWriter(path=None, arch="wan")
    for name, weight in load_file(weights).items():
        writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file(path=str(copied / "wan-F32.gguf"))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    weights.unlink()
    model = wan.load(copied / "wan-F32.gguf")
    for ours, theirs in zip(_outputs(model), _outputs(old[0]), strict=True):
        assert torch.equal(ours, theirs)


# ---- wrong, cut and hostile files ----


class _Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("form", ["plain", "zip"])
def test_code_in_a_pickle_is_not_run(copied: Path, form: str) -> None:
    mark = copied / "ran"
    hostile = {"decoder.middle.0.residual.0.gamma": _Hostile(mark)}
    file = copied / "Wan2.1_VAE.pth"
    if form == "plain":
        file.write_bytes(pickle.dumps(hostile, protocol=2))
    else:
        torch.save(hostile, file)
    pickle.loads(pickle.dumps(hostile))
    assert mark.exists()  # it would have
    mark.unlink()
    for ask in (wan.load, wan.describe):
        with pytest.raises(UserError, match="holds code, which is never run") as caught:
            ask(copied)  # type: ignore[operator]
        assert "\n" not in str(caught.value)
    assert not mark.exists()


def _cut(name: str, keep: float) -> Callable[[Path], object]:
    def cut(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])

    return cut


def _change(**changes: torch.Tensor | None) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "diffusion_pytorch_model.safetensors"
        weights: dict[str, Any] = dict(load_file(file))
        weights |= {name.replace("__", "."): value for name, value in changes.items()}
        save_file({k: v for k, v in weights.items() if v is not None}, file)

    return change


def _two_vaes(folder: Path) -> None:
    shutil.copy(folder / "Wan2.1_VAE.pth", folder / "Wan2.2_VAE.pth")


def _lone_shard(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    for number in (1, 2):
        shutil.copy(file, folder / f"diffusion_pytorch_model-0000{number}-of-00002.safetensors")
    file.unlink()


MODEL, VAE, T5 = (
    "diffusion_pytorch_model.safetensors",
    "Wan2.1_VAE.pth",
    "models_t5_umt5-xxl-enc-bf16.pth",
)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut(MODEL, 0.5), "is cut off .* bytes"),
        (_cut(MODEL, 0.01), "cut off in its header"),
        (_cut(MODEL, 0), "is not a safetensors file"),
        (_cut(VAE, 0.5), "VAE.pth cannot be read as plain tensors"),
        (_cut(VAE, 0), "VAE.pth cannot be read as plain tensors"),
        (_cut(T5, 0.9), "t5.*pth cannot be read as plain tensors"),
        (lambda folder: (folder / VAE).write_text("<html>404"), "cannot be read as plain tensors"),
        (lambda folder: torch.save([1, 2], folder / VAE), "holds a list, not weights"),
        (lambda folder: torch.save({}, folder / VAE), "holds no transformer, VAE or text"),
        (lambda folder: (folder / VAE).unlink(), "comes without a VAE; put Wan2.1_VAE.pth"),
        (lambda folder: (folder / T5).unlink(), "comes without a text encoder; put models_t5"),
        (lambda folder: shutil.rmtree(folder / "google"), "without a tokenizer; put the folder"),
        (lambda folder: (folder / MODEL).unlink(), "comes without a transformer"),
        (
            lambda folder: (folder / "config.json").unlink(),
            r"number of attention heads .*\(width 32\)",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: shutil.copy(folder / VAE, folder / T5), "is a VAE, not a text encoder"),
        (_two_vaes, "2 files that may be its VAE .*name the file instead"),
        (_lone_shard, "2 files that may be its transformer .*index or some shards"),
        (lambda folder: (folder / "high_noise_model").mkdir(), "two transformers"),
        (_change(blocks__1__ffn__0__bias=None), "lacks 1 of its weights, blocks.1.ffn.net.0.proj"),
        (_change(patch_embedding__weight=None), "lacks weights of a Wan transformer"),
        (_change(blocks__0__self_attn__q__scale_weight=torch.ones(1)), "quantised: take the bf16"),
        (_change(vace_blocks__0__x=torch.ones(1)), "1 weights that are not of a Wan text-to-video"),
        (_change(img_emb__proj__0__weight=torch.ones(1)), "image encoder's input"),
        (_change(head__head__bias=torch.ones(3)), r"proj_out.bias of shape \(3,\), expected"),
        (_change(patch_embedding__weight=torch.ones(32, 36, 1, 2, 2)), "takes 36 channels"),
    ],
)
def test_a_wrong_cut_or_foreign_file_gets_one_sentence(
    copied: Path, damage: Callable[[Path], object], says: str
) -> None:
    damage(copied)
    with pytest.raises(UserError, match=says) as caught:
        wan.load(copied)
    assert "\n" not in str(caught.value)


def test_an_index_cannot_name_files_elsewhere(
    new: tuple[wan.WanModel, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(new[1], tmp_path / "model"))
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    for name, says in (
        ("../x.safetensors", "names files outside its folder"),
        ("lost.safetensors", "there is no file .*lost"),
    ):
        index.write_text(json.dumps({"weight_map": {"head.modulation": name}}))
        with pytest.raises(UserError, match=says):
            wan.load(folder)
    index.write_text("[]")
    with pytest.raises(UserError, match="not an index of shards"):
        wan.load(folder)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"ONNX")
    with pytest.raises(UserError, match=r"model\.onnx is no model file; expected \.safetensors"):
        wan.load(tmp_path / "model.onnx")
    save_file({"x.weight": torch.ones(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=r"lora\.safetensors holds no transformer, .*x\.weight"):
        wan.load(tmp_path / "lora.safetensors")
