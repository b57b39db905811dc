"""The arrows between the rooms, and the namespace that holds them together."""

import ast
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[1] / "packages"

MAY_IMPORT = {
    "core": set(),
    "testbed": {"core"},
    "curate": {"core", "testbed"},
    "vae": {"core", "testbed"},
    "distill": {"core", "testbed"},
    "infer": {"core", "testbed", "vae"},
    "umbrella": {"core"},
}
"""core <- testbed <- curate | distill | vae <- infer. Nothing else."""


def _modules() -> list[Path]:
    return sorted(PACKAGES.glob("*/src/colibri/**/*.py"))


def _room(path: Path) -> str:
    parts = path.parts
    return parts[parts.index("src") + 2]


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_no_package_claims_the_namespace() -> None:
    assert not list(PACKAGES.glob("*/src/colibri/__init__.py"))


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGES)))
def test_a_room_imports_only_rooms_below_it(path: Path) -> None:
    room = _room(path)
    rooms = {name.split(".")[1] for name in _imports(path) if name.startswith("colibri.")}
    assert rooms <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("room", ["core", "testbed"])
def test_the_top_level_of_core_and_testbed_needs_no_torch(room: str) -> None:
    for path in (PACKAGES / room / "src" / "colibri" / room).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [node for node in top if "torch" in ast.dump(node)], path
