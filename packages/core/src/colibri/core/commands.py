"""A program of several commands, `PROGRAM COMMAND FLAGS`: help, choice, errors as one line."""

import errno
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from colibri.core.errors import UserError

UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
}
"""Errors of the place that a user named."""


@dataclass(frozen=True, slots=True)
class Command:
    """What one command does."""

    run: Callable[[list[str]], int]
    """Its flags in, the exit status out."""
    summary: str
    """A line of the program's help."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a console script offers."""

    name: str
    description: str
    commands: Mapping[str, Command]
    notes: Sequence[str] = ()
    """Lines of the help after the commands."""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command that `argv` (`sys.argv` when None) begins with; the exit status: 2 for
        bad input, 130 when interrupted."""
        name, *rest = (list(sys.argv[1:] if argv is None else argv)) or [""]
        if name in ("", "-h", "--help"):
            print(self.help())
            return 0 if name else 2
        if name not in self.commands:
            known = f"see {self.name} --help"
            print(f"error: {self.name} has no command {name!r}; {known}", file=sys.stderr)
            return 2
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        return run_command(lambda: self.commands[name].run(rest))

    def help(self) -> str:
        """Every command with its line."""
        width = max(map(len, self.commands)) + 2
        lines = [self.description, "", f"usage: {self.name} COMMAND ...", ""]
        lines += [f"  {name:<{width}}{one.summary}" for name, one in self.commands.items()]
        lines += [*self.notes, "", f"{self.name} COMMAND --help tells the flags of one."]
        return "\n".join(lines)


def run_command(command: Callable[[], int]) -> int:
    """Run a command line's body: a UserError, or a place that cannot be written, becomes one line
    on stderr and exit status 2."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
