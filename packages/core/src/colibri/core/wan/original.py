"""Wan's own checkpoint files: find them, tell their family from shapes, read them for diffusers.

A folder as Wan publishes it (transformer in safetensors, one file or shards with an index,
`Wan2.2_VAE.pth`, `models_t5_umt5-xxl-enc-bf16.pth`, `google/umt5-xxl`), or one such file, or a
transformer in GGUF. Pickles are read as plain tensors only: code in them is never run.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from colibri.core.errors import UserError
from colibri.core.latents import check_safetensors
from colibri.core.wan import gguf_file
from colibri.core.wan.family import UMT5_XXL, WAN21_T2V_1_3B, WAN22_TI2V_5B, Defaults, ModelFamily
from colibri.core.wan.model import DType, build_part, kept_in_float32

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Shape = tuple[int, ...]

PICKLES = (".pth", ".pt", ".ckpt", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
INDEX = ".safetensors.index.json"
HUB_FILES = ("config.json", "*.safetensors", f"*{INDEX}", "*VAE*.pth", "models_t5*.pth", "google/*")
"""What `find` looks for, as patterns for a download."""

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "module.")
"""What trainers and ComfyUI put before the names."""
_WRAPPED = re.compile(r"\b(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
"""What FSDP, checkpointing and torch.compile put into the names."""
NESTED = ("generator_ema", "generator", "state_dict", "model")
"""Where training checkpoints keep the weights (Self-Forcing, VideoX-Fun), first match."""
HEAD_DIM = 128
"""Of every released Wan transformer; the weights themselves do not tell it."""

SAYS = {
    "tokenizer": ("tokenizer", "the folder google/umt5-xxl"),
    "text_encoder": ("text encoder", "models_t5_umt5-xxl-enc-bf16.pth"),
    "transformer": ("transformer", "diffusion_pytorch_model.safetensors"),
    "vae": ("VAE", "Wan2.1_VAE.pth or Wan2.2_VAE.pth"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """Wan's own files of one model."""

    path: Path
    """The folder or the file that was named."""
    files: Mapping[str, tuple[Path, ...]]
    """By part; shards of a transformer are several."""
    config: Mapping[str, Any]
    """Wan's `config.json`; empty where there is none."""

    def files_of(self, part: str) -> tuple[Path, ...]:
        """UserError names the file that is missing."""
        if part not in self.files:
            name, file = SAYS[part]
            where = self.path if self.path.is_dir() else self.path.parent
            raise UserError(f"{self.path} comes without a {name}", hint=f"put {file} into {where}")
        return self.files[part]


def is_original(path: Path) -> bool:
    """True for one file, and for a folder of Wan's own files."""
    if path.is_file():
        return True
    if not path.is_dir() or (path / "model_index.json").exists():
        return False
    return any(file.name.endswith((*SUFFIXES, INDEX)) for file in path.iterdir())


def find(path: Path) -> Original:
    """Which file holds what. UserError where files are missing, several, or of another kind."""
    folder = path if path.is_dir() else path.parent
    config = _config(folder / "config.json")
    if path.is_dir():
        return Original(path=path, files=_files(folder), config=config)
    if path.suffix not in (named := (*SUFFIXES, gguf_file.SUFFIX)):
        raise UserError(f"{path} is no model file", hint=f"expected {', '.join(named)}")
    shards = _shards_with(path)
    part = _part_of(path, _names(shards))
    beside = _files(folder, but=part)
    return Original(path=path, files={**beside, part: shards}, config=config)


def describe(found: Original) -> ModelFamily:
    """The family by shapes of weights; a part that is not there is as in the released model."""
    files = found.files
    transformer = _transformer_config(found) if "transformer" in files else None
    vae = _vae_config(files["vae"][0]) if "vae" in files else None
    channels = vae["z_dim"] if vae else transformer["in_channels"] if transformer else None
    known = {16: WAN21_T2V_1_3B, 48: WAN22_TI2V_5B}.get(channels or 0)
    if known is None:
        raise UserError(
            f"{found.path} has {channels} latent channels, Wan2.1 has 16 and Wan2.2-TI2V 48"
            if channels
            else f"{found.path} holds neither a transformer nor a VAE of Wan"
        )
    if transformer and transformer["in_channels"] != channels:
        raise UserError(
            f"{files['transformer'][0]} takes {transformer['in_channels']} channels and "
            f"{files['vae'][0]} makes {channels}: a mismatch, or a model with image conditioning "
            "by channels, which is not supported"
        )
    text = _text_config(files["text_encoder"][0]) if "text_encoder" in files else UMT5_XXL
    if transformer and "text_encoder" in files and transformer["text_dim"] != text["d_model"]:
        raise UserError(
            f"{found.path} has a transformer for text of width {transformer['text_dim']} and a "
            f"text encoder of width {text['d_model']}"
        )
    kind = found.config.get("model_type")
    return ModelFamily(
        name=found.path.name if found.path.is_dir() else found.path.stem,
        expand_timesteps=kind == "ti2v" if kind else known.expand_timesteps,
        transformer=transformer or dict(known.transformer),
        vae=vae or dict(known.vae),
        text_encoder=text,
        defaults=Defaults(),
    )


