"""The `curate` command: parse, call one function, print. Heavy imports wait until they are used."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from colibri.core.commands import Command, Program
from colibri.core.config import parse_with_toml, to_table
from colibri.core.errors import UserError

DESCRIPTION = "Captioned clips to training shards: first frames, six caption rules, provenance."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `curate`."""
    return Program("curate", DESCRIPTION, COMMANDS).main(argv)


def _run(argv: list[str]) -> int:
    from colibri.curate.config import RunConfig

    config = parse_with_toml(
        RunConfig,
        argv,
        prog="curate run",
        description="Curate data sets on disk into parquet shards. --config FILE.toml sits below "
        "the flags. Stopped at any moment, the same command goes on.",
    )
    if config.plan:
        from colibri.curate.plan import plan

        print(plan(config).text())
        return 0
    from colibri.curate.run import run

    if config.data_root is None:
        print("No --data-root: running on the embedded sample, a miniature of the three data sets.")
    if config.captioner == "rules":
        print("Captions by the small embedded rule engine, not by a language model.")
    _print_summary(run(config))
    return 0


def _plan(argv: list[str]) -> int:
    from colibri.curate.plan import PlanConfig, plan

    config = parse_with_toml(
        PlanConfig,
        argv,
        prog="curate plan",
        description="Rows, tokens, memory, hours and bytes of a run with these flags, from a trial "
        "of a few rows on this machine.",
    )
    found = plan(config, calibrate=config.calibrate)
    print(json.dumps(found.table(), indent=2) if config.json else found.text())
    return 0


def _replay(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="curate replay",
        description="Rewrite and judge a sample of a finished run's rows again, without the "
        "request cache, and see whether its promise of equal answers holds.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="output folder of curate run")
    parser.add_argument("--sample", type=int, default=200, help="rows (200)")
    parser.add_argument("--seed", type=int, default=0, help="which rows (0)")
    arguments = parser.parse_args(argv)
    if arguments.sample < 1:
        raise UserError("--sample has to be at least 1")
    from colibri.curate.replay import replay

    found = replay(arguments.out, sample=arguments.sample, seed=arguments.seed)
    for entry in found:
        print(entry.text())
        if entry.differing:
            print(f"          other answers for {', '.join(entry.differing[:5])}")
    return 0 if all(entry.holds for entry in found) else 1


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


def _calibrate(argv: list[str]) -> int:
    from colibri.curate.calibrate import CalibrateConfig, calibrate

    config = parse_with_toml(
        CalibrateConfig,
        argv,
        prog="curate calibrate",
        description="Label a sample of judged rows by hand, and tell how far the judge can be "
        "trusted and which min_score follows. Stopped at any moment, the same command goes on.",
    )
    print(calibrate(config))
    return 0


def _export(argv: list[str]) -> int:
    from colibri.curate.export import ExportConfig, export

    config = parse_with_toml(
        ExportConfig,
        argv,
        prog="curate export",
        description="Turn curated shards into what a trainer reads, or push them to the hub. Rows "
        "that a trainer would turn into something else are refused, in DIR/refused.jsonl.",
    )
    print(export(config))
    return 0


def _fetch(argv: list[str]) -> int:
    from colibri.curate.fetch import FetchConfig, fetch

    config = parse_with_toml(
        FetchConfig,
        argv,
        prog="curate fetch",
        description="Get from the Hugging Face hub what a run needs: the tables, and single clips "
        "out of the big zips. Stopped at any moment, the same command goes on.",
    )
    report = fetch(config)
    print(report.text())
    return 0 if report.complete else 1


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

    config = parse_with_toml(
        DoctorConfig,
        argv,
        prog="curate doctor",
        description="Say what is there, missing, extra, damaged and too short, per data set.",
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
    if summary.manifest is None:
        print("stopped as asked; the same command without --stop-after goes on")
        return
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


COMMANDS = {
    "run": Command(
        _run, "data sets on disk to parquet shards; the embedded sample without --data-root"
    ),
    "plan": Command(
        _plan, "rows, tokens, memory, hours and bytes of a run, measured on a few rows"
    ),
    "fetch": Command(_fetch, "tables and single clips of the data sets from the Hugging Face hub"),
    "retry": Command(_retry, "do again the rows that were refused for a reason"),
    "replay": Command(_replay, "ask again about a sample of rows, and compare"),
    "report": Command(_report, "write the HTML report of a finished run again"),
    "calibrate": Command(_calibrate, "label a sample by hand: how far the judge can be trusted"),
    "export": Command(
        _export, "shards to HummingbirdXT, VideoX-Fun, FastVideo, webdataset, a folder or the hub"
    ),
    "doctor": Command(_doctor, "what is there, missing, extra, damaged, per data set"),
    "validate": Command(_validate, "check a JSON lines file of captions against the six rules"),
    "sample": Command(_sample, "write a miniature of the three data sets in their real layouts"),
}
