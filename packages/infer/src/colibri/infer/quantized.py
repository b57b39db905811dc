"""Linear layers whose weights have few bits: pack, unpack, multiply, and load. Plain PyTorch.

int8: a scale a row. int8-dynamic: the same weights, and activations rounded to int8 by token, so
that the product is one of integers. fp8: e4m3 with a scale a row. int4: two codes in a byte, a
scale and a lowest value for each group of 64 columns. `quantize` makes the folders that this reads.
"""

# O out features  I in features  G groups of columns  N rows of activations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from colibri.core import wan
from colibri.core.config import from_table
from colibri.core.errors import UserError
from colibri.core.latents import check_safetensors
from colibri.core.wan.family import ModelFamily
from colibri.core.wan.model import kept_in_float32, network_class
from colibri.infer.config import Scheme
from colibri.infer.hashes import hash_kept

SCHEMES: tuple[Scheme, ...] = ("int8", "int8-dynamic", "fp8", "int4")

ABOUT = "quantized.json"
FORMAT = "colibri-quantized/1"
GROUP = 64
"""Columns that share a scale in int4: 4 + 32 / 64 = 4.5 bits a weight in all."""
ROWS = 4096
"""Rows of activations that int8-dynamic multiplies at once, which bounds its int32 sums."""

_INT8_MOST, _FP8_MOST, _INT4_STEPS = 127, 448.0, 15


@dataclass(frozen=True, kw_only=True, slots=True)
class FileUse:
    """A weight file of a quantised part."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What `quantized.json` of a part says."""

    format: str
    scheme: Scheme
    layers: tuple[str, ...]
    """Names of the quantised linear layers; every other weight is as it was."""
    files: dict[str, Any]
    """`FileUse` by file name."""
    source: str
    """SHA-256 over the source's files of this part."""


# ---- pack and unpack ----