def load_part(found: Original, family: ModelFamily, part: str, dtype: DType) -> Any:
    """A network with the files' weights, each in the dtype that `from_pretrained` would give it."""
    import torch
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build_part(family, part)
    weights: dict[str, Any] = dict(_stored(found, part))
    if part == "text_encoder":
        weights["encoder.embed_tokens.weight"] = weights["shared.weight"]
    _check_weights(found.files_of(part)[0], network, weights)
    full, narrow = kept_in_float32(network, part, dtype), getattr(torch, dtype)
    for name, weight in weights.items():
        weights[name] = weight.to(torch.float32 if full & set(name.split(".")) else narrow)
    network.load_state_dict(weights, assign=True)
    if part == "text_encoder":
        network.tie_weights()
    return network


def read_part(found: Original, part: str) -> "dict[str, Tensor]":
    """A part's weights on the CPU, in their stored dtype, by diffusers' and transformers' names;
    those of GGUF in float32."""
    import torch

    return {
        name: weight.to(torch.float32) if isinstance(weight, gguf_file.Packed) else weight
        for name, weight in _stored(found, part).items()
    }


# ---- which file is what ----


def _files(folder: Path, but: str | None = None) -> dict[str, tuple[Path, ...]]:
    """Files by part, told by their names; `but` is a part that is known already."""
    files: dict[str, tuple[Path, ...]] = {}
    if (folder / "high_noise_model").is_dir():
        raise UserError(f"{folder} has two transformers, which is not supported")
    named = [file for file in sorted(folder.iterdir()) if file.name.endswith((*SUFFIXES, INDEX))]
    vae = [file for file in named if "vae" in file.name.lower()]
    text = [file for file in named if "t5" in file.name.lower() and file not in vae]
    other = [file for file in named if file not in (*vae, *text) and file.suffix not in PICKLES]
    indexes = [file for file in other if file.name.endswith(INDEX)]
    for part, several in (("vae", vae), ("text_encoder", text), ("transformer", indexes or other)):
        if part == but or not several:
            continue
        if len(several) > 1 and but:
            continue  # one file was asked for: what lies beside it counts where it is clear
        if len(several) > 1:
            names = ", ".join(file.name for file in several[:3])
            raise UserError(
                f"{folder} holds {len(several)} files that may be its {SAYS[part][0]} ({names})",
                hint="an index or some shards are missing"
                if "-of-" in names
                else "keep one there, or name the file instead of the folder",
            )
        shards = _shards_of(several[0]) if several[0].name.endswith(INDEX) else (several[0],)
        if (is_part := _part_of(several[0], _names(shards))) != part:
            if but:
                continue
            raise UserError(f"{several[0]} is a {SAYS[is_part][0]}, not a {SAYS[part][0]}")
        files[part] = shards
    tokenizers = [*sorted(folder.glob("google/*/tokenizer.json")), folder / "tokenizer.json"]
    tokenizers += sorted(folder.glob("google/*/spiece.model"))
    if here := [file for file in tokenizers if file.is_file()]:
        files["tokenizer"] = tuple(
            path for path in sorted(here[0].parent.iterdir()) if path.is_file()
        )
    return files


def _shards_with(file: Path) -> tuple[Path, ...]:
    """All shards of the model that `file` is one of."""
    if not re.search(r"-\d+-of-\d+\.safetensors$", file.name):
        return (file,)
    index = file.with_name(re.sub(r"-\d+-of-\d+\.safetensors$", INDEX, file.name))
    if not index.is_file():
        raise UserError(f"{file} is one of several shards", hint=f"their index {index} is missing")
    return _shards_of(index)


