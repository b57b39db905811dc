#!/usr/bin/env python3
"""Run a pipeline in a folder of its own: `pipelines/run.py tiny --out out/demo`.

Copies the pipeline's dvc.yaml, params and prompts there and reproduces it with DVC, stage by stage:
what has not changed is not done again, and a run that was stopped goes on. `--plan` runs nothing
but each stage's own plan.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tomlkit

HERE = Path(__file__).resolve().parent
TIMES = "times.json"
VRAM = "12,16,24"
"""GB of the cards that a plan of inference is made for."""
RUN_FOLDERS = {"decoder": "vae", "student": "distill"}
"""Stages that keep checkpoints, and where: those of a finished run with other settings go."""


def main() -> int:
    arguments = _parser().parse_args()
    folder = HERE / arguments.pipeline
    if not (folder / "dvc.yaml").is_file():
        known = ", ".join(sorted(path.parent.name for path in HERE.glob("*/dvc.yaml")))
        return _refuse(f"there is no pipeline {arguments.pipeline!r}; one of {known}")
    out = arguments.out or Path("out") / arguments.pipeline
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    try:
        prepare(folder, out, over=arguments.params)
    except FileNotFoundError as error:
        return _refuse(f"there is no file {error.filename}; check --params")
    except ValueError as error:  # tomllib's and tomlkit's errors are of this kind
        return _refuse(f"the params of {arguments.pipeline} are not valid TOML: {error}")
    os.chdir(out)
    if arguments.plan:
        return plan(device=arguments.on, offline=arguments.offline)
    return run(arguments.stages)


def prepare(folder: Path, out: Path, *, over: str | None = None) -> None:
    """Copy a pipeline to `out`, with `params.OVER.toml` laid over its params, as a DVC project
    without version control: no file outside `out` is touched."""
    params = tomlkit.parse((folder / "params.toml").read_text("utf-8"))
    if over:
        text = (folder / f"params.{over}.toml").read_text("utf-8")
        _lay(tomllib.loads(text), params)
    (out / ".dvc").mkdir(parents=True, exist_ok=True)
    (out / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
        "    autostage = false\n[parsing]\n    bool = boolean_optional\n"
    )
    (out / ".gitignore").write_text("*\n")
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith("params"):
            shutil.copyfile(path, out / path.name)
    if "benchmarks/" in (folder / "dvc.yaml").read_text("utf-8"):  # its stages run these scripts
        (out / "benchmarks").mkdir(exist_ok=True)
        for path in (HERE.parent / "benchmarks").glob("*.py"):
            shutil.copyfile(path, out / "benchmarks" / path.name)
    (out / "params.toml").write_text(tomlkit.dumps(params), "utf-8")


def run(wanted: Sequence[str] = ()) -> int:
    """Reproduce every stage in the current folder, or some, saying which, and note its seconds."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    name: str | None = None
    times = json.loads(Path(TIMES).read_text()) if Path(TIMES).exists() else {}
    try:
        with Repo() as repo:
            every = list(_ordered(repo))
        if unknown := sorted(set(wanted) - set(every)):
            return _refuse(f"there is no stage {unknown[0]!r}; one of {', '.join(every)}")
        names = [name for name in every if not wanted or name in wanted]
        for number, name in enumerate(names, start=1):
            with Repo() as repo:
                (stage,) = repo.stage.collect(name)
                _say(f"\n[{number}/{len(names)}] {name}: {stage.desc}")
                with repo.lock:
                    changed = stage.changed()
                if not changed:
                    _say("unchanged")
                    continue
                _clear(name)
                begin = time.monotonic()
                repo.reproduce(name, single_item=True)
                if name != "inputs":
                    times[name] = round(time.monotonic() - begin, 1)
                    Path(TIMES).write_text(json.dumps(times, indent=2) + "\n")
    except KeyboardInterrupt:
        _say("stopped; the same command goes on")
        return 130
    except DvcException as error:
        if name is None:
            return _refuse(str(error))
        return _refuse(f"stage {name} failed: {error}. The same command goes on from there")
    _say(f"\nStages of this run and before: {sum(times.values()) / 60:.1f} min.")
    for page in filter(Path.exists, map(Path, ("report.html", "tables.html"))):
        _say(f"The page: {page.resolve()}")
    return 0


def plan(*, device: str, offline: bool) -> int:
    """Run the plan of each stage that has one."""
    from dvc.repo import Repo

    with Repo() as repo:
        commands = [(name, repo.stage.collect(name)[0].cmd) for name in _ordered(repo)]
    failed = []
    for name, command in commands:
        _say(f"\n{name}\n$ {command}")
        words = planned(shlex.split(command), device=device, offline=offline)
        if isinstance(words, str):
            _say(f"({words})")
            continue
        _say(f"> {shlex.join(words)}")
        status = subprocess.run(words, check=False).returncode
        if status not in (0, 1):  # 1: it does not fit on the device, which is said
            failed.append(name)
    return _refuse(f"no plan of {', '.join(failed)}") if failed else 0


