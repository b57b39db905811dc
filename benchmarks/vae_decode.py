"""Time and peak memory of decoders in one run, growing length: light, preview, fast Wan, diffusers.

Weights are random: neither time nor memory depends on them. Each decoder runs in a process of its
own, so that peaks do not mix; a length that runs out of memory or time says so. Light decoders and
the preview decode in chunks of `--chunk` latents and hand each chunk on as uint8 frames; that is
included. Not included: loading, and on a GPU the copy of frames to the host.
"""

import argparse
import gc
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from colibri.core.geometry import VideoShape
from colibri.core.shards import write_json_whole
from colibri.core.wan.family import FAMILIES, ModelFamily

KINDS = ("light-causal", "light", "preview", "fast-wan", "diffusers-wan")


def main() -> None:
    """Every decoder and length, a table, the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="tiny-ti2v")
    parser.add_argument("--size", default="tiny", help="of the light decoders")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--frames", default="17,33,65,129")
    parser.add_argument("--height", type=int, default=None)
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--limit-s", type=float, default=600, help="for one decoder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vae_decode.json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments)
        return
    rows = []
    print(f"{'decoder':<16}{'frames':>7}{'s':>10}{'ms/frame':>10}{'peak MB':>10}")
    for kind in arguments.kinds.split(","):
        for frames in arguments.frames.split(","):
            row = _in_a_process(kind, frames, arguments.limit_s)
            rows.append(row)
            if "error" in row:
                print(f"{kind:<16}{frames:>7}  {row['error']}")
                continue
            print(
                f"{kind:<16}{frames:>7}{row['seconds']:>10.3f}{row['ms_per_frame']:>10.2f}"
                f"{row['peak_mb']:>10.0f}"
            )
    settings = {
        key: value for key, value in vars(arguments).items() if key not in ("one", "out", "limit_s")
    }
    write_json_whole(
        arguments.out,
        {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "device": next((row["device"] for row in rows if "device" in row), None),
            "torch": next((row["torch"] for row in rows if "torch" in row), None),
            "settings": settings,
            "rows": rows,
        },
    )


def measure(arguments: argparse.Namespace) -> None:
    """One decoder, one length; a JSON line."""
    import torch

    kind, frames = arguments.one.split(":")
    family = FAMILIES[arguments.family]
    default = family.video
    video = VideoShape(
        frames=int(frames),
        height=arguments.height or default.height,
        width=arguments.width or default.width,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    decode = _decoder(kind, family, arguments.size, arguments.chunk, device, dtype)
    shape = family.latent_shape(video)
    latents = torch.randn(
        1, shape.channels, shape.frames, shape.height, shape.width, device=device, dtype=dtype
    )
    gc.collect()
    short = latents[:, :, : min(shape.frames, arguments.chunk + 1)]
    decode(short)  # warm-up: kernels chosen, memory of one chunk
    before = _memory(device)
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        decode(latents)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    seconds = sorted(times)[len(times) // 2]
    row = {
        "decoder": kind,
        "frames": video.frames,
        "height": video.height,
        "width": video.width,
        "seconds": seconds,
        "ms_per_frame": seconds / video.frames * 1000,
        "peak_mb": (_memory(device) - (0 if device.type == "cuda" else before)) / 1e6,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    print(json.dumps(row))


def _decoder(kind: str, family: ModelFamily, size: str, chunk: int, device: Any, dtype: Any) -> Any:
    import torch
    from colibri.core.wan.decoder import to_frames
    from colibri.vae import forms
    from colibri.vae.decode import Plan, VideoDecoder
    from colibri.vae.light import LightDecoder, light_config
    from colibri.vae.taehv import PreviewDecoder
    from colibri.vae.wan import WanCore
    from diffusers import AutoencoderKLWan

    core: Any
    if kind.startswith("light"):
        core = LightDecoder(light_config(size, family.vae, causal=kind == "light-causal"))
        core.to(device, dtype)
        shape = (1, core.codec.channels, 2, 8, 8)
        forms.fastest(core, torch.randn(shape, device=device, dtype=dtype))
    elif kind == "preview":
        channels = family.codec.channels
        core = PreviewDecoder((256, 128, 64, 64), channels, family.codec.space // 8)
    else:
        table = {k: list(v) if isinstance(v, tuple) else v for k, v in family.vae.items()}
        core = WanCore(AutoencoderKLWan(**table))
    core.to(device, dtype).eval().requires_grad_(False)
    if kind == "diffusers-wan":
        return torch.no_grad()(lambda latents: core.vae.decode(latents).sample)
    decoder = VideoDecoder(core=core)

    def decode(latents: Any) -> None:
        for part in decoder.stream(latents, Plan(chunk=chunk)):
            to_frames(part) if device.type == "cpu" else _to_uint8(part)

    return decode


def _to_uint8(video: Any) -> Any:
    import torch

    return video.mul(127.5).add_(127.5).clamp_(0, 255).round_().to(torch.uint8)


def _in_a_process(kind: str, frames: str, limit_s: float) -> dict[str, Any]:
    words = [sys.executable, *sys.argv, "--one", f"{kind}:{frames}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"decoder": kind, "frames": int(frames), "error": f"more than {limit_s:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1][:200]
        return {"decoder": kind, "frames": int(frames), "error": last}
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def _memory(device: Any) -> int:
    """On a GPU the peak since the process began; else the peak of the whole process."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
