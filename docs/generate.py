#!/usr/bin/env python3
"""Write what the site takes from the code: docs/reference.md and the picture of the architecture.

`docs/generate.py` writes them, `docs/generate.py --check` fails where they are not as the code is.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

DOCS = Path(__file__).resolve().parent
LAYERS = (("umbrella",), ("infer",), ("curate", "distill", "vae"), ("testbed",), ("core",))
SAYS = {
    "umbrella": "colibri: lineage, scores, report",
    "infer": "videos, few-bit weights",
    "curate": "clips → shards",
    "distill": "teacher → student",
    "vae": "light decoders",
    "testbed": "a small world with known truth",
    "core": "nouns, captions, Wan",
}


def main() -> int:
    made = {DOCS / "reference.md": reference(), DOCS / "images" / "architecture.svg": picture()}
    if "--check" in sys.argv[1:]:
        stale = [
            path for path, text in made.items() if not path.exists() or path.read_text() != text
        ]
        for path in stale:
            print(f"{path} is not as the code is; run docs/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


# ---- schemas and manifests ----


def reference() -> str:
    from colibri.core import geometry, latents, schedule, shards
    from colibri.core.wan import family
    from colibri.distill import encodings
    from colibri.infer import recipe, scores

    parts = [
        "# Schemas and manifests",
        "Written by `docs/generate.py` from the code; what the columns of shards mean is in "
        "[Formats](formats.md).",
        "## Shards of `curate run`",
        *(
            f"### `{folder}/*.parquet`\n\n" + _table(schema)
            for folder, schema in (
                ("data", shards.SHARD_SCHEMA),
                ("rejected", shards.REJECTED_SCHEMA),
                ("quarantine", shards.QUARANTINE_SCHEMA),
            )
        ),
        f"## Encodings of `distill encode`\n\n`manifest.json`, format `{encodings.FORMAT}`, "
        f"text shards `{encodings.TEXT_FORMAT}`.",
        _fields(encodings, "EncodedManifest"),
        _fields(encodings, "EncodedShard"),
        f"## Latent files\n\nsafetensors, format `{latents.FORMAT}`, under the metadata key "
        f"`{latents.KEY}`.",
        _fields(latents, "LatentFile"),
        _fields(geometry, "Codec"),
        "## Model folders\n\n`colibri.json` in a diffusers folder.",
        _fields(family, "Defaults"),
        _fields(family, "Causal"),
        _fields(schedule, "FlowSchedule"),
        f"## The recipe of a video\n\nIn the MP4's field `{recipe.KEY}` and in `NAME.json`, format "
        f"`{recipe.FORMAT}`.",
        _fields(recipe, "Recipe"),
        _fields(recipe, "ModelUse"),
        _fields(recipe, "LoraUse"),
        _fields(recipe, "DecoderUse"),
        _fields(recipe, "PluginUse"),
        _fields(recipe, "Made"),
        f"## Scores\n\nThe table `{scores.KEY}` in `NAME.json`.",
        _fields(scores, "Scores"),
    ]
    return "\n\n".join(parts) + "\n"


def _table(schema: Any) -> str:
    rows = [f"| `{field.name}` | {_escaped(str(field.type))} |" for field in schema]
    return "\n".join(["| column | type |", "|---|---|", *rows])


def _fields(module: ModuleType, name: str) -> str:
    kind = getattr(module, name)
    docs = _attribute_docs(module, name)
    rows = [
        f"| `{field.name}` | {_escaped(_type(field.type))} | {_escaped(docs.get(field.name, ''))} |"
        for field in dataclasses.fields(kind)
    ]
    lines = [
        f"### {name}",
        "",
        inspect.getdoc(kind) or "",
        "",
        "| field | type | |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *rows])


def _attribute_docs(module: ModuleType, name: str) -> dict[str, str]:
    """The string under each annotated attribute."""
    tree = ast.parse(inspect.getsource(module))
    (body,) = (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    docs = {}
    for before, after in itertools.pairwise(body):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            docs[before.target.id] = " ".join(str(after.value.value).split())
    return docs


def _type(hint: Any) -> str:
    """A type as it stands in the code."""
    if isinstance(hint, str):
        return hint
    name = getattr(hint, "__name__", None) if not typing.get_args(hint) else None
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", name or str(hint))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# ---- the picture ----


def picture() -> str:
    """Rooms in layers, with an arrow from each to what it imports, less what follows."""
    import grimp

    rooms = [room for layer in LAYERS for room in layer]
    graph = grimp.build_graph(*(f"colibri.{room}" for room in rooms), cache_dir=None)
    place: dict[str, tuple[float, float]] = {}
    for level, layer in enumerate(LAYERS):
        for index, room in enumerate(layer):
            x = 400 + (index - (len(layer) - 1) / 2) * 250
            place[room] = (x, 50 + level * 110)
    imports = {
        (above, below)
        for above in rooms
        for below in rooms
        if above != below
        and graph.find_matching_direct_imports(
            import_expression=f"colibri.{above}.** -> colibri.{below}.**"
        )
    }
    direct = [
        (above, below)
        for above, below in sorted(imports)
        if not any((above, room) in imports and (room, below) in imports for room in rooms)
    ]
    arrows, boxes = [], []
    for above, below in direct:
        (x0, y0), (x1, y1) = place[above], place[below]
        bend = 130 if x0 == x1 and y1 - y0 > 120 else 0
        arrows.append(
            f'<path d="M{x0:.0f} {y0 + 28:.0f}Q{(x0 + x1) / 2 + bend:.0f} {(y0 + y1) / 2:.0f} '
            f'{x1:.0f} {y1 - 30:.0f}" marker-end="url(#tip)"/>'
        )
    for room, (x, y) in place.items():
        boxes.append(
            f'<rect x="{x - 105:.0f}" y="{y - 28:.0f}" width="210" height="56" rx="12"/>'
            f'<text x="{x:.0f}" y="{y - 3:.0f}" class="name">{room}</text>'
            f'<text x="{x:.0f}" y="{y + 16:.0f}">{SAYS[room]}</text>'
        )
    style = (
        "path{fill:none;stroke:#9aa7ab}rect{fill:#fff;stroke:#1f7a5c;stroke-width:1.5}"
        "text{font:13px sans-serif;fill:#647078;text-anchor:middle}"
        ".name{font-weight:600;fill:#1d2326;font-size:15px}"
    )
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 545" role="img">',
            f"<style>{style}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#9aa7ab"/>'
            "</marker></defs>",
            *arrows,
            *boxes,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
