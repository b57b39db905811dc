"""Every command line of the documents is one that its command understands."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import check, lines_of, words_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINES = [(document, line) for document in DOCUMENTS for line in lines_of(document)]


def test_the_documents_have_command_lines() -> None:
    assert len(LINES) > 40


@pytest.mark.parametrize(
    ("document", "line"), LINES, ids=[f"{path.name}: {line}" for path, line in LINES]
)
def test_a_command_line_is_understood(
    document: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in words_of(line):
        check(words, monkeypatch)


CHEAP = ("distill plan ", "curate doctor ")


@pytest.mark.parametrize(
    "line", sorted({" ".join(line.split()) for _, line in LINES if line.startswith(CHEAP)})
)
def test_a_cheap_command_line_runs(
    line: str,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (words,) = words_of(line)
    (tmp_path / "DATA").symlink_to(sample)
    monkeypatch.chdir(tmp_path)
    status = importlib.import_module(f"colibri.{words[0]}.cli").main(words[1:])
    said = capsys.readouterr()
    assert status in (0, 1), said.err  # 1: it does not fit, or something is missing, which is said
    assert said.out


def test_a_wrong_flag_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("vae train --stepps 3", "infer t2v --promt x", "distill train --critic.lrr 1"):
        (words,) = words_of(line)
        with pytest.raises(AssertionError):
            check(words, monkeypatch)


def test_what_is_written_from_the_code_is_as_the_code_is() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
