"""What a program says when a command ends badly."""

from pathlib import Path

import pytest
from colibri.core.commands import run_command
from colibri.core.errors import UserError


def _write(path: Path) -> int:
    path.mkdir(parents=True)
    return 0


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    assert run_command(lambda: _write(taken / "in it")) == 2
    assert capsys.readouterr().err == f"error: {taken / 'in it'}: Not a directory\n"
    assert run_command(lambda: _write(taken)) == 2
    assert capsys.readouterr().err == f"error: {taken}: File exists\n"


def test_a_users_error_is_a_line_and_a_mistake_of_ours_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse() -> int:
        raise UserError("no clips in there", hint="name another folder")

    assert run_command(refuse) == 2
    assert capsys.readouterr().err == "error: no clips in there; name another folder\n"
    with pytest.raises(FileNotFoundError):
        run_command(lambda: len(Path("missing").read_text()))
