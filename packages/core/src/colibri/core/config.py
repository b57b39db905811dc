"""Typed configuration: frozen dataclasses, strict TOML below, dotted flags above.

`parse` is all that a command needs. Unknown TOML keys are refused with the nearest name; a misspelt
flag is refused by tyro in the same way.
"""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import tyro

from colibri.core.errors import UserError
from colibri.core.geometry import parse_size


def _split_names(arguments: list[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in arguments[0].split(",") if name.strip())


Names = Annotated[
    tuple[str, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="A,B,...",
        instance_from_str=_split_names,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value)],
    ),
]
"""Several names in one flag, separated by commas."""


def _read_size(arguments: list[str]) -> tuple[int, int]:
    try:
        return parse_size(arguments[0])
    except UserError as error:
        raise ValueError(str(error)) from None


Size = Annotated[
    tuple[int, int],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="WIDTHxHEIGHT",
        instance_from_str=_read_size,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [f"{value[1]}x{value[0]}"],
    ),
]
"""A size that people write as WIDTHxHEIGHT; in code (height, width)."""


class _Dataclass(Protocol):
    __dataclass_fields__: typing.ClassVar[dict[str, Any]]


ConfigT = TypeVar("ConfigT", bound=_Dataclass)


def parse(
    kind: type[ConfigT], argv: Sequence[str], *, prog: str, description: str, toml: Path | None
) -> ConfigT:
    """`kind` from its defaults, then the TOML file, then the flags in `argv`."""
    default = load_toml(kind, toml) if toml else None
    return parse_over(kind, argv, default, prog=prog, description=description)


def parse_over(
    kind: type[ConfigT],
    argv: Sequence[str],
    default: ConfigT | None,
    *,
    prog: str,
    description: str,
) -> ConfigT:
    """`default`, or without it `kind`'s own defaults, then the flags in `argv`."""
    parsed: ConfigT = tyro.cli(  # type: ignore[assignment]
        kind,
        args=list(argv),
        prog=prog,
        description=description,
        default=default,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.DisallowNone),
    )
    return parsed


def parse_with_toml(
    kind: type[ConfigT], argv: Sequence[str], *, prog: str, description: str
) -> ConfigT:
    """`parse`, with the TOML file that `--config FILE` names in `argv`, if it does."""
    toml, rest = toml_flag(argv)
    return parse(kind, rest, prog=prog, description=description, toml=toml)


def load_toml(kind: type[ConfigT], path: Path) -> ConfigT:
    """A config from a TOML file. UserError names the key that is unknown or has the wrong type."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no config file {path}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    return from_table(kind, table, where=str(path))


def from_table(kind: type[ConfigT], table: dict[str, Any], *, where: str) -> ConfigT:
    """A config from nested dicts; keys that `kind` lacks are refused with the nearest name."""
    hints = typing.get_type_hints(kind, include_extras=True)
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            raise UserError(f"{where}: unknown key {key!r}", hint=hint)
        values[name] = _convert(hints[name], value, where=f"{where}: {key}")
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None


def to_table(config: object) -> dict[str, Any]:
    """A config as plain JSON-ready values; the form that is written beside every output."""
    value = _plain(config)
    assert isinstance(value, dict)
    return value


def toml_flag(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Take `--config FILE` out of `argv`: it has to be read before the other flags are parsed."""
    rest = list(argv)
    for index, argument in enumerate(rest):
        if argument == "--config":
            if index + 1 == len(rest):
                raise UserError("--config needs a file", hint="pass --config FILE.toml")
            return Path(rest[index + 1]), rest[:index] + rest[index + 2 :]
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")), rest[:index] + rest[index + 1 :]
    return None, rest


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    if typing.get_origin(hint) is Annotated:
        specs = [
            extra for extra in typing.get_args(hint)[1:] if hasattr(extra, "instance_from_str")
        ]
        if specs and isinstance(value, str):
            try:
                return specs[0].instance_from_str([value])
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
        return _convert(typing.get_args(hint)[0], value, where=where)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if len(options) == 1 and value is not None:
            return _convert(options[0], value, where=where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise UserError(f"{where} has to be a table, found {value!r}")
        return from_table(hint, value, where=where)
    if isinstance(value, list):
        arguments = typing.get_args(hint)
        fixed = typing.get_origin(hint) is tuple and ... not in arguments
        if fixed and len(value) != len(arguments):
            raise UserError(f"{where} has to be {len(arguments)} values, found {value!r}")
        item = arguments[0] if arguments else Any
        value = tuple(_convert(item, part, where=where) for part in value)
    if not _fits(hint, value):
        raise UserError(f"{where} has to be {_name(hint)}, found {value!r}")
    if hint is Path or (Path in typing.get_args(hint) and isinstance(value, str)):
        return Path(value)
    return float(value) if hint is float else value


def _fits(hint: Any, value: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple)
    if arguments:  # a union
        return any(_fits(argument, value) for argument in arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str)
    return isinstance(hint, type) and isinstance(value, hint)


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return getattr(hint, "__name__", None) or str(hint)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    return str(value) if isinstance(value, Path) else value
