"""GGUF files of Wan transformers, as city96 and QuantStack publish them: names, shapes, weights.

The header is read here, every length held against the file; what its blocks of bits mean is left to
the gguf package.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colibri.core.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"} | {
    12: "d"
}
"""Types of metadata values (ggml-org/ggml docs/gguf.md); the two others are below."""
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 8
_SHAPE = "comfy.gguf.orig_shape."
"""Where the shape is that a tensor had before it was laid out anew (city96/ComfyUI-GGUF loader.py@
001ffcf)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """A weight in its file, of few bits; `to` makes a tensor of it."""

    file: Path
    shape: tuple[int, ...]
    kind: int
    """Of GGML's types."""
    offset: int
    """Of its first byte in the file."""

    def to(self, dtype: "torch.dtype") -> "Tensor":
        """The weight unpacked in float32, then rounded to `dtype`."""
        import numpy as np
        import torch

        gguf = _package()
        row_bytes = _row_bytes(gguf, self)
        rows = math.prod(self.shape) // self.shape[-1] if self.shape else 1
        packed = np.memmap(self.file, np.uint8, "r", self.offset, (rows, row_bytes))
        try:
            weights = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType(self.kind))
        except NotImplementedError:
            raise _unknown(self.file, gguf.GGMLQuantizationType(self.kind).name) from None
        return torch.from_numpy(np.array(weights)).reshape(self.shape).to(dtype)


def read_header(file: Path) -> dict[str, Packed]:
    """Every tensor by its name; reads no weights.

    UserError in one sentence for a file that is no GGUF file, is damaged, or of another model.
    """
    try:
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as m:
            metadata, tensors, data = _Cursor(m).header()
    except FileNotFoundError:
        raise UserError(f"there is no {file}") from None
    except (_Damaged, OSError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read as GGUF: {error or 'it is damaged'}", hint="get it again"
        ) from None
    architecture = metadata.get("general.architecture", "wan")
    if architecture != "wan":
        raise UserError(
            f"{file} is of the architecture {architecture!r}, not 'wan'",
            hint="only transformers of Wan are read as GGUF",
        )
    found = {}
    for name, (shape, kind, offset) in tensors.items():
        whole = metadata.get(_SHAPE + name, shape)
        sizes = isinstance(whole, tuple) and all(isinstance(one, int) and one > 0 for one in whole)
        if not sizes or math.prod(whole) != math.prod(shape):
            raise UserError(f"{file} tells two sizes of {name}", hint="get it again")
        if name.endswith("modulation") and len(whole) == 2:
            whole = (1, *whole)  # llama.cpp's quantiser drops leading ones: ggml_n_dims
        found[name] = Packed(file=file, shape=tuple(whole), kind=kind, offset=data + offset)
    return found


def read_packed(file: Path) -> dict[str, Packed]:
    """`read_header`, and every weight is known to be whole and of a known type."""
    gguf = _package()
    found, size = read_header(file), file.stat().st_size
    for name, packed in found.items():
        rows = math.prod(packed.shape) // packed.shape[-1] if packed.shape else 1
        if packed.offset + rows * _row_bytes(gguf, packed) > size:
            raise UserError(f"{file} ends before {name} does", hint="is its download complete?")
    return found


class _Damaged(Exception):
    """What the header says cannot be."""


class _Cursor:
    """Reads a header from its first byte on. Little-endian, as all published files are."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0

    def header(
        self,
    ) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], int, int]], int]:
        """Metadata; shape, type and offset of each tensor; where the weights begin."""
        if self._bytes(4) != _MAGIC:
            raise _Damaged("it does not begin as one")
        if (version := self._number("I")) not in _VERSIONS:
            raise _Damaged(f"its version {version} is not known")
        num_tensors, num_values = self._number("Q"), self._number("Q")
        metadata = {}
        for _ in range(num_values):
            name = self._text()
            metadata[name] = self._value(self._number("I"))
        tensors = {}
        for _ in range(num_tensors):
            name, dimensions = self._text(), self._number("I")
            if dimensions > _MOST_DIMENSIONS or name in tensors:
                raise _Damaged(f"{name} cannot be as it says")
            shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
            if 0 in shape:
                raise _Damaged(f"{name} is empty")
            tensors[name] = (shape, self._number("I"), self._number("Q"))
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise _Damaged(f"its alignment is {alignment}")
        return metadata, tensors, -(-self._at // alignment) * alignment

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            return self._number(self._format(kind))
        inner, length = self._number("I"), self._number("Q")
        if inner == _STRING:
            return tuple(self._text() for _ in range(length))
        one = self._format(inner)
        raw = self._bytes(struct.calcsize(f"<{one}") * length)
        return struct.unpack(f"<{length}{one}", raw)

    def _format(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _Damaged(f"it holds a value of the unknown type {kind}")
        return _SCALARS[kind]

    def _text(self) -> str:
        return self._bytes(self._number("Q")).decode("utf-8")

    def _number(self, one: str) -> Any:
        return struct.unpack(f"<{one}", self._bytes(struct.calcsize(f"<{one}")))[0]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._content) - self._at:
            raise _Damaged("it ends within its header")
        self._at += count
        return self._content[self._at - count : self._at]


def _row_bytes(gguf: Any, packed: Packed) -> int:
    """Of one row, the last dimension; UserError where whole blocks do not make it."""
    try:
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(packed.kind)]
    except (ValueError, KeyError):
        raise _unknown(packed.file, str(packed.kind)) from None
    width = packed.shape[-1] if packed.shape else 1
    if width % block:
        raise UserError(f"{packed.file} has rows of {width} weights in blocks of {block}")
    return int(width // block * block_bytes)


def _unknown(file: Path, kind: str) -> UserError:
    return UserError(f"{file} has weights of the type {kind}, which is not read")


def _package() -> Any:
    try:
        import gguf
    except ImportError:
        raise UserError(
            "GGUF files need the gguf package", hint="pip install 'colibri-infer[quant]'"
        ) from None
    return gguf
