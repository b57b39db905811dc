"""Strict TOML below, dotted flags above."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from colibri.core.config import Names, Size, from_table, load_toml, parse, to_table, toml_flag
from colibri.core.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    lr: float = 0.5
    mode: Literal["fast", "exact"] = "fast"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    names: Names = ("a",)
    out: Path = Path("out")
    steps: int | None = None
    inner: Inner = field(default_factory=Inner)
    size: Size | None = None
    spare: Inner | None = None


def test_flags_win_over_toml_and_toml_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('names = ["x", "y"]\nsteps = 3\n[inner]\nlr = 1\n')
    config = parse(Outer, ["--steps", "4"], prog="p", description="", toml=file)
    assert config == Outer(names=("x", "y"), steps=4, inner=Inner(lr=1.0))
    assert isinstance(config.inner.lr, float)


def test_names_are_separated_by_commas() -> None:
    config = parse(Outer, ["--names", "a,b, c"], prog="p", description="", toml=None)
    assert config.names == ("a", "b", "c")


def test_an_unknown_key_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"unknown key 'stepz'.*did you mean 'steps'"):
        from_table(Outer, {"stepz": 1}, where="c.toml")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"steps": "four"}, "steps"),
        ({"inner": 3}, "table"),
        ({"inner": {"mode": "slow"}}, "one of 'fast', 'exact'"),
        ({"inner": {"lr": True}}, "float"),
        ({"size": "64by64"}, "c.toml: size: '64by64' is not a size; write WIDTHxHEIGHT"),
        ({"size": [1, 2, 3]}, "size has to be 2 values"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(table: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        from_table(Outer, table, where="c.toml")


def test_a_config_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no config file"):
        load_toml(Outer, tmp_path / "none.toml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_toml(Outer, tmp_path)


def test_what_may_be_absent_is_read_like_what_may_not() -> None:
    table = {"size": "64x48", "spare": {"lr": 2}}
    config = from_table(Outer, table, where="c.toml")
    assert config.size == (48, 64)
    assert config.spare == Inner(lr=2.0)
    with pytest.raises(UserError, match="spare: lr has to be float"):
        from_table(Outer, {"spare": {"lr": "high"}}, where="c.toml")


def test_help_names_no_none_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Outer, ["--help"], prog="p", description="", toml=None)
    said = capsys.readouterr().out
    assert "--steps INT" in said
    assert "{None}" not in said


def test_a_config_survives_being_written_and_read() -> None:
    config = Outer(names=("q",), steps=2, inner=Inner(mode="exact"))
    assert from_table(Outer, to_table(config), where="x") == config


def test_config_flag_is_taken_out_of_the_arguments() -> None:
    assert toml_flag(["--a", "1", "--config", "f.toml", "--b"]) == (
        Path("f.toml"),
        ["--a", "1", "--b"],
    )
    assert toml_flag(["--config=f.toml"]) == (Path("f.toml"), [])
    with pytest.raises(UserError, match="needs a file"):
        toml_flag(["--config"])