def planned(words: list[str], *, device: str, offline: bool) -> list[str] | str:
    """The command that plans `words`, or why there is none."""
    processes = "1"
    if "-m" in words:  # accelerate launch ... -m colibri.NAME
        if "--num_processes" in words:
            processes = words[words.index("--num_processes") + 1]
        words = [
            words[words.index("-m") + 1].removeprefix("colibri."),
            *words[words.index("-m") + 2 :],
        ]
    match words[:2]:
        case ["python", script] if script.startswith("benchmarks/"):
            return [*words, "--plan"]
        case ["curate", "run"]:
            if not Path("data").is_dir():
                _say("(no data here yet: a plan of the embedded sample, with these settings)")
                words = _without(_without(words, "--data-root"), "--sources")
            return ["curate", "plan", "--calibrate", "0", *words[2:]]
        case ["curate", "fetch"]:
            return "a plan needs the hub: --offline was given" if offline else [*words, "--plan"]
        case ["distill", "train"]:
            flags = _without(words[2:], "--encoded")
            return ["distill", "plan", "--on", device, "--processes", processes, *flags]
        case ["vae", "train"]:
            if "--teacher" in words:
                at = words.index("--teacher") + 1
                words[at] = str(_config_of(words[at]))
            return [*words, "--plan"]
        case ["infer", "t2v" | "long"]:
            model = words[words.index("--model") + 1]
            if Path(model).is_dir() or model.startswith("embedded:"):
                return [*words, "--plan"]
            if family := _family_of(model):
                return ["infer", "info", family.name, "--vram", VRAM]
            return "a plan needs the model's files, which are not here yet"
        case ["infer", "quantize"]:
            teacher = tomllib.loads(Path("params.toml").read_text("utf-8"))["inputs"].get("model")
            if family := _family_of(teacher):
                scheme = words[words.index("--scheme") + 1]
                return ["infer", "info", family.name, "--scheme", scheme, "--vram", VRAM]
    return "no plan: it is cheap, or follows from what comes before"


def _config_of(teacher: str) -> Path | str:
    """A folder with the VAE's config of a known model, no weights: enough for a plan offline."""
    family = _family_of(teacher)
    if family is None or Path(teacher).is_dir():
        return teacher
    folder = Path(".plan") / family.name
    folder.mkdir(parents=True, exist_ok=True)
    table = {"_class_name": "AutoencoderKLWan"} | dict(family.vae)
    (folder / "config.json").write_text(json.dumps(table))
    return folder


def _family_of(repo: str | None) -> Any:
    """The known family of a hub id, or None."""
    from colibri.core.wan import FAMILIES

    return next((family for family in FAMILIES.values() if repo and family.repo == repo), None)


def _without(words: list[str], flag: str) -> list[str]:
    """`words` less a flag and its value."""
    if flag not in words:
        return words
    at = words.index(flag)
    return words[:at] + words[at + 2 :]


def _ordered(repo: Any) -> Iterator[str]:
    """Names of the stages, each after those it needs, otherwise as they stand in dvc.yaml."""
    import networkx

    graph = repo.index.graph
    place = {stage.addressing: index for index, stage in enumerate(repo.index.stages)}
    for stage in networkx.lexicographical_topological_sort(
        graph.reverse(copy=True), key=lambda stage: place[stage.addressing]
    ):
        yield stage.addressing


def _clear(name: str) -> None:
    """Remove the checkpoints of a finished run, whose settings or inputs have changed since, and
    forget that it was finished: if the next one is killed, it has to go on."""
    from ruamel.yaml import YAML

    lock = Path("dvc.lock")
    if name not in RUN_FOLDERS or not lock.exists():
        return
    yaml = YAML()
    table = yaml.load(lock)
    if name in table["stages"]:
        shutil.rmtree(RUN_FOLDERS[name], ignore_errors=True)
        del table["stages"][name]
        yaml.dump(table, lock)


def _lay(over: dict[str, Any], params: Any) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and key in params:
            _lay(value, params[key])
        else:
            params[key] = value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipeline", help="folder beside this file: tiny, wan22-5b, ...")
    parser.add_argument("--out", type=Path, help="where it runs (out/PIPELINE)")
    parser.add_argument("--params", metavar="NAME", help="lay params.NAME.toml over params.toml")
    parser.add_argument(
        "--stages", nargs="+", default=(), metavar="STAGE", help="these alone (all)"
    )
    parser.add_argument("--plan", action="store_true", help="run each stage's own plan only")
    parser.add_argument("--on", default="h200", metavar="DEVICE", help="of the plan (h200)")
    parser.add_argument("--offline", action="store_true", help="plan without asking the hub")
    return parser


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
