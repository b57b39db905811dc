#!/usr/bin/env python3
"""Licences of what each package brings along at run time: docs/licences.md, and an SBOM.

    docs/licences.py                     # writes docs/licences.md
    docs/licences.py --check             # fails where it is not up to date
    docs/licences.py --sbom sbom.json    # CycloneDX 1.5 as well

Requirements and licences come from the metadata of what is installed, versions from
constraints.txt. Every requirement has to be pinned there, and installed in that version.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(f"colibri-{name}" for name in ("core", "testbed", "curate", "vae", "distill", "infer"))
UNPINNED = {"setuptools": "any"}
"""`pip freeze` leaves it out; torch and others ask for a lower bound alone."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A package that is brought along."""

    name: str
    version: str
    licence: str
    by: tuple[str, ...]
    """Which of ours need it, directly or not."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--sbom", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    pins = read_pins(ROOT / "constraints.txt")
    needed = {ours: required(ours) for ours in OURS}
    faults = faults_of(set().union(*needed.values()), pins)
    parts = [
        Part(
            name=name,
            version=pins.get(name) or UNPINNED.get(name, ""),
            licence=licence_of(metadata.metadata(name)),
            by=tuple(ours for ours in OURS if name in needed[ours]),
        )
        for name in sorted(set().union(*needed.values()))
    ]
    text, path = page(parts), ROOT / "docs" / "licences.md"
    if arguments.check:
        if not path.is_file() or path.read_text("utf-8") != text:
            faults.append(f"{path} is not up to date; run docs/licences.py")
    else:
        path.write_text(text, encoding="utf-8")
        print(path)
    if arguments.sbom:
        arguments.sbom.parent.mkdir(parents=True, exist_ok=True)
        arguments.sbom.write_text(json.dumps(sbom(parts), indent=1) + "\n", encoding="utf-8")
        print(arguments.sbom)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


def read_pins(path: Path) -> dict[str, str]:
    """Versions by name, of a constraints file."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def required(name: str) -> set[str]:
    """Everything that a package needs at run time here, less our own; extras only where asked."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), "")]
    while waiting:
        of, extra = waiting.pop()
        if (of, extra) in seen:
            continue
        seen.add((of, extra))
        for line in metadata.requires(of) or ():
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
                continue
            child = canonicalize_name(wanted.name)
            waiting += [(child, ""), *((child, more) for more in wanted.extras)]
            if child not in OURS:
                found.add(child)
    return found


def faults_of(names: Iterable[str], pins: Mapping[str, str]) -> list[str]:
    """What is not pinned, and what is installed in another version."""
    faults = []
    for name in sorted(set(names) - set(UNPINNED)):
        installed = metadata.version(name).partition("+")[0]  # torch's build says +cpu
        if name not in pins:
            faults.append(f"{name} {installed} is needed at run time and not in constraints.txt")
        elif pins[name] != installed:
            faults.append(f"{name} {installed} is installed, constraints.txt has {pins[name]}")
    return faults


def licence_of(about: Any) -> str:
    """The expression, else the short licence field, else the classifiers; "not stated"."""
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or ()
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    field = (about.get("License") or "").strip()
    if field and "\n" not in field and len(field) < 60:
        return field
    return " and ".join(classifiers) or re.sub(r"\s+", " ", field)[:60] or "not stated"


def page(parts: Sequence[Part]) -> str:
    """The page as Markdown."""
    lines = [
        "# Licences",
        "",
        "Written by `docs/licences.py` (`make licences`) from the metadata of installed packages "
        "and the pins of `constraints.txt`: what each package needs at run time, on Linux with a "
        "CPU build of PyTorch; CUDA builds bring NVIDIA's libraries under their own terms. Extras "
        "and tools for development are left out. Colibri itself is Apache-2.0. Weights and data "
        "sets have licences of their own, which manifests and data cards carry.",
        "",
        "| package | version | licence | needed by |",
        "|---|---|---|---|",
    ]
    for part in parts:
        by = ", ".join(ours.removeprefix("colibri-") for ours in part.by)
        by = "all" if part.by == OURS else by
        lines.append(f"| {part.name} | {part.version} | {part.licence} | {by} |")
    return "\n".join(lines) + "\n"


def sbom(parts: Sequence[Part]) -> dict[str, Any]:
    """A bill of materials in CycloneDX's form, with no times in it."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "colibri"}},
        "components": [
            {
                "type": "library",
                "name": part.name,
                "version": part.version,
                "purl": f"pkg:pypi/{part.name}@{part.version}",
                "bom-ref": part.name,
                "licenses": [{"license": {"name": part.licence}}],
            }
            for part in parts
        ],
    }


if __name__ == "__main__":
    raise SystemExit(main())
