"""Weights that stay on the host and visit the device block by block, the next one while one works.

A forward reads each block's weights once, in one copy from pinned memory into one of two slots:
three steps read them three times. The numbers are the same, so the frames are.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ALIGN_BYTES = 256
"""Where tensors begin in a slot: as CUDA's allocator aligns them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One tensor of a block, and where it lies in the block's bytes."""

    owner: nn.Module
    name: str
    offset: int
    shape: torch.Size
    dtype: torch.dtype


class BlockStream:
    """The weights of `blocks`, which run in this order and start again after the last.

    Between two forwards every block's tensors are on the host. `enter` before the first forward.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: str) -> None:
        self.device = torch.device(device)
        self.bytes_read = 0
        """Copied to the device so far."""
        self._places = [_layout(block) for block in blocks]
        self._host = []
        for places in self._places:  # one by one: never two copies of all
            self._host.append(_host_bytes(places, pin=self.device.type == "cuda"))
            _point(places, self._host[-1])
        self._hooks = []
        for index, block in enumerate(blocks):
            before, after = self._before(index), self._after()
            self._hooks.append(block.register_forward_pre_hook(before))
            self._hooks.append(block.register_forward_hook(after, always_call=True))
        self._slots: list[Tensor] = []
        self._holds: list[int | None] = [None, None]
        self._current = 0
        self._copying: Any = None
        self._copied: list[Any] = [None, None]
        self._worked: list[Any] = [None, None]

    @property
    def block_bytes(self) -> int:
        """Of one slot: the largest block."""
        return max(host.numel() for host in self._host)

    def enter(self) -> None:
        """Take the two slots on the device."""
        if not self._slots:
            self._slots = [
                torch.empty(self.block_bytes, dtype=torch.uint8, device=self.device)
                for _ in range(2)
            ]
            if self.device.type == "cuda":
                self._copying = torch.cuda.Stream(self.device)

    def leave(self) -> None:
        """Give the slots back; every block is on the host."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for places, host in zip(self._places, self._host, strict=True):
            _point(places, host)
        self._slots, self._copying = [], None
        self._holds, self._copied, self._worked = [None, None], [None, None], [None, None]

    def close(self) -> None:
        """Stop streaming; the blocks stay on the host."""
        self.leave()
        for hook in self._hooks:
            hook.remove()

    def _before(self, index: int) -> Callable[..., None]:
        def before(block: nn.Module, args: object) -> None:
            self.enter()
            if self._holds[self._current] != index:  # the first block of all, or out of order
                other = 1 - self._current
                if self._holds[other] != index:
                    self._fetch(index, other)
                self._current = other
            slot = self._current
            if self._copied[slot] is not None:
                torch.cuda.current_stream(self.device).wait_event(self._copied[slot])
            _point(self._places[index], self._slots[slot])
            following = (index + 1) % len(self._places)
            if following != index:
                self._fetch(following, 1 - slot)

        return before

    def _after(self) -> Callable[..., None]:
        def after(block: nn.Module, args: object, result: object) -> None:
            slot = self._current
            index = self._holds[slot]
            if index is None:
                return
            if self.device.type == "cuda":
                self._worked[slot] = torch.cuda.Event()
                self._worked[slot].record(torch.cuda.current_stream(self.device))
            _point(self._places[index], self._host[index])

        return after

    def _fetch(self, index: int, slot: int) -> None:
        host = self._host[index]
        target = self._slots[slot][: host.numel()]
        self._holds[slot] = index
        self.bytes_read += host.numel()
        if self._copying is None:
            target.copy_(host)
            return
        if self._worked[slot] is not None:  # who used the slot before
            self._copying.wait_event(self._worked[slot])
        with torch.cuda.stream(self._copying):
            target.copy_(host, non_blocking=True)
            self._copied[slot] = torch.cuda.Event()
            self._copied[slot].record(self._copying)


def streamed_bytes(blocks: Sequence[nn.Module]) -> tuple[int, int]:
    """Bytes of all blocks on the host, and of the largest, as a stream lays them out."""
    sizes = [_size(_layout(block)) for block in blocks]
    return sum(sizes), max(sizes)


def chunk_ffn(block: Any, chunks: int) -> None:
    """Let a transformer block's feed-forward take its tokens in parts; 1 undoes it.

    The same numbers up to the rounding of products of other sizes.
    """
    ffn = block.ffn
    ffn.__dict__.pop("forward", None)
    if chunks == 1:
        return
    whole = ffn.forward

    def forward(x_BSD: Tensor) -> Tensor:
        out_BSD = torch.empty_like(x_BSD)
        for part, place in zip(
            x_BSD.chunk(chunks, dim=1), out_BSD.chunk(chunks, dim=1), strict=True
        ):
            place.copy_(whole(part))
        return out_BSD

    ffn.forward = forward


def _layout(block: nn.Module) -> list[Place]:
    places, offset = [], 0
    for owner in block.modules():
        tensors = {**owner._parameters, **owner._buffers}
        for name, tensor in tensors.items():
            if tensor is None:
                continue
            places.append(
                Place(owner=owner, name=name, offset=offset, shape=tensor.shape, dtype=tensor.dtype)
            )
            offset += -(-tensor.nbytes // ALIGN_BYTES) * ALIGN_BYTES
    return places


def _size(places: list[Place]) -> int:
    last = places[-1]
    width = last.shape.numel() * last.dtype.itemsize
    return last.offset + -(-width // ALIGN_BYTES) * ALIGN_BYTES


def _host_bytes(places: list[Place], *, pin: bool) -> Tensor:
    host = torch.empty(_size(places), dtype=torch.uint8)
    for place in places:
        _view(place, host).copy_(_tensor(place))
    if pin:
        _pin(host)
    return host


def _pin(host: Tensor) -> None:
    """Pin memory where it is: PyTorch's own pinned memory comes in powers of two.

    Where no more can be pinned copies are slower and the numbers the same.
    """
    runtime = torch.cuda.cudart()
    if int(runtime.cudaHostRegister(host.data_ptr(), host.nbytes, 1)) == 0:
        weakref.finalize(host.untyped_storage(), runtime.cudaHostUnregister, host.data_ptr())


def _tensor(place: Place) -> Tensor:
    found: Tensor | None = place.owner._parameters.get(place.name)
    if found is None:
        found = place.owner._buffers[place.name]
    assert found is not None
    return found


def _view(place: Place, memory: Tensor) -> Tensor:
    width = place.shape.numel() * place.dtype.itemsize
    return memory[place.offset : place.offset + width].view(place.dtype).view(place.shape)


def _point(places: list[Place], memory: Tensor) -> None:
    """Let the block's tensors be those in `memory`."""
    for place in places:
        view = _view(place, memory)
        parameter = place.owner._parameters.get(place.name)
        if parameter is None:
            place.owner._buffers[place.name] = view
        else:
            parameter.data = view
