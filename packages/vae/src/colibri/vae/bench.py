"""`vae bench`: time, work, rate and peak memory of decoders in one run, over growing lengths.

Weights are random unless a folder is given: neither time nor memory depends on them. Every decoder
and length runs in a process of its own, so that peaks do not mix; one that runs out of memory or
time says so. All but diffusers' own decode in chunks and hand each on as uint8 frames; that is
included. Not included: loading, and on a GPU the copy of frames to the host.
"""

# B batch  C channels  T latent frames  F frames  H rows  W columns

import copy
import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.shards import write_json_whole
from colibri.core.wan.family import FAMILIES, ModelFamily
from colibri.vae import forms
from colibri.vae.config import BenchConfig
from colibri.vae.decode import Core, Plan, VideoDecoder
from colibri.vae.light import LightDecoder, light_config
from colibri.vae.load import load_decoder
from colibri.vae.taehv import PreviewDecoder
from colibri.vae.wan import WanCore

KINDS = ("light-causal", "light", "2d", "fast-wan", "compiled-wan", "diffusers-wan")
"""Of random weights; any other word is the folder of a decoder."""


Call = Callable[[Any, Tensor], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One decoder at one length."""

    decoder: str
    frames: int
    error: str | None = None
    """Why there are no figures."""
    seconds: float = 0.0
    """Median of the runs, after a warm-up."""
    ms_per_frame: float = 0.0
    tflop: float = 0.0
    """Work that the decoder does: multiplications and additions of its convolutions, counted, those
    of windows that overlap as often as they are done."""
    tflop_per_s: float = 0.0
    peak_mb: float = 0.0
    """GPU: most memory allocated since the start, weights included. CPU: most that decoding holds
    at once in tensors, without weights."""
    device: str = ""
    torch: str = ""
    form: str = ""
    """How a light decoder's convolutions ran: of all ways the fastest here."""
    slowest_form: float | None = None
    """Time of the slowest way over that of the fastest, for two small latents."""


def bench(config: BenchConfig, *, say: Callable[[str], None] = print) -> list[Measured]:
    """Every decoder and length, each in a process of its own; prints a line as it is known."""
    if config.family not in FAMILIES:
        raise UserError(
            f"there is no family {config.family!r}", hint=f"known: {', '.join(FAMILIES)}"
        )
    width = max(map(len, config.decoders))
    head = ("frames", "s", "ms/frame", "TFLOP", "TFLOP/s", "peak MB")
    say(f"{'decoder':<{width}}" + "".join(f"{name:>10}" for name in head))
    rows = []
    for name in config.decoders:
        for frames in config.frames:
            row = _in_a_process(config, name, frames)
            rows.append(row)
            if row.error:
                say(f"{name:<{width}}{frames:>10}  {row.error}")
                continue
            say(
                f"{name:<{width}}{frames:>10}{row.seconds:>10.3f}{row.ms_per_frame:>10.2f}"
                f"{row.tflop:>10.4g}{row.tflop_per_s:>10.3g}{row.peak_mb:>10.0f}"
            )
    if config.out:
        settings = {key: value for key, value in to_table(config).items() if key != "out"}
        table = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "device": next((row.device for row in rows if row.device), None),
            "torch": torch.__version__,
            "settings": settings,
            "rows": [asdict(row) for row in rows],
        }
        write_json_whole(config.out, table)
    return rows


