"""The data sets that `curate` reads. A new one is a module and a line here."""

import difflib
import importlib

from colibri.core.errors import UserError
from colibri.curate.sources.base import Source
from colibri.curate.sources.humanvid import HumanVid
from colibri.curate.sources.magicmotion import MagicMotion
from colibri.curate.sources.openvid import OpenVid

SOURCES: dict[str, Source] = {
    source.name: source for source in (MagicMotion(), OpenVid(), HumanVid())
}


def get_source(name: str) -> Source:
    """A source by name, or by `module:attribute` for one of your own."""
    if name in SOURCES:
        return SOURCES[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
            source: Source = found() if isinstance(found, type) else found
            _ = source.name, source.licence, source.find, source.clips
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise UserError(f"source {name!r} cannot be loaded: {error}") from None
        return source
    near = difflib.get_close_matches(name, SOURCES, n=1)
    hint = (
        f"did you mean {near[0]}?" if near else f"known: {', '.join(SOURCES)}, or module:attribute"
    )
    raise UserError(f"there is no source {name!r}", hint=hint)
