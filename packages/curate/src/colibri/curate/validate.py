"""Check a JSON lines file of captions against the rules: id, original, caption in; findings out."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from colibri.core.captions.rules import check, violates
from colibri.core.errors import UserError, first_line
from colibri.core.shards import write_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSummary:
    """Pairs checked, and how many break each rule."""

    pairs: int
    broken: dict[str, int]

    def __str__(self) -> str:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in sorted(self.broken.items()))
        return f"{self.pairs:,} pairs; violations: {rules or 'none'}"


def validate_file(source: Path, target: Path, *, workers: int = 1) -> ValidationSummary:
    """Write id, violates and findings for each line of `source`. A bad line, or a `target` that
    cannot be written, is named in one sentence; `target` then stays as it was."""
    if not source.is_file():
        raise UserError(f"there is no file {source}", hint="pass a JSON lines file")
    broken: Counter[str] = Counter()
    pairs = 0

    def write(temporary: Path) -> None:
        nonlocal pairs
        with (
            source.open(encoding="utf-8", errors="replace") as lines,
            temporary.open("w", encoding="utf-8") as out,
        ):
            for line, rules in _results(lines, str(source), workers):
                out.write(line + "\n")
                broken.update(rules)
                pairs += 1

    try:
        write_whole(target, write)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({first_line(error)})") from None
    return ValidationSummary(pairs=pairs, broken=dict(broken))


def validate_line(line: str, where: str) -> tuple[str, list[str]]:
    """One input line to one output line, and the rules it breaks."""
    try:
        entry = json.loads(line)
        original, caption, name = entry["original"], entry["caption"], entry["id"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{where} is not an object with id, original and caption") from None
    if not isinstance(original, str) or not isinstance(caption, str):
        raise UserError(f"{where}: original and caption have to be text")
    findings = check(original, caption)
    rules = violates(findings)
    result = {"id": name, "violates": rules, "findings": [asdict(found) for found in findings]}
    return json.dumps(result, ensure_ascii=False), rules


def _results(lines: TextIO, name: str, workers: int) -> Iterator[tuple[str, list[str]]]:
    numbered = (
        (line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    )
    if workers == 1:
        yield from (validate_line(line, where) for line, where in numbered)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_validate, numbered, chunksize=256)


def _validate(numbered: tuple[str, str]) -> tuple[str, list[str]]:
    return validate_line(*numbered)
