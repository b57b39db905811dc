"""Time the ways of computing what Wan models need: convolution, attention, matrix products.

Sizes are those of one layer, small on a CPU. Every result is held against float32.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from colibri.infer.device_profile import Kind, Trial, set_convolutions
from colibri.infer.quantized import QuantizedLinear, pack

Clock = Callable[[], float]

LOCAL_BACKENDS = {
    "native": None,
    "_native_flash": None,
    "_native_efficient": None,
    "_native_cudnn": None,
    "flash": "flash_attn",
    "sage": "sageattention",
    "xformers": "xformers",
}
"""Attention backends of diffusers that fetch nothing, and the package that each needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Of the trials."""

    channels: int
    """Of the convolution, in and out."""
    video: tuple[int, int, int]
    """Frames, rows, columns of its input, the causal frames included."""
    tokens: int
    heads: int
    head_dim: int
    width: int
    """Of the matrix product, which is square."""


SMALL = Sizes(channels=32, video=(6, 24, 24), tokens=256, heads=4, head_dim=64, width=512)
LARGE = Sizes(channels=256, video=(6, 88, 160), tokens=4096, heads=24, head_dim=128, width=4096)


def run_trials(
    device: str,
    *,
    sizes: Sizes | None = None,
    repeats: int = 3,
    clock: Clock = time.perf_counter,
) -> Iterator[Trial]:
    """Every candidate once warm, then `repeats` times. What does not run is told, not raised."""
    cpu = device.startswith("cpu")
    sizes = sizes or (SMALL if cpu else LARGE)
    dtype = torch.float32 if cpu else torch.bfloat16
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for kind, flops, candidates in (
            ("convolution", *_convolutions(sizes, device, dtype)),
            ("attention", *_attentions(sizes, device, dtype)),
            ("matmul", *_matmuls(sizes, device)),
        ):
            expected = candidates.pop("")()[1].float()
            for way, prepare in candidates.items():
                name = way if kind == "matmul" else str(dtype).removeprefix("torch.")
                yield _trial(kind, way, name, prepare, expected, flops, device, repeats, clock)  # type: ignore[arg-type]


Prepared = Callable[[], tuple[Callable[[], Tensor], Tensor]]
"""Makes what is timed; its result comes along."""


def _trial(
    kind: Kind,
    way: str,
    dtype: str,
    prepare: Prepared,
    expected: Tensor,
    flops: float,
    device: str,
    repeats: int,
    clock: Clock,
) -> Trial:
    try:
        run, result = prepare()
        times: list[float] = []
        for _ in range(repeats):
            _wait(device)
            begin = clock()
            run()
            _wait(device)
            times.append(clock() - begin)
            if times[-1] > 5:
                break
    except Exception as error:  # a kernel may fail in any way: that is what is to be found out
        lines = str(error).strip().splitlines()
        said = lines[0][:160] if lines else type(error).__name__
        return Trial(kind=kind, way=way, dtype=dtype, said=said)
    seconds = statistics.median(times)
    error_of = (result.float() - expected).abs().max() / expected.abs().max()
    found = float(error_of)
    return Trial(
        kind=kind,
        way=way,
        dtype=dtype,
        seconds=seconds,
        tflops=flops / seconds / 1e12 if seconds else None,
        error=found if found == found and found != float("inf") else None,
    )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _convolutions(
    sizes: Sizes, device: str, dtype: torch.dtype
) -> tuple[float, dict[str, Prepared]]:
    frames, rows, columns = sizes.video
    x = torch.randn(1, sizes.channels, frames, rows, columns)
    conv = nn.Conv3d(sizes.channels, sizes.channels, 3, padding=(0, 1, 1))
    expected = conv(x)
    flops = 2.0 * expected.numel() * sizes.channels * 27

    def prepare(way: str) -> tuple[Callable[[], Tensor], Tensor]:
        layer = nn.Conv3d(sizes.channels, sizes.channels, 3, padding=(0, 1, 1))
        layer.load_state_dict(conv.state_dict())
        layer = layer.to(device, dtype)
        set_convolutions(layer, way)
        pixels = x.to(device, dtype)
        if way == "channels_last":
            pixels = pixels.contiguous(memory_format=torch.channels_last_3d)
        return _on_host(lambda: layer(pixels))

    ways = {way: _with(prepare, way) for way in ("dense", "channels_last", "2d")}
    return flops, {"": lambda: (lambda: expected, expected), **ways}


def _attentions(sizes: Sizes, device: str, dtype: torch.dtype) -> tuple[float, dict[str, Prepared]]:
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    shape = (1, sizes.tokens, sizes.heads, sizes.head_dim)
    q_BLHD, k_BLHD, v_BLHD = (torch.randn(shape) for _ in range(3))
    inputs = [one.to(device, dtype) for one in (q_BLHD, k_BLHD, v_BLHD)]
    flops = 4.0 * sizes.tokens**2 * sizes.heads * sizes.head_dim

    def expected() -> tuple[Callable[[], Tensor], Tensor]:
        q, k, v = (one.float().transpose(1, 2) for one in inputs)
        result = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).cpu()
        return lambda: result, result

    def prepare(way: str) -> tuple[Callable[[], Tensor], Tensor]:
        package = LOCAL_BACKENDS[way]
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserWarning(f"{package} is not installed")
        backend = AttentionBackendName(way)
        return _on_host(lambda: dispatch_attention_fn(*inputs, backend=backend))

    return flops, {"": expected, **{way: _with(prepare, way) for way in LOCAL_BACKENDS}}


def _matmuls(sizes: Sizes, device: str) -> tuple[float, dict[str, Prepared]]:
    width = sizes.width
    x, weight = torch.randn(width, width), torch.randn(width, width) / width**0.5
    expected = x @ weight.t()

    def prepare(way: str) -> tuple[Callable[[], Tensor], Tensor]:
        if way == "int8-dynamic":
            layer: Any = QuantizedLinear(
                width, width, "int8-dynamic", bias=False, dtype=torch.bfloat16
            )
            for name, tensor in pack(weight, "int8-dynamic").items():
                layer._buffers[name] = tensor.to(device)
            half = x.to(device, torch.bfloat16)
            return _on_host(lambda: layer(half))
        if way == "fp8":
            scale = torch.ones((), device=device)
            left = x.to(device).to(torch.float8_e4m3fn)
            right = weight.to(device).to(torch.float8_e4m3fn).t()
            return _on_host(
                lambda: torch._scaled_mm(left, right, scale, scale, out_dtype=torch.bfloat16)
            )
        kind = getattr(torch, way)
        left, right = x.to(device, kind), weight.to(device, kind).t()
        return _on_host(lambda: left @ right)

    ways = ("float32", "bfloat16", "float16", "int8-dynamic", "fp8")
    flops = 2.0 * width**3
    return flops, {
        "": lambda: (lambda: expected, expected),
        **{way: _with(prepare, way) for way in ways},
    }


def _with(prepare: Callable[[str], Any], way: str) -> Prepared:
    return lambda: prepare(way)


def _on_host(run: Callable[[], Tensor]) -> tuple[Callable[[], Tensor], Tensor]:
    """What is timed, and its first result, on the host."""
    return run, run().cpu()
