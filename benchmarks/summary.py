"""All files of figures in benchmarks/results on one page, docs/results/benchmarks.md.

    python benchmarks/summary.py
    python benchmarks/summary.py --check    # fails where the page is not what the files say

What a file holds is told by the script of the same name; figures are copied, not judged. Lists of
more than a dozen entries are given as their means.
"""

import argparse
import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from colibri.core.shards import write_text_whole

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "results" / "benchmarks.md"
ABOUT = ("date", "machine", "device", "threads", "torch", "versions", "settings")
"""Keys that say where figures come from."""
MANY = 12
SCRIPTS = {
    **dict.fromkeys(("t2v", "i2v", "runtime"), "published_tables"),
    "vae_terms": "vae_table",
}
"""Files of figures whose script has another name."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    text = page(RESULTS)
    if arguments.check:
        if PAGE.is_file() and PAGE.read_text("utf-8") == text:
            return 0
        print(f"{PAGE} is not what {RESULTS} says; run benchmarks/summary.py")
        return 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(PAGE, text)
    print(PAGE)
    return 0


def page(results: Path) -> str:
    """Markdown of every file of figures, in the order of their names."""
    parts = [
        "# Benchmarks",
        "Written by `benchmarks/summary.py` from `benchmarks/results/*.json`. Each file comes from "
        "the script of its name; `--help` says what it measures and how.",
    ]
    for path in sorted(results.glob("*.json")):
        parts += section(path)
    return "\n\n".join(parts) + "\n"


def section(path: Path) -> Iterator[str]:
    """Of one file: what it is, where it was measured, its figures."""
    name = path.name.partition(".")[0]
    script = HERE / f"{SCRIPTS.get(name, name)}.py"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    yield f"## {path.stem}"
    if script.is_file():
        said = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
        yield f"`benchmarks/{script.name}`: {' '.join(said.partition(chr(10) * 2)[0].split())}"
    where = [
        f"{key} {_inline(found[key])}" if key not in ("date", "machine") else str(found[key])
        for key in ABOUT
        if key in found
    ]
    yield "; ".join(where) + "."
    if "includes" in found:
        yield f"Includes: {_inline(found['includes'])}."
    plain = {key: value for key, value in found.items() if key not in (*ABOUT, "includes")}
    for key, value in plain.items():
        if rows := list(_rows(value)):
            yield f"**{key.replace('_', ' ')}**"
            yield table(rows)
        elif not isinstance(value, dict | list):
            yield f"{key.replace('_', ' ')}: {_cell(value)}"


def table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Rows with their names, a column for each key that one of them has."""
    columns = list(dict.fromkeys(column for _, cells in rows for column in cells))
    head = ["", *(column.replace("_", " ") for column in columns)]
    lines = [head, ["---"] * len(head)]
    lines += [[name, *(_cell(cells.get(column)) for column in columns)] for name, cells in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rows(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What can stand as rows: dicts by name, a list of dicts, or one dict of plain values."""
    if isinstance(value, list):
        value = {str(index): one for index, one in enumerate(value, start=1)}
    if not isinstance(value, dict):
        return
    if value and not any(isinstance(one, dict | list) for one in value.values()):
        yield "", value
        return
    for name, one in value.items():
        if isinstance(one, list) and len(one) > MANY and isinstance(one[0], dict):
            yield f"{name}, mean of {len(one)}", _mean([dict(_flat(entry)) for entry in one])
        elif isinstance(one, dict):
            yield name, dict(_flat(one))
        elif not isinstance(one, list):
            yield name, {"value": one}


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        if isinstance(one, dict):
            yield from _flat(one, f"{before}{key} ")
        elif not isinstance(one, list) and key != "asked":
            yield f"{before}{key}", one


def _mean(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {key: fmean(entry[key] for entry in entries) for key in entries[0]}


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_inline, value))
    return str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(main())
