"""The list of licences is that of what is installed and pinned."""

import json
import subprocess
import sys
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def licences(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("docs/licences.py")


def test_the_list_is_up_to_date_and_every_requirement_is_pinned(tmp_path: Path) -> None:
    sbom = tmp_path / "sbom.json"
    command = [sys.executable, str(ROOT / "docs" / "licences.py"), "--check", "--sbom", str(sbom)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = json.loads(sbom.read_text())["components"]
    assert {"torch", "diffusers", "numpy", "ray"} <= {part["name"] for part in parts}
    assert not any(part["licenses"][0]["license"]["name"] == "not stated" for part in parts)


def test_a_missing_and_a_different_pin_are_faults(licences: ModuleType) -> None:
    missing, other = licences.faults_of(["numpy", "tqdm"], {"tqdm": "0.1"})
    assert missing.startswith("numpy ")
    assert missing.endswith("not in constraints.txt")
    assert other.endswith("constraints.txt has 0.1")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"License-Expression": "MIT", "License": "else"}, "MIT"),
        ({"License": "BSD"}, "BSD"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT License"),
        ({"License": "Apache License\nVersion 2.0 ..."}, "Apache License Version 2.0 ..."),
        ({}, "not stated"),
    ],
)
def test_a_licence_is_found_wherever_metadata_has_it(
    licences: ModuleType, fields: dict[str, str], said: str
) -> None:
    about = Message()
    for name, value in fields.items():
        about[name] = value
    assert licences.licence_of(about) == said
