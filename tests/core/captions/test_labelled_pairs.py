"""The rules against hand-labelled pairs: a floor that no change may fall below."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def scorer() -> ModuleType:
    """The benchmark that prints the table."""
    path = ROOT / "benchmarks" / "caption_rules.py"
    spec = importlib.util.spec_from_file_location("caption_rules", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["caption_rules"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["caption_rules", "caption_rules_independent"])
def test_every_rule_agrees_with_the_labels(scorer: ModuleType, name: str) -> None:
    pairs = scorer.read_pairs(ROOT / "tests" / "data" / f"{name}.txt")
    scores, alarms = scorer.score(pairs)
    for rule, entry in scores.items():
        assert entry["labelled"] >= 12
        assert entry["f1"] >= 0.95, rule
    assert alarms <= 0.02


@pytest.mark.parametrize(
    ("name", "floor"),
    [("caption_rules_fresh", 0.9), ("caption_rules_third", 0.9), ("caption_rules_fourth", 0.79)],
)
def test_pairs_of_new_domains_raise_no_false_alarms(
    scorer: ModuleType, name: str, floor: float
) -> None:
    pairs = scorer.read_pairs(ROOT / "tests" / "data" / f"{name}.txt")
    scores, alarms = scorer.score(pairs)
    assert alarms <= 0.02
    assert min(entry["f1"] for entry in scores.values()) >= floor
