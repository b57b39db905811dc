"""The `vae` command: parse, call one function, print. Heavy imports wait until they are used."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from colibri.core.commands import Command, Program
from colibri.core.config import parse, parse_with_toml, toml_flag
from colibri.core.geometry import parse_size

TINY_RECIPE = Path(__file__).parent / "recipes" / "tiny.toml"
DESCRIPTION = "Light decoders for a frozen Wan VAE: train, measure, load, export."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `vae`."""
    return Program("vae", DESCRIPTION, COMMANDS).main(argv)


def _train(argv: list[str]) -> int:
    from colibri.vae.config import TrainConfig

    toml, rest = toml_flag(argv)
    if toml is None and not any(part.split("=")[0] == "--teacher" for part in rest):
        toml = TINY_RECIPE
    config = parse(
        TrainConfig,
        rest,
        prog="vae train",
        description="Train a light decoder for a frozen Wan VAE. --config FILE.toml sits below the "
        "flags; without it and without --teacher the tiny recipe does. Stopped at any moment, the "
        "same command goes on.",
        toml=toml,
    )
    if config.teacher is None:
        print("No --teacher: the tiny Wan VAE of the small world, and the tiny recipe.")
    from colibri.vae.plan import plan
    from colibri.vae.train import train

    if config.plan:
        print(plan(config))
        return 0
    if config.clips is None:
        print("No --clips: rendered clips of the small world.")
    trained = train(config)
    if trained.folder is None:
        if trained.step < config.steps:
            again = "the same command without --stop-after goes on"
            print(f"stopped after step {trained.step}; {again}")
        return 0
    print(f"decoder   {trained.folder}    colibri.vae.load_decoder({str(trained.folder)!r})")
    print(f"weights   sha256 {trained.sha256}")
    return 0


def _encode(argv: list[str]) -> int:
    from colibri.vae.config import EncodeConfig

    config = parse_with_toml(
        EncodeConfig,
        argv,
        prog="vae encode",
        description="Keep a Wan VAE's latents of random cuts of clips, for vae train --latents. "
        "Stopped at any moment, the same command goes on.",
    )
    if config.teacher is None:
        print("No --teacher: the tiny Wan VAE of the small world.")
    from colibri.vae.encode import encode, plan

    if config.plan:
        print(plan(config))
        return 0
    if config.clips is None:
        print("No --clips: rendered clips of the small world.")
    done = encode(config)
    print(f"latents   {done.folder}    {done.shards} shards")
    print(f"cuts      {done.cuts} = {done.kept} kept + {done.refused} refused")
    return 0


def _bench(argv: list[str]) -> int:
    from colibri.vae.config import BenchConfig

    config = parse_with_toml(
        BenchConfig,
        argv,
        prog="vae bench",
        description="Time, work, rate and peak memory of decoders in one run, growing length.",
    )
    from colibri.vae.bench import bench

    bench(config)
    if config.out:
        print(f"figures   {config.out}")
    return 0


def _evaluate(argv: list[str]) -> int:
    from colibri.vae.config import EvaluateConfig

    config = parse_with_toml(
        EvaluateConfig,
        argv,
        prog="vae evaluate",
        description="Measure decoders against their teacher: PSNR, SSIM, flicker, seams, time.",
    )
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or torch's profiler tells of every start
    from colibri.vae.evaluate import evaluate, table, too_many_seams

    rows = evaluate(config)
    print(table(rows))
    if config.out:
        print(f"figures   {config.out}")
    if config.html:
        print(f"page      {config.html}")
    if config.max_seams is not None and (said := too_many_seams(rows, config.max_seams)):
        print(f"error: {said}", file=sys.stderr)
        return 1
    return 0


def _info(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vae info",
        description="What a decoder folder is, or with --sizes what light decoders of a teacher "
        "would be; as JSON.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="decoder, or teacher with --sizes")
    parser.add_argument("--frames", type=int, default=121, help="frames of the video costed (121)")
    parser.add_argument("--size", default="1280x704", help="its size (1280x704)")
    parser.add_argument("--sizes", action="store_true", help="every named size for this teacher")
    arguments = parser.parse_args(argv)
    size = parse_size(arguments.size)
    from colibri.vae.info import describe, sizes

    if arguments.sizes:
        from colibri.vae.load import read_config, teacher_folder

        config = read_config(teacher_folder(arguments.folder))
        for row in sizes(config, frames=arguments.frames, size=size):
            print(json.dumps(row))
        return 0
    print(json.dumps(describe(arguments.folder, frames=arguments.frames, size=size), indent=2))
    return 0


def _export(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vae export", description="Write a decoder folder from a run's checkpoint."
    )
    parser.add_argument("run", type=Path, metavar="OUT", help="output folder of vae train")
    parser.add_argument("folder", type=Path, metavar="DIR", help="decoder folder to write")
    parser.add_argument("--teacher", required=True, help="folder or hub id of the run's teacher")
    parser.add_argument("--step", type=int, default=None, help="checkpoint (the newest)")
    parser.add_argument(
        "--weights", choices=["averaged", "raw"], default="averaged", help="which (averaged)"
    )
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="(float32)"
    )
    arguments = parser.parse_args(argv)
    import torch

    from colibri.vae.info import export

    sha256 = export(
        arguments.run,
        arguments.folder,
        teacher=arguments.teacher,
        step=arguments.step,
        averaged=arguments.weights == "averaged",
        dtype=getattr(torch, arguments.dtype),
    )
    print(f"decoder   {arguments.folder}")
    print(f"weights   sha256 {sha256}")
    return 0


COMMANDS = {
    "encode": Command(_encode, "a Wan VAE's latents of clips, kept for training"),
    "train": Command(_train, "a light decoder from a frozen Wan VAE and clips"),
    "evaluate": Command(_evaluate, "decoders side by side: PSNR, SSIM, flicker, seams, ms a frame"),
    "eval": Command(_evaluate, "the same as evaluate"),
    "bench": Command(_bench, "time, work, rate and peak memory of decoders, growing length"),
    "info": Command(_info, "codec, reach, parameters and cost of a decoder folder, as JSON"),
    "export": Command(_export, "a decoder folder from a run's checkpoint"),
}
