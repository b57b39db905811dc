"""Filters of prompts and frames: none unless asked for, a word list built in, or one's own.

A filter says why it refuses, or nothing. What it refuses is not made, or not written.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colibri.core.errors import UserError
from colibri.core.hashing import hash_file
from colibri.infer.decode import Frames
from colibri.infer.plugins import find_plugin
from colibri.infer.recipe import PluginUse

WORDS = "words:"


class Filter:
    """Lets everything pass. One's own is a subclass that overrides one method or both."""

    def prompt(self, text: str) -> str | None:
        """Why no video is made of this prompt; None where it passes."""
        return None

    def frames(self, frames: Frames) -> str | None:
        """Why these frames, uint8 (frames, height, width, 3), are not written; None where they
        pass. A long video comes in blocks."""
        return None


class Words(Filter):
    """Refuses prompts with a word of a list, whatever its case; parts of words do not count."""

    def __init__(self, words: Sequence[str]) -> None:
        either = "|".join(re.escape(one) for one in sorted(map(_plain, words), key=len)[::-1])
        self._pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)")
        self.count = len(words)

    def prompt(self, text: str) -> str | None:
        """The first word that is on the list."""
        found = self._pattern.search(_plain(text))
        return f"the word {found[0]!r} is on the list" if found else None


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Those of one run, in order; none is the default."""

    uses: tuple[PluginUse, ...] = ()
    filters: tuple[Filter, ...] = ()

    @property
    def see_frames(self) -> bool:
        """True where a filter looks at frames."""
        return any(type(one).frames is not Filter.frames for one in self.filters)

    def line(self) -> str:
        """What is filtered, for people; empty where nothing is."""
        if not self.uses:
            return ""
        named = ", ".join(use.name for use in self.uses)
        frames = "prompts and frames" if self.see_frames else "prompts"
        return f"Safety filter on {frames}: {named}."

    def check_prompt(self, text: str) -> None:
        """UserError where a filter refuses."""
        for use, one in zip(self.uses, self.filters, strict=True):
            if (why := one.prompt(text)) is not None:
                raise UserError(f"the prompt {text[:80]!r} is refused by {use.name}: {why}")

    def check_frames(self, frames: Frames) -> None:
        """`RefusedError` where a filter refuses."""
        for use, one in zip(self.uses, self.filters, strict=True):
            if (why := one.frames(frames)) is not None:
                raise RefusedError(f"the video is refused by {use.name}: {why}")


NONE = Filters()


class RefusedError(UserError):
    """A filter did not let frames pass."""


def open_filters(names: Sequence[str]) -> Filters:
    """The filters of `--safety`. UserError for a list that cannot be read, or no filter."""
    found = [_words(name) if name.startswith(WORDS) else _own(name) for name in names]
    return Filters(uses=tuple(use for _, use in found), filters=tuple(one for one, _ in found))


def filters_of(uses: Sequence[PluginUse]) -> Filters:
    """Those of a recipe, for frames that are decoded later: word lists have done their part.

    UserError where one has changed since.
    """
    found = open_filters([use.name for use in uses if not use.name.startswith(WORDS)])
    wanted = {use.name: use for use in uses}
    for use in found.uses:
        if use != wanted[use.name]:
            raise UserError(f"the filter {use.name} is not the one that the recipe names")
    return found


def _words(name: str) -> tuple[Filter, PluginUse]:
    path = Path(name.removeprefix(WORDS))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"--safety {name}: {path} is not a text file that can be read",
            hint="give a file with a word or phrase a line",
        ) from None
    words = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not words:
        raise UserError(f"--safety {name}: {path} holds no words")
    return Words(words), PluginUse(name=name, sha256=hash_file(path))


def _own(name: str) -> tuple[Filter, PluginUse]:
    if ":" not in name:
        raise UserError(f"there is no --safety {name}", hint="words:FILE, or MODULE:NAME")
    found, use = find_plugin("--safety", name)
    one = found() if isinstance(found, type) and issubclass(found, Filter) else found
    if not isinstance(one, Filter):
        raise UserError(f"--safety {name} is no colibri.infer.safety.Filter")
    return one, use


def _plain(text: str) -> str:
    """One case, one form of each letter, one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
