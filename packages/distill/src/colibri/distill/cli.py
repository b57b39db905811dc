"""The `distill` command: parse, call one function, print. Heavy imports wait until used."""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from colibri.core.commands import Command, Program
from colibri.core.config import parse_with_toml, to_table, toml_flag
from colibri.core.errors import UserError

if TYPE_CHECKING:
    from colibri.distill.config import TrainConfig
    from colibri.distill.stages import Stages

DESCRIPTION = "Step distillation: a Wan video model's student that needs three steps and no CFG."
RECIPES = Path(__file__).parent / "recipes"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `distill`."""
    return Program("distill", DESCRIPTION, COMMANDS).main(argv)


def recipe(name: str) -> Path:
    """A TOML file by path, or a shipped recipe by name."""
    if Path(name).suffix == ".toml" or Path(name).is_file():
        return Path(name)
    path = RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in RECIPES.glob("*.toml")))
        raise UserError(f"there is no recipe {name!r}", hint=f"a TOML file, or one of {known}")
    return path


def _train(argv: list[str]) -> int:
    from colibri.distill.stages import read_stages, train_stages

    toml, rest = toml_flag(argv)
    show = "--print-config" in rest
    stages = read_stages(
        recipe(str(toml)) if toml else recipe("tiny"),
        [flag for flag in rest if flag != "--print-config"],
        description="Distil. --config FILE.toml or a recipe's name sits below the flags; "
        "--print-config shows what results. Stopped at any moment, the same command goes on.",
    )
    if show:
        tables = {name: to_table(config) for name, config in stages.items()}
        print(json.dumps(tables.get("", tables), indent=2))
        return 0
    if any(config.plan for config in stages.values()):
        return _print_plans(stages, device=None, processes=1, as_json=False)
    from colibri.distill.train import train

    if toml is None and stages[""].encoded is None:
        print("No --config: the recipe `tiny`, on prompts of the small embedded world.")
    plain = stages.get("")
    folder = train(plain, say=print) if plain else train_stages(stages, say=print)
    if folder:
        print(f"student   {folder}")
    return 0


def _ode_pairs(argv: list[str]) -> int:
    from colibri.distill.stages import read_stages

    toml, rest = toml_flag(argv)
    stages = read_stages(
        recipe(str(toml)) if toml else recipe("tiny-long"),
        rest,
        prog="distill ode-pairs",
        description="The teacher's guided paths of the first --pairs.rows rows, in files, as "
        "distill train of the same recipe would make them. Stopped at any moment, the same command "
        "goes on.",
    )
    from colibri.distill.setup import write_pairs

    with _shards_told("ode-pairs") as on_shard:
        pairs = write_pairs(_with_pairs(stages), on_shard=on_shard)
    print(f"{len(pairs.shard_of):,} paths, {pairs.made:,} files made now")
    print(f"written     {pairs.folder}")
    return 0


def _with_pairs(stages: "Stages") -> "TrainConfig":
    """The first stage that reads paths from files, or the recipe itself."""
    wants = [config for config in stages.values() if config.pairs.rows > 0]
    if not wants:
        raise UserError("this recipe reads no paths from files", hint="pass --pairs.rows N")
    return wants[0]


def _encode(argv: list[str]) -> int:
    from colibri.distill.config import EncodeConfig

    config = parse_with_toml(
        EncodeConfig,
        argv,
        prog="distill encode",
        description="Text embeddings and first-frame latents of curated shards, once. Stopped at "
        "any moment, the same command goes on.",
    )
    from colibri.distill.encode import encode

    with _shards_told("encode") as on_shard:
        made = encode(config, on_shard=on_shard)
    manifest = made.manifest
    rows = sum(len(shard.rows) for shard in manifest.shards)
    frames = sum(len(shard.with_frame) for shard in manifest.shards)
    print(f"{rows:,} rows, {frames:,} with a first frame, {len(manifest.refused):,} refused")
    print(f"encoded now {made.encoded:,}, found {made.found:,}")
    print(f"written     {config.out}")
    return 0


@contextmanager
def _shards_told(what: str) -> Iterator[Callable[..., None]]:
    """A progress line; gives what is called with how many are done, were found and are refused, all
    so far."""
    from colibri.core.progress import Progress

    progress = Progress(what, None)
    before = refused_before = 0

    def on_shard(done: int, found: int, refused: int = 0) -> None:
        nonlocal before, refused_before
        progress.add(done - before, refused=refused - refused_before, facts={"found": found})
        before, refused_before = done, refused

    yield on_shard
    progress.close()


def _plan(argv: list[str]) -> int:
    from colibri.distill.stages import read_stages

    own = argparse.ArgumentParser(prog="distill plan", add_help=False)
    own.add_argument("--on", default=None)
    own.add_argument("--processes", type=int, default=1)
    own.add_argument("--json", action="store_true")
    ours, rest = own.parse_known_args(argv)
    toml, rest = toml_flag(rest)
    stages = read_stages(
        recipe(str(toml)) if toml else recipe("tiny"),
        rest,
        prog="distill plan",
        description="Gigabytes by part and seconds a step of `distill train` with these flags. "
        "Also: --on DEVICE (h200, mi325x, rtx4090, ...; this machine's when left out), "
        "--processes N, --json. Exit status 1 where it does not fit.",
    )
    return _print_plans(stages, device=ours.on, processes=ours.processes, as_json=ours.json)


def _print_plans(stages: "Stages", *, device: str | None, processes: int, as_json: bool) -> int:
    from colibri.distill.plan import known_device, plan, table

    device = device or known_device()
    if device is None:
        raise UserError("this accelerator is not in the table", hint="name a like one with --on")
    plans = {name: plan(one, device=device, processes=processes) for name, one in stages.items()}
    if as_json:
        tables = {name: table(found) for name, found in plans.items()}
        print(json.dumps(tables.get("", tables), indent=2))
    else:
        titled = (f"stage {name}: {p.text()}" if name else p.text() for name, p in plans.items())
        print("\n\n".join(titled))
    return 0 if all(found.fits for found in plans.values()) else 1


def _info(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="distill info", description="Say what a run's folder, or a student's, holds."
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="--out of distill train, or STUDENT"
    )
    arguments = parser.parse_args(argv)
    from colibri.distill.about import about

    print(json.dumps(about(arguments.folder), indent=2, ensure_ascii=False))
    return 0


COMMANDS = {
    "train": Command(
        _train, "distil a teacher into a few-step student; the recipe `tiny` without --config"
    ),
    "encode": Command(_encode, "text embeddings and first-frame latents of curated shards, once"),
    "ode-pairs": Command(_ode_pairs, "the teacher's paths from noise to clip, in files, once"),
    "plan": Command(_plan, "gigabytes by part and seconds a step, before a run is started"),
    "info": Command(_info, "what a run's folder or a student's folder holds"),
}
