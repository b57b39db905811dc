"""What tables of rows share: their flags, the loop over rows and seeds, and the file of figures.

A row that was made with the same settings is kept, so the same command goes on where it stopped.
"""

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole

Found = dict[str, Any]
"""The figures of one row and seed."""


def command(main: Callable[[], None]) -> None:
    """Bad input ends in a sentence."""
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def row_parser(
    doc: str | None, rows: Iterable[str], *, work: str, out: str
) -> argparse.ArgumentParser:
    """The flags that every such table has."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default=",".join(rows), help="some of: %(default)s")
    parser.add_argument("--seeds", default="0", help="each row once for each, with commas")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--work", type=Path, default=Path(work), help="what has been made so far")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results") / out)
    parser.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    return parser


def names_of(arguments: argparse.Namespace, rows: Iterable[str]) -> list[str]:
    """The rows asked for; SystemExit with a sentence where one is not known."""
    known = list(rows)
    names = [name.strip() for name in arguments.rows.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"error: there is no row {unknown[0]!r}; known: {', '.join(known)}")
    return names


def seeds_of(arguments: argparse.Namespace) -> list[int]:
    """The seeds asked for."""
    return [int(text) for text in arguments.seeds.split(",")]


def make_table(
    arguments: argparse.Namespace,
    names: Sequence[str],
    make: Callable[[str, int], Found],
    *,
    budget: str,
    line: Callable[[str, Found], str],
    settings: Sequence[str],
    before: Callable[[], Mapping[str, Found]] = dict,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Found]:
    """Make and print every row and seed, under `NAME/SEED`, and write the file of figures.

    `before` gives rows that are not trained. Rows that the file has already, made with the same
    settings, stay in it. With --plan only `budget` is printed.
    """
    seeds = seeds_of(arguments)
    print(f"{len(names)} rows, {len(seeds)} seeds; {budget}", flush=True)
    if arguments.plan:
        return {}
    import torch
    from colibri.core import wan

    wan.hush()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    told = {name: getattr(arguments, name) for name in settings}
    top = about() | {"settings": told, **(extra or {})}
    done = _written(arguments.out, told)
    for key, found in (fresh := before()).items():
        print(line(key, found), flush=True)
    done |= fresh
    write_json_whole(arguments.out, top | {"rows": done})
    for name in names:
        for seed in seeds:
            key = f"{name}/{seed}"
            done[key] = {"date": top["date"], **make(name, seed)}
            write_json_whole(arguments.out, top | {"rows": done})
            print(line(key, done[key]), flush=True)
    print(arguments.out)
    return done


def _written(out: Path, settings: Mapping[str, Any]) -> dict[str, Found]:
    """Rows of an earlier file with these settings."""
    if not out.is_file():
        return {}
    found = json.loads(out.read_text(encoding="utf-8"))
    if found.get("settings") != settings:
        return {}
    return {key: {"date": found["date"], **row} for key, row in found["rows"].items()}


def kept(path: Path, asked: str, make: Callable[[], Found]) -> Found:
    """The row at `path` where it was made as `asked`, a hash of its settings; else made now."""
    if path.is_file():
        found: Found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("asked") == asked:
            return found
    found = {"asked": asked, "date": time.strftime("%Y-%m-%d"), **make()}
    write_json_whole(path, found)
    return found


def about() -> dict[str, Any]:
    """When, on what and with which versions."""
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.platform(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "diffusers")},
    }
