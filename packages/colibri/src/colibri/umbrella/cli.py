"""`colibri NAME ...` is `NAME ...`: found among the installed console commands, so that only what
is installed is offered."""

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

NAMES = ("curate", "vae", "distill", "infer")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `colibri`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {entry.name: entry for entry in entry_points(group="console_scripts")}
    if not arguments or arguments[0] in ("-h", "--help"):
        installed = [name for name in NAMES if name in commands]
        print("usage: colibri COMMAND ...\n")
        print("\n".join(f"  {name}" for name in installed))
        print("\ncolibri COMMAND --help tells more.")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in NAMES:
        print(f"error: colibri has no command {name!r}; see colibri --help", file=sys.stderr)
        return 2
    if name not in commands:
        print(f"error: {name} is not installed; pip install colibri-{name}", file=sys.stderr)
        return 2
    status: int = commands[name].load()(rest)
    return status
