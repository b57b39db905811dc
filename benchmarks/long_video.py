"""Seconds and memory of a long video, growing length: a key cache against computing all again.

Both make the same blocks with the same noise, in one process, by turns. Cached: `infer long`'s own
loop, each block decoded, compressed and on disk (on a GPU while the next is denoised). Recomputed:
every step of a block is a block-causal pass over the whole clip so far, without a cache; at the end
the clip is decoded at once and written. Last step: denoising as cached, by a model that sees the
past as it went into its last step, so that no pass writes the cache. Weights, and the prompt's
embedding, are random: neither time nor memory depends on them. Not included: loading, the text
encoder. On a GPU at full size:

    python benchmarks/long_video.py --family wan2.1-t2v-1.3b --block 3 --window 9 --sink 3 \\
        --timesteps 1000,750,500,250 --frames 9,33,81,321 --recompute-up-to 81 --dtype bfloat16 \\
        --vae-dtype bfloat16
"""

import argparse
import importlib.metadata
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch
from colibri.core import wan
from colibri.core.config import to_table
from colibri.core.geometry import parse_size
from colibri.core.schedule import FlowSchedule, add_noise, x0_from_velocity
from colibri.core.shards import write_json_whole
from colibri.core.video import write_video
from colibri.core.wan.attention import Prompt
from colibri.core.wan.causal import clip_velocity
from colibri.core.wan.decoder import to_frames
from colibri.core.wan.family import FAMILIES, Causal
from colibri.core.wan.model import DType, build_part, kept_in_float32
from colibri.core.wan.rollout import seeded_noise
from colibri.infer.bench import peak_resident_bytes
from colibri.infer.blocks import BlockStore
from colibri.infer.long_recipe import Rollout, Scene, cache_bytes
from colibri.infer.long_rollout import rolled
from colibri.infer.long_stream import stream_to
from colibri.infer.models import device_name
from colibri.infer.recipe import ModelUse, Recipe
from rows import command

PROMPT = "random"


