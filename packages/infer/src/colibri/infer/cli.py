"""The `infer` command: parse, call one function, print. Heavy imports wait until they are used."""

import argparse
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from colibri.core.commands import Command, Program
from colibri.core.config import parse, parse_with_toml, toml_flag
from colibri.core.errors import UserError

if TYPE_CHECKING:
    from colibri.infer.config import RenderConfig
    from colibri.infer.together import Team

DESCRIPTION = "Videos from text and images with Wan models, each with its recipe inside."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `infer`."""
    commands = COMMANDS
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        commands = {
            name: Command(functools.partial(_one_of_several, name), one.summary)
            for name, one in COMMANDS.items()
        }
    return Program("infer", DESCRIPTION, commands).main(argv)


def _one_of_several(name: str, argv: list[str]) -> int:
    """In each of the processes that torchrun starts."""
    from colibri.infer import together

    def command(team: "Team") -> int:
        if name not in SHARED:
            raise UserError(
                f"infer {name} is done by one process, not shared by {team.size}",
                hint="start it without torchrun",
            )
        return SHARED[name](argv, team)

    return together.run(command)


def _t2v(argv: list[str], team: "Team | None" = None) -> int:
    from colibri.infer.config import T2vConfig

    config = parse_with_toml(
        T2vConfig,
        argv,
        prog="infer t2v",
        description="Videos from text. --config FILE.toml sits below the flags. Stopped at any "
        "moment, the same command goes on.",
    )
    return _render(config, team)


def _i2v(argv: list[str], team: "Team | None" = None) -> int:
    from colibri.infer.config import I2vConfig

    config = parse_with_toml(
        I2vConfig,
        argv,
        prog="infer i2v",
        description="Videos that begin with an image. --config FILE.toml sits below the flags. "
        "Stopped at any moment, the same command goes on.",
    )
    return _render(config, team)


def _render(config: "RenderConfig", team: "Team | None") -> int:
    from colibri.infer.generate import generate, plan

    if config.plan:
        print(plan(config, say=_say))
    else:
        generate(config, say=_say, team=team)
    return 0


def _long(argv: list[str]) -> int:
    from colibri.infer.long_config import LongConfig

    config = parse_with_toml(
        LongConfig,
        argv,
        prog="infer long",
        description="A video of any length by a causal student, block after block; it can be "
        "played while it is made. --config FILE.toml sits below the flags. Stopped at any moment, "
        "the same command goes on.",
    )
    from colibri.infer.long import make_long, plan

    if config.plan:
        print(plan(config, say=_say))
    else:
        make_long(config, say=_say)
    return 0


def _decode(argv: list[str]) -> int:
    from colibri.infer.config import DecodeConfig

    path, rest = _operand(argv)
    toml, rest = toml_flag(rest)
    config = parse(
        DecodeConfig,
        rest,
        prog="infer decode LATENTS",
        description="Make the video of latents that a stopped render has left.",
        toml=toml,
    )
    from colibri.infer.finish import decode_file

    decode_file(_given(path, "infer decode LATENTS"), config, say=_say)
    return 0


def _replay(argv: list[str]) -> int:
    from colibri.infer.config import ReplayConfig

    path, rest = _operand(argv)
    config = parse(
        ReplayConfig,
        rest,
        prog="infer replay VIDEO",
        description="Make a video's frames again from the recipe inside it, and say whether they "
        "are identical. Writes nothing; exit status 1 where they differ.",
        toml=None,
    )
    from colibri.infer.replay import replay

    found = replay(_given(path, "infer replay VIDEO"), config, say=_say)
    print(found.text())
    return 0 if found.identical else 1


def _info(argv: list[str]) -> int:
    from colibri.infer.config import InfoConfig

    model, rest = _operand(argv)
    if model is not None:
        rest = [*rest, "--model", str(model)]
    config = parse(
        InfoConfig,
        rest,
        prog="infer info MODEL",
        description="Say what a model is, how it is run, and what it needs; with --vram where "
        "everything would live, and what a light decoder is. Loads none of the model's weights.",
        toml=None,
    )
    from colibri.infer.about import describe, find, plans
    from colibri.infer.light import find_decoder

    source = find(config, say=_say)
    decoder = find_decoder(config.decoder, source, say=_say)
    print("\n".join([describe(source, decoder), *plans(source, config, decoder)]))
    return 0


def _bench(argv: list[str]) -> int:
    from colibri.infer.config import BenchConfig

    config = parse_with_toml(
        BenchConfig,
        argv,
        prog="infer bench",
        description="Time and peak memory of a video, stage by stage, cold and warm.",
    )
    from colibri.infer.bench import bench, text

    print(text(bench(config, say=_say)))
    print(f"{config.json}")
    return 0


def _quantize(argv: list[str]) -> int:
    from colibri.infer.config import QuantizeConfig

    model, rest = _operand(argv)
    toml, rest = toml_flag(rest)
    if model is not None:
        rest = [*rest, "--model", str(model)]
    config = parse(
        QuantizeConfig,
        rest,
        prog="infer quantize MODEL",
        description="A model folder with few-bit weights that loads anywhere, and a report of what "
        "each layer lost. Without MODEL: the embedded tiny model.",
        toml=toml,
    )
    from colibri.infer.quantize import quantize, text

    print(text(quantize(config, say=_say)))
    return 0


def _convert(argv: list[str]) -> int:
    from colibri.infer.config import ConvertConfig

    source, rest = _operand(argv)
    config = parse(
        ConvertConfig,
        rest,
        prog="infer convert SOURCE",
        description="A model folder of Wan's own files, of a training checkpoint (.pt, read as "
        "plain tensors), of another diffusers folder, or of a LoRA file and its model.",
        toml=None,
    )
    from colibri.infer.convert import convert, text

    given = _given(source, "infer convert SOURCE --out FOLDER")
    print(text(convert(given, config, say=_say)))
    return 0


def _doctor(argv: list[str]) -> int:
    from colibri.infer.config import DoctorConfig

    config = parse(
        DoctorConfig,
        argv,
        prog="infer doctor",
        description="What this machine has, what of it is slow or broken and how to mend it. Times "
        "convolution, attention and matrix products, and saves what is fastest for generation.",
        toml=None,
    )
    import json

    from colibri.infer.doctor import doctor, text, to_json

    if config.json:
        print(json.dumps(to_json(doctor(config, say=lambda _: None)), indent=1))
    else:
        print(text(doctor(config, say=_say)))
    return 0


def _gallery(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="infer gallery",
        description="One HTML page of a folder's videos with prompts, recipes and scores.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of videos")
    parser.add_argument("--out", type=Path, help="the page (DIR/gallery.html)")
    parser.add_argument("--title", default="Videos", help="heading of the page")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--embed", action="store_const", const=True, help="videos inside the page, however large"
    )
    how.add_argument(
        "--link", dest="embed", action="store_const", const=False, help="videos beside the page"
    )
    parser.add_argument(
        "--score",
        action="store_true",
        help="score the tiny models' videos of coloured shapes first, into the JSON beside each",
    )
    arguments = parser.parse_args(argv)
    from colibri.infer.gallery import write_gallery

    print(
        write_gallery(
            arguments.folder,
            arguments.out,
            embed=arguments.embed,
            title=arguments.title,
            score=arguments.score,
        )
    )
    return 0


def _serve(argv: list[str]) -> int:
    from colibri.infer.config import ServeConfig

    config = parse_with_toml(
        ServeConfig,
        argv,
        prog="infer serve",
        description="A page in the browser to make videos on, on this machine alone unless --host "
        "says otherwise. --config FILE.toml sits below the flags.",
    )
    from colibri.infer.serve import serve

    serve(config, say=_say)
    return 0


def _operand(argv: list[str]) -> tuple[Path | None, list[str]]:
    """Take the first argument, where it is no flag, off the others."""
    if argv and not argv[0].startswith("-"):
        return Path(argv[0]), argv[1:]
    return None, argv


def _given(path: Path | None, usage: str) -> Path:
    if path is None:
        raise UserError("a file is missing", hint=f"usage: {usage} [FLAGS]")
    return path


def _say(text: str) -> None:
    print(text, flush=True)


COMMANDS = {
    "t2v": Command(_t2v, "videos from text; the embedded tiny model without --model"),
    "i2v": Command(_i2v, "videos that begin with an image"),
    "long": Command(_long, "a video of any length, block after block, to watch while it is made"),
    "replay": Command(_replay, "make a video's frames again from its recipe, and compare"),
    "decode": Command(_decode, "finish a render from its latents"),
    "info": Command(_info, "what a model is, how it is run, what it needs"),
    "bench": Command(_bench, "time and memory of a video, stage by stage"),
    "quantize": Command(_quantize, "a model with 8-bit or 4-bit weights, and what that costs"),
    "convert": Command(
        _convert, "weights of another layout into a model folder; LoRA files merged"
    ),
    "doctor": Command(
        _doctor, "what is slow or broken here, its mend, and a profile of the device"
    ),
    "gallery": Command(_gallery, "an HTML page of a folder's videos, with their scores"),
    "serve": Command(_serve, "a page in the browser to make videos on"),
}

SHARED: dict[str, Callable[[list[str], "Team | None"], int]] = {"t2v": _t2v, "i2v": _i2v}
"""What several processes can do together."""