def _shards_of(index: Path) -> tuple[Path, ...]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        shards = tuple(index.parent / name for name in sorted(names))
    except (ValueError, KeyError, AttributeError, TypeError, OSError):
        raise UserError(f"{index} is not an index of shards", hint="get it again") from None
    if any(
        shard.parent != index.parent or shard.name != str(name)
        for shard, name in zip(shards, sorted(names), strict=True)
    ):
        raise UserError(f"{index} names files outside its folder")
    for shard in shards:
        check_safetensors(shard)
    return shards


def _names(files: tuple[Path, ...]) -> dict[str, Shape]:
    """Shapes by name, prefixes taken off; reads no weights."""
    shapes: dict[str, Shape] = {}
    for file in files:
        shapes |= _shapes(file)
    return shapes


def _part_of(file: Path, shapes: Mapping[str, Shape]) -> str:
    """Which part these names are of. UserError for none."""
    if any(name in shapes for name in ("head.modulation", "condition_embedder.time_proj.weight")):
        return "transformer"
    if "decoder.middle.0.residual.0.gamma" in shapes or "decoder.conv_in.weight" in shapes:
        return "vae"
    if "token_embedding.weight" in shapes or "encoder.block.0.layer.0.layer_norm.weight" in shapes:
        return "text_encoder"
    first = f" (its first weight is {next(iter(shapes))})" if shapes else ""
    raise UserError(f"{file} holds no transformer, VAE or text encoder of Wan{first}")


def _config(path: Path) -> dict[str, Any]:
    """Wan's own config; one of another kind counts as none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return config if isinstance(config, dict) and "num_heads" in config else {}


# ---- reading ----


def _stored(found: Original, part: str) -> "dict[str, Tensor | gguf_file.Packed]":
    """Few-bit weights are still in their file: unpacked all at once they may not fit."""
    weights: dict[str, Tensor | gguf_file.Packed] = {}
    for file in found.files_of(part):
        packed = file.suffix == gguf_file.SUFFIX
        weights |= _plain(gguf_file.read_packed(file)) if packed else _tensors(file)
    return _renamed(part, weights)


def _shapes(file: Path) -> dict[str, Shape]:
    if file.suffix == gguf_file.SUFFIX:
        return _plain({name: one.shape for name, one in gguf_file.read_header(file).items()})
    if file.suffix in PICKLES:
        return {name: tuple(weight.shape) for name, weight in _unpickled(file, "meta").items()}
    header = check_safetensors(file)
    return _plain({k: tuple(v["shape"]) for k, v in header.items() if k != "__metadata__"})


def _tensors(file: Path) -> "dict[str, Tensor]":
    if file.suffix in PICKLES:
        return _unpickled(file, "cpu")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_safetensors(file)
    try:
        return _plain(load_file(file))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read: {error}", hint="get it again") from None


def _unpickled(file: Path, device: str) -> "dict[str, Tensor]":
    """Tensors of a pickle, nothing else of it and never its code."""
    import torch

    read = functools.partial(torch.load, file, map_location=device, weights_only=True)
    try:
        try:
            content = read(mmap=True)
        except RuntimeError:  # the older form of pickle, which cannot be mapped
            content = read()
    except Exception:  # torch names no narrower family for a damaged or refused pickle
        raise UserError(
            f"{file} cannot be read as plain tensors: it is damaged, cut off, or holds code, "
            "which is never run",
            hint="get it again, best as safetensors",
        ) from None
    for name in NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not weights by name")
    return _plain({k: v for k, v in content.items() if isinstance(v, torch.Tensor)})


def _plain(named: Mapping[str, T]) -> dict[str, T]:
    """Names without what trainers and other programs put before and into them."""
    named = {_WRAPPED.sub("", name): value for name, value in named.items()}
    for prefix in PREFIXES:
        if any(name.startswith(f"{prefix}patch_embedding.") for name in named):
            return {name.removeprefix(prefix): value for name, value in named.items()}
    return dict(named)


# ---- names ----


def _renamed(part: str, named: Mapping[str, T]) -> dict[str, T]:
    """By diffusers' and transformers' names; those that are so already stay."""
    rename: dict[str, Callable[[Mapping[str, T]], dict[str, T]]] = {
        "transformer": _rename_transformer,
        "vae": _rename_vae,
        "text_encoder": _rename_text,
    }
    return rename[part](named)


def _rename_transformer(named: Mapping[str, T]) -> dict[str, T]:
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    if "head.modulation" not in named:
        return dict(named)
    renamed: dict[str, T] = convert_wan_transformer_to_diffusers(dict(named))
    return renamed


def _rename_vae(named: Mapping[str, T]) -> dict[str, T]:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    if "decoder.middle.0.residual.0.gamma" not in named:
        return dict(named)
    renamed: dict[str, T] = {}
    for name, value in named.items():
        # diffusers 0.42 knows the flat blocks of Wan2.1 only; those of Wan2.2 lie one level deeper.
        if deep := re.fullmatch(_DEEP, name):
            renamed[_rename_deep(*deep.groups())] = value
        else:
            renamed |= convert_wan_vae_to_diffusers({name: value})
    return renamed


_DEEP = r"(encoder|decoder)\.(down|up)samples\.(\d+)\.(?:down|up)samples\.(.+)"
_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}


def _rename_deep(side: str, way: str, stage: str, rest: str) -> str:
    """`rest` is `2.residual.0.gamma`, `2.resample.1.weight` or `2.time_conv.bias`."""
    layer, inner = rest.split(".", 1)
    for theirs, ours in _RESIDUAL.items():
        if inner.startswith(theirs + "."):
            inner = f"resnets.{layer}.{ours}.{inner.removeprefix(theirs + '.')}"
            break
    else:
        inner = f"{way}sampler.{inner}"
    return f"{side}.{way}_blocks.{stage}.{inner}"


_TEXT = {
    "attn": "layer.0.SelfAttention",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm1": "layer.0.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
    "norm2": "layer.1.layer_norm",
}
"""Wan-Video/Wan2.2 wan/modules/t5.py@0610493 to transformers' UMT5."""


