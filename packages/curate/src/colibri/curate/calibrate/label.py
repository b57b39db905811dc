"""Label rows in a terminal, one key an answer. Captions are made harmless before they are shown."""

import os
import select
import shutil
import sys
import termios
import textwrap
import tty

from colibri.core.captions.rules import RULES
from colibri.core.errors import UserError
from colibri.curate.calibrate.journal import Session
from colibri.curate.calibrate.sample import LabelRow
from colibri.curate.report.page import RULE_NAMES, shown

SHOWN_CHARACTERS = 10_000

KEYS = "g good   b bad   1-6 mark a broken rule, then b   s skip   u undo   q save and quit"

ANSWER_OF = {"g": "good", "b": "bad", "s": "skip"}


def label_in_terminal(session: Session) -> None:
    """Ask until all rows have an answer or the person quits. UserError without a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("--terminal needs a terminal", hint="use --page")
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        _ask(session, keyboard)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _ask(session: Session, keyboard: int) -> None:
    marked: set[str] = set()
    while (row := session.next_row()) is not None:
        _show(row, session, marked)
        key = _key(keyboard)
        while key not in ANSWER_OF and key not in ("u", "q", *"123456"):
            key = _key(keyboard)
        if key == "q":
            return
        if key.isdigit():
            marked ^= {list(RULES)[int(key) - 1]}
            continue
        if key == "u":
            session.undo()
        else:
            session.answer(row.id, ANSWER_OF[key], sorted(marked))
        marked.clear()


def _show(row: LabelRow, session: Session, marked: set[str]) -> None:
    width = min(100, shutil.get_terminal_size().columns)
    lines = [f"{session.done + 1} of {session.total}"]
    for title, text in (("original", row.original), ("caption", row.caption)):
        lines += ["", f"\x1b[1m{title}\x1b[0m"]
        for paragraph in shown(text, SHOWN_CHARACTERS).split("\n"):
            lines += textwrap.wrap(paragraph, width - 4, initial_indent="  ",
                                   subsequent_indent="  ")  # fmt: skip
    lines.append("")
    lines += [f"broken: {rule} {RULE_NAMES[rule]}" for rule in sorted(marked)]
    lines += [f"\x1b[2m{line}\x1b[0m" for line in textwrap.wrap(KEYS, width)]
    sys.stdout.write("\x1b[2J\x1b[H" + "\n".join(lines) + "\n")
    sys.stdout.flush()


def _key(keyboard: int) -> str:
    """The next key in lower case; an arrow or function key is an empty one, a hang-up is q."""
    pressed = _read(keyboard)
    if pressed == b"\x1b":
        _skip_sequence(keyboard)
        return ""
    if pressed in (b"", b"\x04"):
        return "q"
    return pressed.decode("latin-1").lower()


def _skip_sequence(keyboard: int) -> None:
    """Read what follows an escape: one byte, or after [ and O all up to a final byte @ to ~."""
    part = b"["
    while part in (b"[", b"O") or b" " <= part < b"@":
        if not select.select([keyboard], [], [], 0.02)[0]:
            return
        part = _read(keyboard)


def _read(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 1)
    except OSError:
        return b""
