"""How much memory a computation holds at its fullest, and what autograd keeps of one, found on
shapes alone.

It runs the very code on the meta device and counts what is allocated and freed. Fused attention
counts its result alone, as flash kernels do. What a convolution takes beside its result is counted
as PyTorch's CPU kernels take it; a GPU's workspaces depend on its library and are not counted.
"""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(run: Callable[[], object], device: str = "cpu", *, vae: Any = None) -> int:
    """Most bytes that `run` holds at once in meta tensors that it makes, its result among them.

    `device` is the one that is meant; it decides what convolutions take. With the `vae` that `run`
    decodes with, parts like an earlier one are not computed again: what they take is known.
    """
    ledger = _Ledger(cpu=device.startswith("cpu"))
    brief = contextlib.nullcontext() if vae is None else _once_each(vae.decoder, ledger)
    with torch.no_grad(), _FusedAttention(), ledger, brief:
        run()
    return ledger.peak


def kept_bytes(run: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps of `run` for a backward pass, those of `weights` left out."""
    known = {_key(weight) for weight in weights}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no two have the same key

    def keep(tensor: Tensor) -> Tensor:
        if _key(tensor) not in known:
            kept[_key(tensor)] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


@contextlib.contextmanager
def _once_each(decoder: Any, ledger: "_Ledger") -> Iterator[None]:
    """Let a Wan VAE's decoder compute each kind of part once, and reserve as much from then on."""
    compute = decoder.forward
    known: dict[object, tuple[int, torch.Size, torch.dtype]] = {}
    turn = 0

    def forward(x: Tensor, feat_cache: Any, feat_idx: Any, first_chunk: bool = False) -> Tensor:
        nonlocal turn
        turn = 0 if first_chunk else turn + 1
        # What the convolutions keep of earlier parts is itself part of the memory.
        kept = sum(one.nbytes for one in feat_cache if isinstance(one, Tensor))
        key = x.shape, min(turn, 3)  # from the fourth on all parts of a clip are alike
        if key in known:
            most, shape, dtype = known[key]
            torch.empty(max(0, most - kept), dtype=torch.uint8, device="meta")
            return torch.empty(shape, dtype=dtype, device="meta")
        before, highest = ledger.held - kept, ledger.peak
        ledger.peak = ledger.held
        result: Tensor = compute(
            x, feat_cache=feat_cache, feat_idx=feat_idx, first_chunk=first_chunk
        )
        known[key] = ledger.peak - before, result.shape, result.dtype
        ledger.peak = max(highest, ledger.peak)
        return result

    decoder.forward = forward
    try:
        yield
    finally:
        del decoder.forward


class _Ledger(TorchDispatchMode):
    def __init__(self, *, cpu: bool) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._cpu = cpu
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and _is_meta(args[0]):
            return False  # a question about values, as "is all of this mask true?"
        given = {_key(one) for one in tree_leaves((args, kwargs)) if _is_meta(one)}
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if _is_meta(one) and _key(one) not in given:
                self._add(one)
        if self._cpu and func is torch.ops.aten.convolution.default and _is_meta(result):
            self.peak = max(self.peak, self.held + _conv_scratch(args[0], args[1], result, args[8]))
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


class _FusedAttention(TorchFunctionMode):
    """The meta device has no fused kernel, and would hold every score."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, value = args[0] if args else kwargs["query"], _third(args, kwargs)
            if query.device.type == "meta":
                # In memory as (batch, tokens, heads, width), as the kernels give it.
                batch, heads, tokens, _ = query.shape
                made = query.new_empty((batch, tokens, heads, value.shape[-1]))
                return made.transpose(1, 2)
        return func(*args, **(kwargs or {}))


def _conv_scratch(x: Tensor, weight: Tensor, result: Tensor, groups: int) -> int:
    """What a 3D convolution on a CPU takes beside its result.

    oneDNN copies input and weight into its own layout; PyTorch's own kernel, for small float32
    inputs, writes every column (aten/src/ATen/native/Convolution.cpp, ConvParams::use_mkldnn).
    """
    if x.ndim != 5:
        return 0
    small = x.shape[0] == 1 and groups == 1 and x.shape[:4].numel() <= 20480
    if x.dtype == torch.float32 and small and not min(weight.shape[-2:]) > 3:
        taps = weight.shape[2:].numel()
        return 0 if taps == 1 else x.shape[1] * taps * result[0, 0].numel() * x.itemsize
    return x.nbytes + weight.nbytes


def _third(args: tuple[Any, ...], kwargs: Any) -> Tensor:
    value: Tensor = args[2] if len(args) > 2 else kwargs["value"]
    return value


def _is_meta(one: object) -> bool:
    return isinstance(one, Tensor) and one.device.type == "meta"


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