def pack(weight_OI: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """Codes and scales of a weight (O, I). Any finite floating dtype; computed in float32.

    int8: codes int8 (O, I), scale float32 (O, 1). fp8: codes e4m3 (O, I), scale likewise. int4:
    codes uint8 (O, I / 2 rounded up to whole groups), scale and low bfloat16 (O, G). ValueError for
    a weight that is not a matrix, or holds infinities or NaN.
    """
    if weight_OI.ndim != 2 or not weight_OI.numel():
        raise ValueError(f"a weight of the shape {tuple(weight_OI.shape)} is not a matrix")
    weight = weight_OI.detach().float()
    if not torch.isfinite(weight).all():
        raise ValueError("a weight holds infinities or NaN")
    if scheme == "int4":
        return _pack_int4(weight)
    most = _FP8_MOST if scheme == "fp8" else _INT8_MOST
    scale = weight.abs().amax(dim=1, keepdim=True) / most
    scale = torch.where(scale > 0, scale, 1.0)
    if scheme == "fp8":
        codes = (weight / scale).clamp(-most, most).to(torch.float8_e4m3fn)
    else:
        codes = (weight / scale).round().clamp(-most, most).to(torch.int8)
    return {"codes": codes, "scale": scale}


def unpack(packed: Mapping[str, Tensor], scheme: Scheme, columns: int) -> Tensor:
    """The weight (O, `columns`) in float32."""
    if scheme != "int4":
        return packed["codes"].float().mul_(packed["scale"])
    codes, scale, low = packed["codes"], packed["scale"].float(), packed["low"].float()
    pairs = torch.stack([codes & 15, codes >> 4], dim=-1)
    grouped = pairs.view(codes.shape[0], -1, GROUP).float()
    weight = grouped.mul_(scale[..., None]).add_(low[..., None])
    return weight.view(codes.shape[0], -1)[:, :columns]


def packed_like(rows: int, columns: int, scheme: Scheme, device: str = "meta") -> dict[str, Tensor]:
    """Empty tensors of the forms that `pack` gives for a weight (rows, columns)."""
    if scheme == "int4":
        groups = -(-columns // GROUP)
        return {
            "codes": torch.empty((rows, groups * GROUP // 2), dtype=torch.uint8, device=device),
            "scale": torch.empty((rows, groups), dtype=torch.bfloat16, device=device),
            "low": torch.empty((rows, groups), dtype=torch.bfloat16, device=device),
        }
    kind = torch.float8_e4m3fn if scheme == "fp8" else torch.int8
    return {
        "codes": torch.empty((rows, columns), dtype=kind, device=device),
        "scale": torch.empty((rows, 1), dtype=torch.float32, device=device),
    }


def _pack_int4(weight: Tensor) -> dict[str, Tensor]:
    rows, columns = weight.shape
    if rest := -columns % GROUP:  # more of the last column: it widens no group's range
        weight = torch.cat([weight, weight[:, -1:].expand(rows, rest)], dim=1)
    grouped = weight.view(rows, -1, GROUP)
    # Rounded first, so that the codes are the best ones for what is stored.
    low = grouped.amin(dim=2).bfloat16()
    scale = ((grouped.amax(dim=2) - low.float()) / _INT4_STEPS).bfloat16()
    scale = torch.where(scale > 0, scale, 1.0)
    steps = (grouped - low.float()[..., None]) / scale.float()[..., None]
    codes = steps.round().clamp(0, _INT4_STEPS).to(torch.uint8).view(rows, -1)
    return {"codes": codes[:, 0::2] | codes[:, 1::2] << 4, "scale": scale, "low": low}


# ---- the layer ----


class QuantizedLinear(nn.Module):
    """A linear layer (.., I) -> (.., O) on packed weights; it computes in its input's dtype."""

    codes: Tensor
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(
        self, in_features: int, out_features: int, scheme: Scheme, *, bias: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.scheme = in_features, out_features, scheme
        self.dtype = dtype
        for name, empty in packed_like(out_features, in_features, scheme).items():
            self.register_buffer(name, empty)
        self.bias = nn.Parameter(torch.empty(out_features, dtype=dtype), False) if bias else None

    @property
    def weight(self) -> Tensor:
        """Shape and dtype of the weight that it stands for, without values (on no device).

        UMT5 reads the dtype here.
        """
        return torch.empty((self.out_features, self.in_features), dtype=self.dtype, device="meta")

    def unpacked(self) -> Tensor:
        """The weight (O, I) in float32."""
        return unpack(dict(self.named_buffers(recurse=False)), self.scheme, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        if self.scheme == "int8-dynamic":
            return int8_linear(x, self.codes, self.scale, self.bias)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, self.unpacked().to(x.dtype), bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.scheme}"


def int8_linear(
    x: Tensor,
    codes_OI: Tensor,
    scale_O1: Tensor,
    bias_O: Tensor | None,
    *,
    integers: bool | None = None,
) -> Tensor:
    """x (.., I) rounded to int8 with a scale a row, times codes (O, I): (.., O) in x's dtype.

    `integers` takes `torch._int_mm` or not; None: where the device has it. Without it the same
    integers are multiplied in float32.
    """
    flat_NI = x.reshape(-1, x.shape[-1])
    out_NO = flat_NI.new_empty((flat_NI.shape[0], codes_OI.shape[0]))
    if integers is None:
        integers = has_int_mm(flat_NI.device.type) and all(not size % 8 for size in codes_OI.shape)
    codes_IO = codes_OI.t() if integers else codes_OI.t().float()
    for start in range(0, flat_NI.shape[0], ROWS):
        rows = flat_NI[start : start + ROWS].float()
        scale_N1 = rows.abs().amax(dim=1, keepdim=True) / _INT8_MOST
        scale_N1 = torch.where(scale_N1 > 0, scale_N1, 1.0)
        rounded = (rows / scale_N1).round_()
        product = _int_mm(rounded.to(torch.int8), codes_IO) if integers else rounded @ codes_IO
        result = product.float().mul_(scale_N1).mul_(scale_O1[:, 0])
        out_NO[start : start + ROWS] = result if bias_O is None else result.add_(bias_O)
    return out_NO.view(*x.shape[:-1], codes_OI.shape[0])


@functools.cache
def has_int_mm(device_type: str) -> bool:
    """True where the device multiplies int8 matrices into int32 and gets it right."""
    ones = torch.ones((32, 32), dtype=torch.int8, device=device_type)
    try:
        return bool((torch._int_mm(ones, ones) == 32).all())
    except (RuntimeError, NotImplementedError, AttributeError):
        return False


def _int_mm(rows_NI: Tensor, codes_IO: Tensor) -> Tensor:
    count = rows_NI.shape[0]
    if count <= 16:  # CUDA's wants more than 16
        rows_NI = nn.functional.pad(rows_NI, (0, 0, 0, 17 - count))
    return torch._int_mm(rows_NI, codes_IO)[:count]


# ---- folders ----


def is_quantized(folder: Path) -> bool:
    """True for the folder of a part (`transformer`, `text_encoder`) that `infer quantize` wrote."""
    return (folder / ABOUT).is_file()


def scheme_of(folder: Path) -> str | None:
    """What a model folder's weights are: `int8` and so on, None where nothing is quantised."""
    found = {about.scheme for about in about_of(folder).values()}
    return "+".join(sorted(found)) or None


def about_of(folder: Path) -> dict[str, "About"]:
    """What is said of each quantised part of a model folder."""
    return {part: read_about(folder / part) for part in PARTS if is_quantized(folder / part)}


PARTS = ("text_encoder", "transformer")
"""What can be quantised."""


def read_about(folder: Path) -> About:
    """`quantized.json` of a part. UserError in one sentence where it is damaged."""
    path = folder / ABOUT
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path} cannot be read", hint="quantise the model again") from None
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise UserError(
            f"{path} is not of the form {FORMAT!r}", hint="update colibri, or quantise again"
        )
    return from_table(About, table, where=str(path))


def build(family: ModelFamily, part: str, dtype: str, about: About | None) -> Any:
    """The network of a part, weights on the meta device, the layers of `about` quantised ones."""
    from accelerate import init_empty_weights

    config = {"transformer": family.transformer, "text_encoder": family.text_encoder}[part]
    with init_empty_weights(include_buffers=False):  # what is computed, as rotary tables, stays
        if part == "text_encoder":
            from transformers import UMT5Config

            network = network_class(part)(UMT5Config(**config))
        else:
            network = network_class(part).from_config(json.loads(json.dumps(dict(config))))
    kind = getattr(torch, dtype)
    full = kept_in_float32(network, part, cast(Any, dtype))
    for name, parameter in list(network.named_parameters()):
        wanted = torch.float32 if full & set(name.split(".")) else kind
        owner, leaf = _owner(network, name)
        owner._parameters[leaf] = nn.Parameter(parameter.to(wanted), requires_grad=False)
    for name in about.layers if about else ():
        _replace(network, name, about.scheme if about else "int8")
    return network.eval()


def load_part(
    folder: Path, family: ModelFamily, part: str, *, dtype: str, device: str = "cpu"
) -> Any:
    """A quantised part on the device, in eval mode; what is not quantised is in `dtype`.

    UserError in one sentence that names the file: missing, cut, changed, or of another model.
    """
    from safetensors import safe_open

    about = read_about(folder)
    try:
        network = build(family, part, dtype, about)
    except AttributeError as error:
        raise UserError(
            f"{folder / ABOUT} names a layer that config.json does not have: {error}"
        ) from None
    missing = {**dict(network.named_parameters()), **_saved_buffers(network)}
    for name, table in sorted(about.files.items()):
        path = folder / name
        _check_file(path, from_table(FileUse, table, where=str(folder / ABOUT)))
        with safe_open(path, framework="pt", device=device) as tensors:
            for key in tensors.keys():  # noqa: SIM118 (a handle, not a dict)
                place = missing.pop(key, None)
                tensor = tensors.get_tensor(key)
                if place is None or place.shape != tensor.shape:
                    raise UserError(
                        f"{path} does not fit {folder / 'config.json'}: {key} of the shape "
                        f"{tuple(tensor.shape)}",
                        hint="quantise the model again",
                    )
                _put(network, key, tensor.to(place.dtype))
    if part == "text_encoder":
        network.tie_weights()
        for tied in ("shared.weight", "encoder.embed_tokens.weight"):
            missing.pop(tied, None)
        embedding = network.get_input_embeddings().weight
        if embedding.device.type == "meta":
            missing["shared.weight"] = embedding
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of its weights, {min(missing)} among them",
            hint="quantise the model again",
        )
    return network.to(device)


def _check_file(path: Path, use: FileUse) -> None:
    check_safetensors(path)
    if hash_kept(path) != use.sha256:
        raise UserError(
            f"{path} has changed since it was written: its hash is not the one in {ABOUT}",
            hint="copy it again, or quantise the model again",
        )


def _replace(network: nn.Module, name: str, scheme: Scheme) -> None:
    layer = network.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise AttributeError(f"{name} is no linear layer")
    owner, leaf = _owner(network, name)
    with torch.device("meta"):
        quantized = QuantizedLinear(
            layer.in_features,
            layer.out_features,
            scheme,
            bias=layer.bias is not None,
            dtype=layer.weight.dtype,
        )
    setattr(owner, leaf, quantized)


def _saved_buffers(network: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": buffer
        for name, layer in network.named_modules()
        if isinstance(layer, QuantizedLinear)
        for key, buffer in layer.named_buffers(recurse=False)
    }


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    owner, leaf = _owner(network, name)
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    else:
        owner._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)


def _owner(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return network.get_submodule(path), leaf


def load(
    folder: Path,
    parts: tuple[str, ...],
    plain: Callable[[tuple[str, ...]], wan.WanModel],
    *,
    dtype: str,
    device: str,
) -> wan.WanModel:
    """Some parts of a model: quantised ones from here, the others by `plain`."""
    ours = tuple(part for part in parts if part in PARTS and is_quantized(folder / part))
    model = plain(tuple(part for part in parts if part not in ours))
    for part in ours:
        network = load_part(folder / part, model.family, part, dtype=dtype, device=device)
        setattr(model, part, network)
    return model
