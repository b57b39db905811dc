"""The `curate` command: parse, call one function, print. Heavy imports wait until they are used."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from colibri.core.config import parse, run_command, to_table, toml_flag
from colibri.core.errors import UserError

DESCRIPTION = "Captioned clips to training shards: first frames, six caption rules, provenance."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `curate`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"error: curate has no command {name!r}; see curate --help", file=sys.stderr)
        return 2
    return run_command(lambda: COMMANDS[name](rest))


def _run(argv: list[str]) -> int:
    from colibri.curate.config import RunConfig

    toml, rest = toml_flag(argv)
    config = parse(
        RunConfig,
        rest,
        prog="curate run",
        description="Curate data sets on disk into parquet shards. --config FILE.toml sits below "
        "the flags. Stopped at any moment, the same command goes on.",
        toml=toml,
    )
    if config.plan:
        from colibri.curate.plan import plan

        print(plan(config))
        return 0
    from colibri.curate.run import run

    if config.data_root is None:
        print("No --data-root: running on the embedded sample, a miniature of the three data sets.")
    print("Captions by the small embedded rule engine, not by a language model.")
    config.out.mkdir(parents=True, exist_ok=True)
    _print_summary(run(config))
    return 0


def _retry(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="curate retry", description="Do again the rows that were refused for a reason."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of curate run")
    parser.add_argument(
        "--reason", action="append", required=True, help="reason code; may be given several times"
    )
    arguments = parser.parse_args(argv)
    from colibri.curate.run import retry

    _print_summary(retry(arguments.out, tuple(arguments.reason)))
    return 0


def _report(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="curate report", description="Write OUT/report/index.html again."
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of curate run")
    arguments = parser.parse_args(argv)
    from colibri.curate.report import write_report

    print(write_report(arguments.out))
    return 0


def _sample(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="curate sample",
        description="Write a miniature of the three data sets in their published layouts.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument("--seed", type=int, default=0, help="seed of the rendered clips (0)")
    arguments = parser.parse_args(argv)
    from colibri.curate.sample import write_sample

    print(write_sample(arguments.directory, seed=arguments.seed))
    return 0


def _doctor(argv: list[str]) -> int:
    from colibri.curate.doctor import DoctorConfig, examine

    toml, rest = toml_flag(argv)
    config = parse(
        DoctorConfig,
        rest,
        prog="curate doctor",
        description="Say what is there, missing, extra, damaged and too short, per data set.",
        toml=toml,
    )
    report = examine(config)
    print(json.dumps(to_table(report), indent=2) if config.json else report.text())
    return 0 if report.usable else 1


def _validate(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="curate validate",
        description="Check captions against the six rules: JSON lines with id, original, caption "
        "in; id, violates, findings out.",
    )
    parser.add_argument("source", type=Path, metavar="IN.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl")
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        raise UserError("--workers has to be at least 1")
    from colibri.curate.validate import validate_file

    print(validate_file(arguments.source, arguments.out, workers=arguments.workers))
    return 0


def _print_summary(summary: Any) -> None:
    counts = summary.manifest["counts"]
    print()
    for fact in summary.manifest["facts"]:
        print(fact)
    print()
    print(f"{'source':<14}{'in':>8}{'kept':>8}{'rejected':>10}{'quarantined':>13}")
    for source, entry in sorted(counts["by_source"].items()):
        rejected = sum(entry["rejected"].values())
        quarantined = sum(entry["quarantined"].values())
        print(f"{source:<14}{entry['in']:>8}{entry['kept']:>8}{rejected:>10}{quarantined:>13}")
    print(
        f"{'total':<14}{counts['in']:>8}{counts['kept']:>8}"
        f"{counts['rejected']:>10}{counts['quarantined']:>13}"
    )
    for alarm in summary.manifest["alarms"]:
        print(f"alarm: {alarm}")
    print()
    print(f'shards    {summary.out}/data    datasets.load_dataset("{summary.out}")')
    if summary.report:
        print(f"report    {summary.report}")


def _usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [DESCRIPTION, "", "usage: curate COMMAND ...", ""]
    lines += [f"  {name:<{width}}{_SUMMARIES[name]}" for name in COMMANDS]
    lines += ["", "curate COMMAND --help tells the flags of one."]
    return "\n".join(lines)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "retry": _retry,
    "report": _report,
    "doctor": _doctor,
    "validate": _validate,
    "sample": _sample,
}

_SUMMARIES = {
    "run": "data sets on disk to parquet shards; the embedded sample without --data-root",
    "retry": "do again the rows that were refused for a reason",
    "report": "write the HTML report of a finished run again",
    "doctor": "what is there, missing, extra, damaged, per data set",
    "validate": "check a JSON lines file of captions against the six rules",
    "sample": "write a miniature of the three data sets in their real layouts",
}