def main() -> None:
    """Every length both ways, a table, the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=sorted(FAMILIES), default="tiny-t2v")
    parser.add_argument("--size", type=parse_size, default=None, help="WIDTHxHEIGHT")
    parser.add_argument("--frames", default="9,33,65,129", help="of the videos, rounded up")
    parser.add_argument("--recompute-up-to", type=int, default=None, help="frames; without: all")
    parser.add_argument("--block", type=int, default=2, help="latent frames; the first block is 1")
    parser.add_argument("--window", type=int, default=6)
    parser.add_argument("--sink", type=int, default=1)
    parser.add_argument("--store", choices=["same", "int8", "fp8"], default="same")
    parser.add_argument("--timesteps", default="1000,750,500,250", help="before the shift of 5")
    parser.add_argument(
        "--attention",
        choices=["blocks", "mask"],
        default="blocks",
        help="of the passes over the whole clip: block by block in each layer, or one dense mask",
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vae-dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3, help="after one that is not counted")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/long_video.json"))
    arguments = parser.parse_args()
    model = _model(arguments)
    text = _text(model)
    lengths = [int(one) for one in arguments.frames.split(",")]
    rows = []
    print(f"{'':>8}{'denoise s':^36}{'whole s':^18}{'first frame s':^18}{'cached':^18}")
    ways = ("cached", "again")
    head = (*ways, "times", "last", *ways, *ways, "fps", "cache MB")
    print(f"{'frames':>8}" + "".join(f"{word:>9}" for word in head) + f"{'difference':>12}")
    for wanted in lengths:
        recipe = _recipe(model, arguments, wanted)
        again = arguments.recompute_up_to is None or wanted <= arguments.recompute_up_to
        row = measure(model, recipe, text, arguments, again=again)
        rows.append(row)
        cached, other = row["cached"], row["recomputed"]
        figures = [
            *_pair("denoise_s", cached, other),
            other["denoise_s"] / cached["denoise_s"] if other else None,
            row["last_step_denoise_s"],
            *_pair("seconds", cached, other),
            *_pair("first_frame_s", cached, other),
            cached["frames_per_s"],
            row["cache_bytes"] / 1e6,
        ]
        told = "".join(f"{'-' if one is None else f'{one:.3g}':>9}" for one in figures)
        print(f"{row['frames']:>8}{told}{row.get('largest_difference', 0):>12.1e}", flush=True)
    write_json_whole(arguments.out, _table(arguments, rows))
    print(arguments.out)


def measure(
    model: wan.WanModel,
    recipe: Recipe,
    text: torch.Tensor,
    arguments: argparse.Namespace,
    *,
    again: bool,
) -> dict[str, Any]:
    """Medians of one length; `again` measures computing all again too."""
    ways = {"cached": _cached} | ({"recomputed": _recomputed} if again else {})
    found: dict[str, list[dict[str, float]]] = {"cached": [], "recomputed": []}
    made: dict[str, torch.Tensor] = {}
    last_steps: list[float] = []
    for counted in range(arguments.rounds + 1):
        for way, run in ways.items():
            denoise_s, made[way] = _denoised(way, model, recipe, text, arguments.attention)
            _reset_peak(model)
            figures = run(model, recipe, text, arguments.attention)
            if counted:
                found[way].append(figures | {"denoise_s": denoise_s, "peak_bytes": _peak(model)})
        denoise_s, _ = _denoised("cached", model, _last_step(recipe), text, arguments.attention)
        if counted:
            last_steps.append(denoise_s)
    row: dict[str, Any] = {
        "frames": recipe.frames,
        "latent_frames": model.family.latent_shape(recipe.video).frames,
        "tokens": model.family.tokens(recipe.video),
        "cache_bytes": cache_bytes(model.family, recipe),
        "last_step_denoise_s": statistics.median(last_steps),
    }
    for way, rounds in found.items():
        names = rounds[0] if rounds else ()
        medians = {name: statistics.median(one[name] for one in rounds) for name in names}
        row[way] = medians | {"all_s": [one["seconds"] for one in rounds]} if rounds else None
    if again:
        row["largest_difference"] = float((made["cached"] - made["recomputed"]).abs().max())
    return row


def _last_step(recipe: Recipe) -> Recipe:
    """The same by a model whose `past` is its last step."""
    rollout = Rollout.of(recipe)
    kept = replace(rollout, causal=to_table(replace(rollout.form, past="last_step")))
    return replace(recipe, long=to_table(kept))


@torch.no_grad()
def recomputed(
    model: wan.WanModel,
    recipe: Recipe,
    text: torch.Tensor,
    attention: Literal["blocks", "mask"] = "blocks",
) -> torch.Tensor:
    """Normalised latents (1, C, T, H, W) without a cache: each step passes over the whole clip."""
    network, flow = model.transformer, recipe.flow
    causal = Rollout.of(recipe).form
    shape = model.family.latent_shape(recipe.video)
    noise = seeded_noise([recipe.seed], device=network.device)
    prompt = Prompt.of(network, text)
    made = torch.zeros(1, shape.channels, 0, shape.height, shape.width, device=network.device)
    for index, (start, end) in enumerate(causal.blocks(shape.frames)):
        size = (1, shape.channels, end - start, shape.height, shape.width)
        x = noise(index, 0, size)
        for step in range(flow.steps):
            levels = torch.zeros(1, end, dtype=torch.float64)
            levels[:, start:] = flow.timesteps[step]
            clip = torch.cat([made, x], dim=2)
            predicted = clip_velocity(
                network,
                clip,
                levels / 1000,
                prompt,
                causal,
                timestep=levels,
                attention=attention,
            )[:, :, start:]
            estimate = x0_from_velocity(x, predicted, flow.sigmas[step])
            if step + 1 < flow.steps:
                x = add_noise(estimate, noise(index, step + 1, size), flow.sigmas[step + 1])
        made = torch.cat([made, estimate], dim=2)
    return made


def _denoised(
    way: str,
    model: wan.WanModel,
    recipe: Recipe,
    text: torch.Tensor,
    attention: Literal["blocks", "mask"],
) -> tuple[float, torch.Tensor]:
    """Seconds and latents of denoising alone."""
    _wait(model)
    begin = time.perf_counter()
    if way == "recomputed":
        latents = recomputed(model, recipe, text, attention)
    else:
        blocks = rolled(model, recipe, {PROMPT: text}, None)
        latents = torch.cat([one.latents_BCTHW for one in blocks], dim=2)
    _wait(model)
    return time.perf_counter() - begin, latents


def _cached(
    model: wan.WanModel, recipe: Recipe, text: torch.Tensor, _: Literal["blocks", "mask"]
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        store = BlockStore(
            Path(folder) / "v.blocks",
            fingerprint=recipe.fingerprint,
            codec=model.family.codec,
            vae_hash=recipe.model.vae,
        )
        _wait(model)
        begin = time.perf_counter()
        speed = stream_to(
            Path(folder) / "v.growing.mp4", store, model, recipe, {PROMPT: text}, None
        )[1]
        seconds = time.perf_counter() - begin
    assert speed is not None
    return {
        "seconds": seconds,
        "frames_per_s": speed.frames_per_s,
        "first_frame_s": speed.first_frame_s,
    }


def _recomputed(
    model: wan.WanModel,
    recipe: Recipe,
    text: torch.Tensor,
    attention: Literal["blocks", "mask"],
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        _wait(model)
        begin = time.perf_counter()
        latents = recomputed(model, recipe, text, attention)
        raw = model.family.stats.unnormalise(latents).to(model.vae.dtype)
        frames = to_frames(model.vae.decode(raw).sample)[0]
        write_video(
            Path(folder) / "v.mp4",
            iter(frames),
            fps=Fraction(recipe.fps),
            preset="veryfast",
            exact=True,
        )
        seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "frames_per_s": recipe.frames / seconds,
        "first_frame_s": seconds,
    }


def _pair(name: str, cached: dict[str, float], other: dict[str, float] | None) -> list[Any]:
    return [cached[name], other[name] if other else None]


def _model(arguments: argparse.Namespace) -> wan.WanModel:
    family = replace(
        FAMILIES[arguments.family],
        causal=Causal(
            first_block=1, block=arguments.block, sink=arguments.sink, window=arguments.window
        ),
    )
    torch.manual_seed(0)
    return wan.WanModel(
        family=family,
        transformer=_part(family, "transformer", arguments.dtype, arguments.device),
        vae=_part(family, "vae", arguments.vae_dtype, arguments.device),
        schedule=FlowSchedule.listed(
            [float(one) for one in arguments.timesteps.split(",")], shift=5
        ),
    )


def _part(family: wan.ModelFamily, part: str, dtype: DType, device: str) -> Any:
    """Random weights in the dtypes that `wan.load` gives: some stay in float32."""
    with torch.device(device):
        network = build_part(family, part).eval()
    full = kept_in_float32(network, part, dtype)
    for name, weight in network.named_parameters():
        if not full & set(name.split(".")):
            weight.data = weight.data.to(getattr(torch, dtype))
    return network


def _text(model: wan.WanModel) -> torch.Tensor:
    tokens, width = model.family.defaults.text_tokens, model.family.transformer["text_dim"]
    draw = torch.Generator().manual_seed(0)
    return torch.randn(1, tokens, width, generator=draw).to(model.transformer.device)


def _recipe(model: wan.WanModel, arguments: argparse.Namespace, wanted: int) -> Recipe:
    family = model.family
    causal, time_step = family.causal, family.codec.time
    assert causal is not None
    assert model.schedule is not None
    latents = -(-(wanted - 1) // time_step) + 1
    blocks = 1 + -(-(latents - 1) // causal.block)
    height, width = arguments.size or (family.defaults.height, family.defaults.width)
    scene = Scene(at_s=0.0, block=0, prompt=PROMPT, prompt_used=PROMPT, recap="off")
    rollout = Rollout(
        causal=to_table(causal),
        blocks=blocks,
        store=arguments.store,
        switch="keep",
        scenes=(scene,),
    )
    return Recipe(
        prompt=PROMPT,
        prompt_used=PROMPT,
        recap="off",
        negative_prompt="",
        seed=0,
        width=width,
        height=height,
        frames=(blocks - 1) * causal.block * time_step + 1,
        fps=family.defaults.fps,
        sampler="consistency",
        guidance=1.0,
        schedule=model.schedule.to_json(),
        dtype=arguments.dtype,
        vae_dtype=arguments.vae_dtype,
        image=None,
        image_sha256=None,
        loras=(),
        attention=None,
        compile=False,
        model=ModelUse(
            source="random weights",
            revision=None,
            family=family.name,
            text_encoder="",
            transformer="",
            vae="",
        ),
        long=to_table(rollout),
    )


def _wait(model: wan.WanModel) -> None:
    if model.transformer.device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(model: wan.WanModel) -> None:
    if model.transformer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak(model: wan.WanModel) -> int:
    if model.transformer.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return peak_resident_bytes()


def _table(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("torch", "diffusers", "av")
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "device": device_name(arguments.device),
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in names},
        "settings": settings,
        "includes": {
            "cached": "noise, all steps and cache writes, decoding, H.264, writing and flushing "
            "to disk of each block, its latents kept on disk; frames_per_s after the first block",
            "recomputed": "noise, all steps over the whole clip so far, one decode of the whole "
            "clip, H.264 at the same preset; frames_per_s of all",
        },
        "rows": rows,
    }


if __name__ == "__main__":
    command(main)
