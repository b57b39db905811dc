"""Recipes of several stages: each a run of its own that starts where the one before has ended.

A recipe's `[[stages]]` are tables of `TrainConfig`'s keys with a `name`, laid over the rest of the
file. Stage NAME lies in `OUT/NAME`; stages that are done are skipped. Imports no torch.
"""

import logging
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from colibri.core.config import from_table, load_toml, parse, parse_over
from colibri.core.errors import UserError
from colibri.distill.config import TrainConfig

log = logging.getLogger(__name__)

Stages = dict[str, TrainConfig]
"""By name, in order; `out` is that of the whole. A plain recipe has one, named ""."""


def read_stages(
    toml: Path, flags: Sequence[str] = (), *, prog: str = "distill train", description: str = ""
) -> Stages:
    """The stages of a recipe, with flags above it: `--steps 10` is for each, and
    `--stages.NAME.steps 10` for one. UserError for a stage without a name, a name twice, and flags
    of a stage that is not there."""
    everywhere, by_stage = _split(flags)
    base, tables = _tables(toml)
    if not tables:
        if by_stage:
            raise UserError(f"{toml} has no stages, found --stages.{min(by_stage)}")
        config = parse(TrainConfig, everywhere, prog=prog, description=description, toml=toml)
        return {"": config}
    names = [table.pop("name", None) for table in tables]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise UserError(f"{toml}: a stage needs a name of a-z, 0-9 and -, found {name!r}")
        if names.count(name) > 1:
            raise UserError(f"{toml}: two stages are named {name!r}")
    if unknown := sorted(by_stage.keys() - set(names)):
        raise UserError(
            f"{toml} has no stage {unknown[0]!r}", hint=f"its stages are {', '.join(names)}"
        )
    stages = {}
    for name, table in zip(names, tables, strict=True):
        default = from_table(TrainConfig, _over(base, table), where=f"{toml}, stage {name}")
        stages[name] = parse_over(
            TrainConfig,
            [*everywhere, *by_stage.get(name, [])],
            default,
            prog=prog,
            description=f"{description} This recipe has the stages {', '.join(names)}; "
            "--stages.NAME.FLAG is for one of them.",
        )
    if len({stage.out for stage in stages.values()}) > 1:
        raise UserError(f"{toml}: all stages lie in one --out")
    return stages


def train_stages(stages: Stages, *, say: Callable[[str], object] = log.info) -> Path | None:
    """Train, or go on training, every stage in turn; the last one's student, in the leading
    process."""
    from colibri.distill.parallel import processes
    from colibri.distill.setup import is_done
    from colibri.distill.train import train_among

    resolved = _joined(stages)
    for name, config in resolved.items():
        try:
            config.check()
        except UserError as error:
            raise UserError(f"stage {name}: {error.message}", hint=error.hint) from None
    folder = None
    with processes(next(iter(resolved.values())).device) as world:
        _encode_once(stages, world)
        for name, config in resolved.items():
            if is_done(config):
                say(f"stage {name}: done")
                folder = config.out / "student" if world.leads else None
            else:
                say(f"stage {name}: {config.steps} steps in {config.out}")
                folder = train_among(config, world, say=say)
                world.wait()  # the next one reads what the leading process has written
    return folder


def _joined(stages: Stages) -> Stages:
    """Each stage in its own folder, after the one before; data and paths are shared."""
    joined: Stages = {}
    before: Path | None = None
    for name, config in stages.items():
        out = config.out / name
        joined[name] = replace(
            config,
            out=out,
            encoded=config.encoded or config.out / "encoded",
            start=config.start or before,
            pairs=replace(config.pairs, folder=config.pairs.folder or config.out / "pairs"),
        )
        before = out
    return joined


def _encode_once(stages: Stages, world: Any) -> None:
    """The embedded world's prompts, where no stage was given data."""
    from colibri.distill.objectives import Objective
    from colibri.distill.setup import encode_embedded
    from colibri.distill.teacher import teacher_folder

    without = [config for config in stages.values() if config.encoded is None]
    if without:
        clips = any(Objective(config).clips for config in without)
        encode_embedded(without[0], teacher_folder(without[0].teacher), world, clips=clips)


def _tables(toml: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        base = tomllib.loads(toml.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        load_toml(TrainConfig, toml)  # says what is wrong
        raise
    tables = base.pop("stages", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{toml}: stages are tables", hint="write [[stages]] before each")
    return base, tables


def _split(flags: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Flags for all stages, and those of each."""
    everywhere: list[str] = []
    by_stage: dict[str, list[str]] = {}
    into = everywhere
    for flag in flags:
        if flag.startswith("--"):
            into = everywhere
        if flag.startswith("--stages."):
            name, dot, rest = flag.removeprefix("--stages.").partition(".")
            if not dot:
                raise UserError(f"{flag} names no setting", hint="--stages.NAME.FLAG VALUE")
            into = by_stage.setdefault(name, [])
            flag = f"--{rest}"
        into.append(flag)
    return everywhere, by_stage


def _over(base: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """`table` laid over `base`, table by table."""
    merged = dict(base)
    for key, value in table.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _over(old, value) if both else value  # type: ignore[arg-type]
    return merged
