"""`colibri NAME ...` is `NAME ...`: found among the installed console commands, so that only what
is installed is offered. Beside them, what concerns the whole chain: lineage, scores, the report."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from colibri.core.config import parse_with_toml, run_command

NAMES = ("curate", "vae", "distill", "infer", "testbed")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `colibri`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {entry.name: entry for entry in entry_points(group="console_scripts")}
    if not arguments or arguments[0] in ("-h", "--help"):
        installed = [name for name in NAMES if name in commands]
        print(_usage(installed))
        return 0 if arguments else 2
    name, *rest = arguments
    if name in OWN:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        return run_command(lambda: OWN[name](rest))
    if name not in NAMES:
        print(f"error: colibri has no command {name!r}; see colibri --help", file=sys.stderr)
        return 2
    if name not in commands:
        print(f"error: {name} is not installed; pip install colibri-{name}", file=sys.stderr)
        return 2
    status: int = commands[name].load()(rest)
    return status


def _lineage(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="colibri lineage",
        description="Where a file comes from: a video's model, its teacher, its encodings, their "
        "shards and source rows, each link checked by hash.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a video, or any folder of a run")
    parser.add_argument(
        "--among",
        type=Path,
        action="append",
        metavar="DIR",
        help="where its parents are looked for; may be given several times (this folder where "
        "FILE lies in it, else FILE's)",
    )
    parser.add_argument("--rows", type=int, default=3, help="source rows to show (3)")
    parser.add_argument("--json", action="store_true", help="the whole of it as JSON")
    arguments = parser.parse_args(argv)
    from colibri.umbrella.lineage import text, to_json, trace

    found = trace(arguments.file, arguments.among)
    print(
        json.dumps(to_json(found), indent=2, ensure_ascii=False)
        if arguments.json
        else text(found, rows=arguments.rows)
    )
    return 0


def _score(argv: list[str]) -> int:
    from colibri.umbrella.score import ScoreConfig, text, write_scores

    config = parse_with_toml(
        ScoreConfig,
        argv,
        prog="colibri score",
        description="Scores of several models' videos side by side, a folder for each model.",
    )
    print(text(write_scores(config)))
    print(f"scores    {config.out}")
    return 0


def _report(argv: list[str]) -> int:
    from colibri.umbrella.report import ReportConfig, write_report

    config = parse_with_toml(
        ReportConfig,
        argv,
        prog="colibri report",
        description="One HTML page of a pipeline's folder: videos side by side, scores, times, "
        "sizes, lineage.",
    )
    print(f"page      {write_report(config)}")
    return 0


def _world(argv: list[str]) -> int:
    from colibri.umbrella.world import WorldConfig, write_world

    config = parse_with_toml(
        WorldConfig,
        argv,
        prog="colibri world",
        description="A data set of rendered clips in the layout of OpenVid, for trying the chain.",
    )
    print(f"{config.clips:,} clips in {write_world(config)}")
    return 0


def _inputs(argv: list[str]) -> int:
    from colibri.umbrella.inputs import InputsConfig, write_inputs

    config = parse_with_toml(
        InputsConfig,
        argv,
        prog="colibri inputs",
        description="Hashes of a teacher's parts and versions of the packages, in a file.",
    )
    print(f"inputs    {write_inputs(config)}")
    return 0


OWN: dict[str, Callable[[list[str]], int]] = {
    "lineage": _lineage,
    "score": _score,
    "report": _report,
    "world": _world,
    "inputs": _inputs,
}

_SUMMARIES = {
    "lineage": "from a video back to its model, teacher, shards and source rows",
    "score": "scores of several models' videos side by side",
    "report": "one HTML page of a pipeline's folder",
    "world": "a data set of rendered clips, to try the chain with",
    "inputs": "hashes of a teacher and versions of the packages",
}


def _usage(installed: Sequence[str]) -> str:
    lines = ["usage: colibri COMMAND ...", ""]
    lines += [f"  {name:<10}{_SUMMARIES[name]}" for name in OWN]
    lines += ["", "Also, as commands of their own:", ""]
    lines += [f"  {name}" for name in installed]
    lines += ["", "colibri COMMAND --help tells more."]
    return "\n".join(lines)