def _rename_text(named: Mapping[str, T]) -> dict[str, T]:
    renamed = {}
    for name, value in named.items():
        if name == "token_embedding.weight":
            name = "shared.weight"
        elif name == "norm.weight":
            name = "encoder.final_layer_norm.weight"
        elif inside := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
            block, rest = inside.groups()
            for theirs, ours in _TEXT.items():
                if rest.startswith(theirs + "."):
                    rest = ours + rest.removeprefix(theirs)
                    break
            name = f"encoder.block.{block}.{rest}"
        elif not name.startswith(("shared.", "encoder.")):
            continue  # ComfyUI puts the tokenizer into the file
        renamed[name] = value
    return renamed


# ---- configs from shapes ----


def _transformer_config(found: Original) -> dict[str, Any]:
    files = found.files["transformer"]
    shapes = _renamed("transformer", _names(files))
    try:
        width, channels, *patch = shapes["patch_embedding.weight"]
        config = {
            "patch_size": tuple(patch),
            "in_channels": channels,
            "out_channels": shapes["proj_out.weight"][0] // math.prod(patch),
            "num_layers": _count(shapes, r"blocks\.(\d+)\."),
            "text_dim": shapes["condition_embedder.text_embedder.linear_1.weight"][1],
            "freq_dim": shapes["condition_embedder.time_embedder.linear_1.weight"][1],
            "ffn_dim": shapes["blocks.0.ffn.net.0.proj.weight"][0],
            "cross_attn_norm": "blocks.0.norm2.weight" in shapes,
            "qk_norm": "rms_norm_across_heads",
            "eps": float(found.config.get("eps", 1e-6)),
        }
    except (KeyError, ValueError, TypeError, IndexError):
        raise UserError(f"{files[0]} lacks weights of a Wan transformer") from None
    if any(name.startswith("condition_embedder.image_embedder.") for name in shapes):
        raise UserError(f"{files[0]} has an image encoder's input, which is not supported")
    heads = found.config.get("num_heads", width / HEAD_DIM)
    heads = int(heads) if isinstance(heads, int | float) and heads == int(heads) else 0
    if heads < 1 or width % heads:
        raise UserError(
            f"the number of attention heads in {files[0]} (width {width}) is not known",
            hint=f"put Wan's config.json with num_heads into {files[0].parent}",
        )
    return config | {"num_attention_heads": heads, "attention_head_dim": width // heads}


def _vae_config(file: Path) -> dict[str, Any]:
    own = _shapes(file)
    shapes = _renamed("vae", own)
    try:
        base, pixels = shapes["encoder.conv_in.weight"][:2]
        channels = shapes["post_quant_conv.weight"][0]
        residual = "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes
        stages = _residual_stages(shapes) if residual else _flat_stages(shapes)
        patch = math.isqrt(pixels // 3)
        config = {
            "base_dim": base,
            "z_dim": channels,
            "dim_mult": tuple(width // base for width, _, _ in stages),
            "num_res_blocks": stages[0][1],
            "attn_scales": (),
            "temperal_downsample": tuple(time for _, _, time in stages[:-1]),
            "scale_factor_temporal": 2 ** sum(time for _, _, time in stages),
            "scale_factor_spatial": 2 ** (len(stages) - 1) * patch,
        }
        last = shapes["decoder.conv_out.weight"]
    except (KeyError, ValueError, IndexError):
        raise UserError(f"{file} lacks weights of a Wan VAE") from None
    if patch > 1:
        config |= {"in_channels": pixels, "out_channels": last[0], "patch_size": patch}
    if residual:
        config |= {"is_residual": True, "decoder_base_dim": last[1]}
    for known in (WAN21_T2V_1_3B, WAN22_TI2V_5B):
        if known.vae["z_dim"] == channels:
            return config | {key: known.vae[key] for key in ("latents_mean", "latents_std")}
    raise UserError(f"{file} has {channels} latent channels, Wan2.1 has 16 and Wan2.2-TI2V 48")


def _residual_stages(shapes: Mapping[str, Shape]) -> list[tuple[int, int, bool]]:
    """(width, residual blocks, whether time is halved) of each stage of a Wan2.2 encoder."""
    return [
        (
            shapes[f"encoder.down_blocks.{stage}.resnets.0.conv1.weight"][0],
            _count(shapes, rf"encoder\.down_blocks\.{stage}\.resnets\.(\d+)\."),
            f"encoder.down_blocks.{stage}.downsampler.time_conv.weight" in shapes,
        )
        for stage in range(_count(shapes, r"encoder\.down_blocks\.(\d+)\."))
    ]


def _flat_stages(shapes: Mapping[str, Shape]) -> list[tuple[int, int, bool]]:
    """The same of a Wan2.1 encoder, whose stages end with a layer that halves."""
    stages, blocks, width = [], 0, 0
    for layer in range(_count(shapes, r"encoder\.down_blocks\.(\d+)\.")):
        conv = shapes.get(f"encoder.down_blocks.{layer}.conv1.weight")
        if conv:
            blocks, width = blocks + 1, conv[0]
        else:
            time = f"encoder.down_blocks.{layer}.time_conv.weight" in shapes
            stages.append((width, blocks, time))
            blocks = 0
    return [*stages, (width, blocks, False)]


def _text_config(file: Path) -> dict[str, Any]:
    shapes = _renamed("text_encoder", _shapes(file))
    attention = "encoder.block.0.layer.0.SelfAttention"
    try:
        words, width = shapes["shared.weight"]
        buckets, heads = shapes[f"{attention}.relative_attention_bias.weight"]
        return UMT5_XXL | {
            "vocab_size": words,
            "d_model": width,
            "d_kv": shapes[f"{attention}.q.weight"][0] // heads,
            "d_ff": shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
            "num_layers": _count(shapes, r"encoder\.block\.(\d+)\."),
            "num_heads": heads,
            "relative_attention_num_buckets": buckets,
        }
    except (KeyError, ValueError):
        raise UserError(f"{file} lacks weights of a UMT5 encoder") from None


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """One more than the highest number that `pattern` finds."""
    return 1 + max(int(found[1]) for name in shapes if (found := re.match(pattern, name)))


def _check_weights(file: Path, network: Any, weights: "Mapping[str, Tensor]") -> None:
    own = network.state_dict()
    if missing := sorted(own.keys() - weights.keys()):
        raise UserError(
            f"{file} lacks {len(missing)} of its weights, {missing[0]} among them",
            hint="is its download complete?",
        )
    if extra := sorted(weights.keys() - own.keys()):
        quantised = any("scale" in name.rsplit(".", 1)[-1] for name in extra if "table" not in name)
        raise UserError(
            f"{file} has {len(extra)} weights that are not of a Wan text-to-video model, "
            f"{extra[0]} among them",
            hint="it is quantised: take the bf16 or fp16 file" if quantised else None,
        )
    for name, weight in weights.items():
        if weight.shape != own[name].shape:
            raise UserError(
                f"{file} has {name} of shape {tuple(weight.shape)}, expected "
                f"{tuple(own[name].shape)}"
            )
