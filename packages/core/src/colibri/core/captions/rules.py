"""The six rules of a training caption, and extra checks.

1 starts directly with the main subject or scene; 2 describes only what the original mentions, with
its main subject; 3 no cinematography; 4 nothing new; 5 no analysis, instructions or explanations;
6 no first person. Findings that code cannot decide are ambiguous and violate nothing.
"""

from collections.abc import Iterable
from typing import Protocol

from colibri.core.captions.commentary import r5
from colibri.core.captions.filming import r3
from colibri.core.captions.first_person import r6
from colibri.core.captions.form import x_cutoff, x_language, x_length, x_quoted, x_repetition
from colibri.core.captions.language import described
from colibri.core.captions.novelty import r4, r4_of
from colibri.core.captions.openings import r1
from colibri.core.captions.subject import r2, r2_of
from colibri.core.captions.text import analyse
from colibri.core.clip import Finding


class Rule(Protocol):
    """A pure function from an original caption and its rewrite to what is wrong."""

    def __call__(self, *, original: str, caption: str) -> tuple[Finding, ...]: ...


RULES: dict[str, Rule] = {"R1": r1, "R2": r2, "R3": r3, "R4": r4, "R5": r5, "R6": r6}

EXTRA_CHECKS: dict[str, Rule] = {
    "X-cutoff": x_cutoff,
    "X-language": x_language,
    "X-length": x_length,
    "X-quoted": x_quoted,
    "X-repetition": x_repetition,
}


def check(original: str, caption: str) -> tuple[Finding, ...]:
    """Everything that the rules and the extra checks find, by rule and place.

    Tags, control characters and orders to a machine in the original count for nothing.
    """
    original = described(original)
    first, second = analyse(original), analyse(caption)
    surface = {
        name: RULES[name](original=original, caption=caption) for name in ("R1", "R3", "R5", "R6")
    }
    others = [finding for findings in surface.values() for finding in findings]
    content = {"R2": r2_of(first, second), "R4": r4_of(first, second, others=others)}
    by_rule = surface | content
    found = [finding for name in RULES for finding in by_rule[name]]
    for rule in EXTRA_CHECKS.values():
        found += rule(original=original, caption=caption)
    return tuple(found)


def violates(findings: Iterable[Finding]) -> list[str]:
    """Rules that are clearly broken: ids R1..R6, sorted; ambiguous findings and extras are not."""
    return sorted({f.rule for f in findings if f.rule in RULES and not f.ambiguous})
