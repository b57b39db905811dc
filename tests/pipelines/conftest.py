"""Scripts that stand beside the packages, as modules."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Callable[[str], ModuleType]:
    """Loads a script by its place in the repository."""

    def load(place: str) -> ModuleType:
        path = ROOT / place
        spec = importlib.util.spec_from_file_location(place.replace("/", "_")[:-3], path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look there
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent))
        return module

    return load
