"""Command lines as text: found in the documents, and put through their own parsers without being
run."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

TOOLS = ("curate", "vae", "distill", "infer", "testbed", "colibri")
LINE = re.compile(rf"(?:\$ )?((?:{'|'.join(TOOLS)}|accelerate launch) (?!=).*)")


class Parsed(Exception):
    """Raised where a command would begin its work."""


def lines_of(document: Path) -> Iterator[str]:
    """Command lines in a document's code blocks, fenced or indented, with continued ones joined."""
    fenced = False
    waiting = ""
    for line in document.read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not (fenced or line.startswith("    ") or waiting):
            continue
        text = waiting + line.strip()
        waiting = ""
        if text.endswith("\\"):
            waiting = text[:-1]
        elif found := LINE.fullmatch(text):
            yield found[1]


def words_of(line: str) -> list[list[str]]:
    """The words of a line, once for each command that `a | b` offers; remarks, redirections and
    places for "the flags from above" are left out."""
    words = shlex.split(line, comments=True)
    if "<" in words:
        words = words[: words.index("<")]
    if words[0] == "accelerate":
        words = [
            words[words.index("-m") + 1].removeprefix("colibri."),
            *words[words.index("-m") + 2 :],
        ]
    if "|" in words:
        return [[words[0], word, "--help"] for word in words[1:] if word != "|"]
    if len(words) > 2 and words[2] == "...":
        del words[2]
    return [words]


def check(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command line as its command does, and stop there. AssertionError where it refuses."""
    tool, *rest = words
    if tool == "colibri" and rest[0] in TOOLS:
        tool, *rest = rest
    module = f"colibri.{'umbrella' if tool == 'colibri' else tool}.cli"
    cli = importlib.import_module(module)
    with monkeypatch.context() as patch:
        for name in ("parse", "parse_with_toml"):
            if hasattr(cli, name):
                patch.setattr(cli, name, _stopping(getattr(cli, name)))
        patch.setattr(
            argparse.ArgumentParser, "parse_args", _stopping(argparse.ArgumentParser.parse_args)
        )
        if tool == "distill":
            import colibri.distill.stages as stages

            patch.setattr(stages, "read_stages", _stopping(stages.read_stages))
        patch.setattr("colibri.core.commands.run_command", lambda body: body())
        try:
            status: Any = cli.main(rest)  # 0: it has shown its help
        except Parsed:
            return
        except SystemExit as stop:
            status = stop.code
        except Exception as error:
            status = error
    assert status == 0, f"{shlex.join(words)}: {status}"


def _stopping(parse: Any) -> Any:
    def parsed(*arguments: Any, **named: Any) -> NoReturn:
        parse(*arguments, **named)
        raise Parsed

    return parsed