def measure(config: BenchConfig, name: str, frames: int) -> Measured:
    """One decoder, one length, in this process."""
    family = FAMILIES[config.family]
    height, width = config.size or (family.defaults.height, family.defaults.width)
    video = VideoShape(frames=frames, height=height, width=width)
    shape = LatentShape.of(video, family.codec)
    device = torch.device(
        "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    )
    dtype = getattr(torch, config.dtype)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(0)
    core = _core(name, family, config, device, dtype)
    if core.codec != family.codec:
        raise UserError(f"{name} is not for the latents of {config.family}")
    form, slowest = "", None
    if isinstance(core, LightDecoder):
        some = torch.randn((1, shape.channels, 2, 8, 8), device=device, dtype=dtype)
        ways = forms.fastest(core, some)
        best = min(ways, key=ways.__getitem__)
        form, slowest = str(best), max(ways.values()) / ways[best]
        if config.save:
            forms.remember(core, device, best)
    work = _work(name, core, shape, config.chunk)
    decode = _decode(name, core, config.chunk)
    size = (1, shape.channels, shape.frames, shape.height, shape.width)
    latents = torch.randn(size, device=device, dtype=dtype)
    gc.collect()
    decode(
        latents[:, :, : min(shape.frames, config.chunk + 1)]
    )  # kernels chosen, memory of a chunk
    times = []
    for _ in range(config.runs):
        start = time.perf_counter()
        decode(latents)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    seconds = sorted(times)[len(times) // 2]
    return Measured(
        decoder=name,
        frames=frames,
        seconds=seconds,
        ms_per_frame=seconds / frames * 1000,
        tflop=work / 1e12,
        tflop_per_s=work / 1e12 / seconds,
        peak_mb=peak_bytes(lambda: decode(latents), device) / 1e6,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        form=form,
        slowest_form=slowest,
    )


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Memory at its fullest. GPU: all that is allocated, since the process began. CPU: what `run`
    holds in tensors, from torch's own count."""
    if device.type == "cuda":
        run()
        return int(torch.cuda.max_memory_allocated())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in trace.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    held = peak = 0
    for _, change in sorted(changes):
        held += change
        peak = max(peak, held)
    return peak


def counted_flops(core: Any, latents: LatentShape, call: Call | None = None) -> int:
    """Work for a whole video, counted on shapes alone; `core` is on any device and stays there.

    `call` is given a copy without weights and the latents; None: one forward.
    """
    shapes: dict[int, Any] = {}  # stand in for the weights, so that none is copied
    for weight in core.parameters():
        shapes[id(weight)] = torch.nn.Parameter(weight.detach().to("meta"), requires_grad=False)
    for buffer in core.buffers():
        shapes[id(buffer)] = buffer.to("meta")
    ghost = copy.deepcopy(core, shapes)
    size = (1, latents.channels, latents.frames, latents.height, latents.width)
    dtype = next(ghost.parameters()).dtype
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (call or _forward)(ghost, torch.empty(size, device="meta", dtype=dtype))
    return int(counter.get_total_flops())


def _forward(core: Any, latents: Tensor) -> object:
    return core(latents)


class DiffusersCore(torch.nn.Module):
    """diffusers' own decoding, to count and to time."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        video: Tensor = self.vae.decode(latents).sample
        return video


def _core(
    name: str, family: ModelFamily, config: BenchConfig, device: torch.device, dtype: torch.dtype
) -> Any:
    core: Any
    if name in ("light-causal", "light"):
        core = LightDecoder(light_config(config.light, family.vae, causal=name == "light-causal"))
    elif name == "2d":
        core = PreviewDecoder.sized(config.light, family.codec, family.stats)
    elif name in KINDS:
        from diffusers import AutoencoderKLWan

        table = {k: list(v) if isinstance(v, tuple) else v for k, v in family.vae.items()}
        with torch.device(device):
            core = WanCore(AutoencoderKLWan(**table), compiled=name == "compiled-wan")
    else:
        core = load_decoder(name, device=device, dtype=dtype).core
    return core.to(device, dtype).eval().requires_grad_(False)


def _work(name: str, core: Any, shape: LatentShape, chunk: int) -> int:
    if isinstance(core, WanCore) and name == "diffusers-wan":
        return counted_flops(DiffusersCore(core.vae), shape)

    def in_chunks(ghost: Any, latents: Tensor) -> None:
        for _ in VideoDecoder(core=ghost).stream(latents, Plan(chunk=chunk)):
            pass

    return counted_flops(core, shape, in_chunks)


def _decode(name: str, core: Core, chunk: int) -> Callable[[Tensor], object]:
    if isinstance(core, WanCore) and name == "diffusers-wan":
        return torch.no_grad()(DiffusersCore(core.vae))
    decoder = VideoDecoder(core=core)

    def decode(latents: Tensor) -> None:
        for part in decoder.stream(latents, Plan(chunk=chunk)):
            part.mul(127.5).add_(127.5).clamp_(0, 255).round_().to(torch.uint8)

    return decode


def _in_a_process(config: BenchConfig, name: str, frames: int) -> Measured:
    task = json.dumps({"config": to_table(config), "name": name, "frames": frames})
    words = [sys.executable, "-m", "colibri.vae.bench"]
    try:
        done = subprocess.run(
            words, input=task, capture_output=True, text=True, timeout=config.limit_s
        )
    except subprocess.TimeoutExpired:
        return Measured(decoder=name, frames=frames, error=f"more than {config.limit_s:.0f} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed, as for lack of memory"])[-1][:200]
        return Measured(decoder=name, frames=frames, error=last)
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def _child() -> None:
    task = json.load(sys.stdin)
    table: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in task["config"].items()
        if key != "out"
    }
    try:
        row = measure(BenchConfig(**table), task["name"], task["frames"])
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps(asdict(row)))


if __name__ == "__main__":
    _child()
