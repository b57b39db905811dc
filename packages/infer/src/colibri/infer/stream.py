"""Blocks of latents to blocks of frames, in a stream, beside the denoising of the next block."""

# B batch  C channels  T latent frames  H W latent rows, columns

import contextlib
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from colibri.core.hashing import hash_text
from colibri.core.wan.family import ModelFamily
from colibri.infer.decode import Frames
from colibri.infer.image import hash_pixels

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def decoded_blocks(
    vae: Any, blocks_BCTHW: "Iterable[Tensor]", family: ModelFamily
) -> Iterator[Frames]:
    """uint8 frames (frames, height, width, 3) of each block of normalised latents (B = 1).

    The first latent of all is one frame, each later one as many as the codec says. Memory does not
    grow with the length. A light decoder that looks ahead gives a block some blocks later.
    """
    from colibri.core.wan.decoder import decode_stream, to_frames
    from colibri.infer.light import Light

    if isinstance(vae, Light):
        raw = (family.stats.unnormalise(block.float()) for block in blocks_BCTHW)
        yield from (to_frames(video)[0] for video in vae.blocks(raw))
        return
    expected: deque[int] = deque()

    def fed() -> "Iterator[Tensor]":
        first = True
        for block in blocks_BCTHW:
            count = block.shape[2] * family.codec.time
            expected.append(count - family.codec.time + 1 if first else count)
            first = False
            yield family.stats.unnormalise(block.float())

    # A block's latents at once keep a GPU busy; on a CPU one after the other was quicker.
    chunk = 1 if vae.device.type == "cpu" else sys.maxsize
    parts: list[Frames] = []
    for part in decode_stream(vae, fed(), chunk=chunk):
        parts.append(to_frames(part)[0])
        if sum(map(len, parts)) == expected[0]:
            yield np.concatenate(parts)
            parts.clear()
            expected.popleft()


def decoder_reach(vae: Any) -> int:
    """Latents before one that its frames can depend on, at most.

    Every causal convolution sees the frames before in its own kernel, and none of them has fewer
    frames than latents.
    """
    from torch import nn

    from colibri.infer.light import Light, reach_back

    if isinstance(vae, Light) and (reach := reach_back(vae)) is not None:
        return reach
    network = vae.core if isinstance(vae, Light) else vae.decoder
    convolutions = [one for one in network.modules() if isinstance(one, nn.Conv3d)]
    return sum(one.kernel_size[0] - 1 for one in convolutions)


def chained(before: str, frames: Frames) -> str:
    """SHA-256 over the frames so far, from that of the blocks before ("" at the beginning)."""
    return hash_text(before, hash_pixels(frames))


class Beside(Generic[T]):
    """A thread that works through what it is handed, in order, while the caller goes on.

    `work` is given an iterator of the things. What it raises is raised by the next `hand` or by
    leaving the `with`; leaving by an exception ends the iterator early.
    """

    def __init__(self, work: Callable[[Iterator[T]], object], *, ahead: int = 2) -> None:
        self._queue: queue.Queue[tuple[T] | None] = queue.Queue(ahead)
        self._work = work
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decode and write", daemon=True)

    def __enter__(self) -> "Beside[T]":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            self._over.set()
        self._put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def hand(self, thing: T) -> None:
        """Wait until there is room for `thing`."""
        self._put((thing,))
        self._raise()

    def _put(self, thing: tuple[T] | None) -> None:
        while self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(thing, timeout=0.1)
                return

    def _raise(self) -> None:
        if self._error is not None:
            self._over.set()
            raise self._error

    def _run(self) -> None:
        try:
            self._work(self._things())
        except BaseException as error:
            self._error = error

    def _things(self) -> Iterator[T]:
        while (one := self._queue.get()) is not None and not self._over.is_set():
            yield one[0]


@contextlib.contextmanager
def own_stream(device: str) -> Iterator[None]:
    """On CUDA, work of this thread in a stream of its own, beside that of other threads."""
    import torch

    if not device.startswith("cuda"):
        yield
        return
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)):
        yield
