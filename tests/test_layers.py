"""The arrows between the rooms, and the namespace that holds them together."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / "packages"


def test_no_package_claims_the_namespace() -> None:
    assert not list(PACKAGES.glob("*/src/colibri/__init__.py"))


def test_every_room_imports_only_rooms_below_it() -> None:
    """The contract is `.importlinter`: core <- testbed <- curate | distill | vae <- infer."""
    lint = str(Path(sys.executable).parent / "lint-imports")
    found = subprocess.run(
        [lint, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stdout


def test_the_contract_names_every_room() -> None:
    named = (ROOT / ".importlinter").read_text("utf-8")
    rooms = {path.parent.name for path in PACKAGES.glob("*/src/colibri/*/__init__.py")}
    assert rooms
    assert all(f"colibri.{room}\n" in named for room in rooms)


@pytest.mark.parametrize("room", ["core", "testbed"])
def test_the_top_level_of_core_and_testbed_needs_no_torch(room: str) -> None:
    for path in (PACKAGES / room / "src" / "colibri" / room).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [node for node in top if "torch" in ast.dump(node)], path
