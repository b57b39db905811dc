"""The word lists that more than one module reads; data/*.txt tells what each holds."""

from colibri.core.captions import tables

PLAIN = tables.lists("plain")
LIGHT = PLAIN["light"]
RECORDING = PLAIN["recording"]
GROUPS = PLAIN["groups"]
BODY = PLAIN["body"]

COLOURS = tables.heads("colours")
"""The colour of each shade."""
MATERIALS = tables.heads("materials")
"""The material of each kind: `oak` is `wood`."""

OPPOSITES = tables.opposites("opposites")
OPPOSITE_ACTS = tables.opposites("opposite_acts")

NEGATORS = frozenset(
    "no not without never neither nor none nobody nothing n't cannot hardly barely scarcely".split()
)
