"""The `distill` command."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `distill`; says that it is not built yet."""
    print("error: distill is not built yet; `curate` is the part that works today", file=sys.stderr)
    return 2
