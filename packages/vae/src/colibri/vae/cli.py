"""The `vae` command."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `vae`; says that it is not built yet."""
    print("error: vae is not built yet; `curate` is the part that works today", file=sys.stderr)
    return 2
