"""What `pip install colibri-infer` brings, and what its extras add."""

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.infer import tuning
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "packages/infer/pyproject.toml").read_text())["project"]
EXTRAS = {
    name: {Requirement(line).name for line in lines}
    for name, lines in PROJECT["optional-dependencies"].items()
}
LARGE = {
    "ray",
    "datasets",
    "pandas",
    "decord",
    "dvc",
    "tensorboard",
    "vllm",
    "torchvision",
}
"""Of other rooms, or of nobody's need here."""


def closure(lines: list[str]) -> set[str]:
    """Names of all distributions that these requirements bring, of their extras what is asked."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        one = waiting.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        key = f"{name}{sorted(one.extras)}"
        if key in found:
            continue
        found |= {key, name}
        try:
            inner = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in inner:
            want = Requirement(line)
            extras = ("", *one.extras)
            if want.marker is None or any(want.marker.evaluate({"extra": x}) for x in extras):
                waiting.append(want)
    return {name for name in found if "[" not in name}


def test_a_plain_install_brings_no_extra_and_nothing_of_other_rooms() -> None:
    brought = closure(PROJECT["dependencies"])
    assert {"torch", "diffusers", "transformers", "av"} <= brought
    assert not brought & (LARGE | set().union(*EXTRAS.values()))


def test_every_extra_is_documented_and_pinned() -> None:
    docs = (ROOT / "docs/infer.md").read_text()
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    for extra, packages in EXTRAS.items():
        assert f"colibri-infer[{extra}]" in docs
        assert all(package in pins for package in packages)


def test_kernels_from_the_hub_name_their_extra_when_it_is_missing(
    t2v: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: Any = wan.load(t2v, parts=("transformer",)).transformer
    monkeypatch.setattr("diffusers.utils.import_utils._kernels_available", False)
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"flash_hub cannot be .*; pip .*colibri-infer\[flash\]"):
        tuning.set_attention(network, "flash_hub")
