"""`colibri NAME ...` is `NAME ...`: found among the installed console commands, so that only what
is installed is offered. Beside them, what concerns the whole chain: lineage, scores, the report."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from colibri.core.commands import Command, Program
from colibri.core.config import parse_with_toml

DESCRIPTION = (
    "Big video diffusion models, small enough to run at home: what concerns the whole chain."
)
NAMES = ("curate", "vae", "distill", "infer", "testbed")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `colibri`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    installed = {entry.name: entry for entry in entry_points(group="console_scripts")}
    name = arguments[0] if arguments else ""
    if name not in NAMES:
        tools = [f"  {tool}" for tool in NAMES if tool in installed]
        notes = ["", "Also, as commands of their own:", "", *tools]
        return Program("colibri", DESCRIPTION, OWN, notes).main(arguments)
    if name not in installed:
        print(f"error: {name} is not installed; pip install colibri-{name}", file=sys.stderr)
        return 2
    status: int = installed[name].load()(arguments[1:])
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


OWN = {
    "lineage": Command(_lineage, "from a video back to its model, teacher, shards and source rows"),
    "score": Command(_score, "scores of several models' videos side by side"),
    "report": Command(_report, "one HTML page of a pipeline's folder"),
    "world": Command(_world, "a data set of rendered clips, to try the chain with"),
    "inputs": Command(_inputs, "hashes of a teacher and versions of the packages"),
}
