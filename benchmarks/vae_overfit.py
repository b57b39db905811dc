"""Can a full-size light decoder learn? One is fitted to a few cuts of real footage.

The Wan2.2 VAE has its published architecture but random weights (none can be had offline), its
latents brought to unit variance: still a code of the clips, from which the light decoder has to
find the pixels again. What is printed is the fit to the very cuts that it was trained on, not the
quality of a decoder. Stopped at any moment, the same command goes on.

    python benchmarks/vae_overfit.py --steps 200
    python benchmarks/vae_overfit.py --family tiny-ti2v --size tiny --steps 20   # a quick look
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from colibri.core import wan
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.shards import write_json_whole
from colibri.core.wan.decoder import LatentStats, hash_vae_folder, to_frames
from colibri.core.wan.family import FAMILIES, codec_of
from colibri.testbed.footage import big_buck_bunny
from colibri.vae.clips import Frames, centre_clip, open_source
from colibri.vae.config import EncodeConfig, LossConfig, TrainConfig
from colibri.vae.encode import Drawn, LatentCache, encode
from colibri.vae.light import LightDecoder, flops, parameter_count
from colibri.vae.load import load_decoder, load_teacher
from colibri.vae.metrics import psnr
from colibri.vae.train import train
from PIL import Image
from rows import command


def main() -> None:
    """Make the VAE, encode, train, decode the same cuts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", default="wan2.2-ti2v-5b", choices=FAMILIES, help="whose VAE")
    parser.add_argument("--size", default="slim", help="of the light decoder")
    parser.add_argument("--causal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=4, help="that are fitted (%(default)s)")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--crop", type=int, default=64, help="side of the square, pixels")
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("out/vae_overfit"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vae_overfit.json"))
    run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """All of it."""
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    crop = (arguments.crop, arguments.crop)
    clips = work / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    clip = clips / big_buck_bunny().name
    if not clip.exists():
        clip.write_bytes(big_buck_bunny().read_bytes())
    teacher = random_vae(work / "vae", arguments.family, clips, arguments.frames, crop)
    cuts = encode_cuts(arguments, teacher, clips, crop)
    config = TrainConfig(
        teacher=str(teacher),
        clips=clips,
        latents=work / "latents",
        out=work / f"{arguments.size}-{'causal' if arguments.causal else 'both'}",
        size=arguments.size,
        causal=arguments.causal,
        frames=arguments.frames,
        crop=crop,
        accumulate=1,
        batch=1,
        steps=arguments.steps,
        lr=arguments.lr,
        warmup=10,
        ema=0.9,
        precision="fp32",
        threads=arguments.threads,
        device="cpu",
        save_every=25,
        log_every=1,
        preview_every=0,
        losses=LossConfig(lpips=0, features=0),  # a random teacher's features teach nothing
    )
    begun = time.perf_counter()
    trained = train(config)
    seconds = time.perf_counter() - begun
    assert trained.folder is not None
    decoder = load_decoder(trained.folder)
    with torch.no_grad():
        videos = [to_frames(decoder.decode(one.latents[None]))[0] for one in cuts]
    fits = [psnr(_unit(video), _unit(one.frames)) for video, one in zip(videos, cuts, strict=True)]
    grey = [_unit(one.frames).mean().expand(one.frames.shape) for one in cuts]
    greys = [psnr(mean, _unit(one.frames)) for mean, one in zip(grey, cuts, strict=True)]
    lines = [json.loads(line) for line in (config.out / "metrics.jsonl").open(encoding="utf-8")]
    shape = LatentShape.of(
        VideoShape(frames=arguments.frames, height=crop[0], width=crop[1]), decoder.codec
    )
    assert isinstance(decoder.core, LightDecoder)
    light = decoder.core.config
    strip = np.concatenate(
        [
            np.concatenate([part[frame] for frame in (0, arguments.frames - 1)], axis=1)
            for one, video in zip(cuts, videos, strict=True)
            for part in (one.frames, video)
        ]
    )
    Image.fromarray(strip).resize((strip.shape[1] * 4, strip.shape[0] * 4), 0).save(
        work / "fit.png"
    )
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.processor() or platform.machine()}, {arguments.threads} threads",
        "torch": torch.__version__,
        "family": arguments.family,
        "size": arguments.size,
        "causal": arguments.causal,
        "parameters": parameter_count(light),
        "tflop_a_cut": flops(light, shape) / 1e12,
        "cuts": len(cuts),
        "frames": arguments.frames,
        "crop": arguments.crop,
        "steps": arguments.steps,
        "seconds_of_the_last_run": seconds,
        "l1": {line["step"]: line["l1"] for line in lines[:: max(1, len(lines) // 20)]},
        "psnr": fits,
        "psnr_of_one_grey": greys,
    }
    write_json_whole(arguments.out, found)
    print(
        f"{arguments.size}, {found['parameters'] / 1e6:.1f} M parameters, {arguments.steps} steps: "
        f"PSNR {np.mean(fits):.2f} dB on {len(cuts)} cuts (one grey: {np.mean(greys):.2f} dB)"
    )
    print(f"figures   {arguments.out}\nstrip     {work / 'fit.png'}")


def _unit(frames: Frames) -> torch.Tensor:
    """uint8 -> [0, 1]."""
    return torch.from_numpy(frames).double() / 255


def random_vae(folder: Path, name: str, clips: Path, frames: int, crop: tuple[int, int]) -> Path:
    """A VAE folder of the family's architecture, its latents of one cut at unit variance."""
    if (folder / "config.json").exists():
        return folder
    vae = wan.build(FAMILIES[name], seed=0, parts=("vae",)).vae
    source = open_source(clips, None, "train")
    pixels = centre_clip(source.read(0, frames, 0.0), crop)
    clip = torch.from_numpy(pixels).float().div(127.5).sub(1).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        latents = vae.encode(clip).latent_dist.mode()
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4)).clamp_min(1e-6)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    part = folder.with_suffix(".part")
    vae.half().save_pretrained(part)
    part.rename(folder)
    return folder


def encode_cuts(
    arguments: argparse.Namespace, teacher: Path, clips: Path, crop: tuple[int, int]
) -> list[Drawn]:
    """The cuts with their latents, the same ones that training draws from."""
    out = arguments.work / "latents"
    encode(
        EncodeConfig(
            teacher=str(teacher),
            clips=clips,
            out=out,
            cuts=arguments.cuts,
            frames=arguments.frames,
            crop=crop,
            device="cpu",
        )
    )
    config = load_teacher(teacher).config
    cache = LatentCache(
        *(out, open_source(clips, None, "train"), LatentStats.of(config)),
        codec=codec_of(config),
        vae_hash=hash_vae_folder(teacher),
        frames=arguments.frames,
        crop=crop,
        seed=0,
        refused=lambda name, error: print(f"{name}: {error}"),
    )
    found: dict[bytes, Drawn] = {}
    for slot in range(40 * arguments.cuts):
        one = cache.draw(0, slot)
        found.setdefault(one.frames.tobytes(), one)
    return list(found.values())


if __name__ == "__main__":
    command(main)
