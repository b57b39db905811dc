"""One HTML page of a folder's videos with prompts, recipes and scores. It asks nothing of anyone.

Whatever a file says, name, prompt or recipe, is text on the page and never markup.
"""

import base64
import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from urllib.parse import quote

from colibri.core.errors import UserError
from colibri.core.shards import write_text_whole
from colibri.infer.outputs import check_file, videos_below, writing
from colibri.infer.recipe import Made, Recipe, read_video, to_json
from colibri.infer.scores import Scores, measure_scores, read_scores

EMBED_BYTES = 48_000_000
"""Videos of more than this together are linked, not embedded, unless it is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One video of the page."""

    path: Path
    recipe: Recipe | None
    made: Made | None
    scores: Scores | None


def write_gallery(
    folder: Path,
    out: Path | None = None,
    *,
    embed: bool | None = None,
    title: str = "Videos",
    score: bool = False,
) -> Path:
    """Write the page of every MP4 below `folder`, by prompt and seed; returns its path.

    `embed` puts the videos into the page itself; False links them; None decides by their size.
    Scores are those in the JSON beside each video; `score` measures them first, and writes them
    there, where a scorer applies.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    out = out or folder / "gallery.html"
    check_file(out)
    paths = videos_below(folder)
    if not paths:
        raise UserError(f"{folder} holds no .mp4")
    entries = sorted((_entry(path, score=score) for path in paths), key=_order)
    if embed is None:
        embed = sum(path.stat().st_size for path in paths) <= EMBED_BYTES
    base = out.parent.resolve()
    cards = "\n".join(_card(entry, base, embed=embed) for entry in entries)
    page = (files("colibri.infer") / "gallery.html").read_text("utf-8")
    lead = _lead(entries)
    for mark, value in (("TITLE", html.escape(title)), ("LEAD", html.escape(lead))):
        page = page.replace(f"<!--{mark}-->", value)
    with writing(out):
        write_text_whole(out, page.replace("<!--CARDS-->", cards))  # last: it holds foreign text
    return out


def _entry(path: Path, *, score: bool) -> Entry:
    try:
        recipe, made = read_video(path)
    except UserError:
        return Entry(path=path, recipe=None, made=None, scores=None)
    scores = measure_scores(path, recipe, made) if score else None
    return Entry(path=path, recipe=recipe, made=made, scores=scores or read_scores(path, recipe))


def _lead(entries: Sequence[Entry]) -> str:
    """How many, by what, and the mean of each score over the videos that have it."""
    models = sorted({entry.recipe.model.family for entry in entries if entry.recipe})
    lead = f"{len(entries)} video" + ("s" if len(entries) > 1 else "")
    lead += f", made by {', '.join(models)}" if models else ""
    values: dict[str, list[float]] = {}
    for entry in entries:
        for name, value in entry.scores.main.items() if entry.scores else ():
            values.setdefault(name, []).append(value)
    means = [f"{name} {fmean(some):.3f} of {len(some)}" for name, some in sorted(values.items())]
    return lead + (f"; mean scores: {', '.join(means)}" if means else "")


def _order(entry: Entry) -> tuple[bool, str, int, str]:
    recipe = entry.recipe
    return (
        recipe is None,
        recipe.prompt if recipe else "",
        recipe.seed if recipe else 0,
        entry.path.name,
    )


def _card(entry: Entry, base: Path, *, embed: bool) -> str:
    name = html.escape(entry.path.name)
    player = (
        f'<video controls loop muted playsinline preload="{"auto" if embed else "metadata"}" '
        f'src="{_source(entry.path, base, embed=embed)}"></video>'
    )
    recipe, made = entry.recipe, entry.made
    if recipe is None or made is None:
        return f"<article>{player}<div><p>{name}</p><small>no recipe inside</small></div></article>"
    used = ""
    if recipe.prompt_used != recipe.prompt:
        used = (
            f'<p class="used"><b>given to the model</b> (by {html.escape(recipe.recap)}): '
            f'<bdi dir="auto">{html.escape(recipe.prompt_used)}</bdi></p>'
        )
    facts = (
        f"seed {recipe.seed} · {recipe.width}x{recipe.height} · {recipe.frames} frames at "
        f"{recipe.fps}/s · {recipe.sampler}, {recipe.flow.steps} steps · guidance "
        f"{recipe.guidance:g} · {recipe.model.family}"
        + (" · light decoder" if recipe.decoder else "")
    )
    table = json.dumps(to_json(recipe, made), indent=2, ensure_ascii=False, sort_keys=True)
    return (
        f'<article>{player}<div><p class="prompt"><bdi dir="auto">{html.escape(recipe.prompt)}'
        f"</bdi></p>{used}{_scores(entry.scores)}<small>{html.escape(facts)}</small>"
        f"<details><summary>{name}: recipe</summary><pre>{html.escape(table)}</pre></details>"
        "</div></article>"
    )


def _scores(scores: Scores | None) -> str:
    if scores is None:
        return ""
    main = " · ".join(f"{name} {value:.3g}" for name, value in sorted(scores.main.items()))
    lines = [
        f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in sorted(part.items()))
        for name, part in sorted(scores.parts.items())
    ]
    lines += [f"by {scores.by}"] if scores.by else []
    return (
        f'<p class="scores" title="{html.escape(chr(10).join(lines))}">'
        f"{html.escape(main or lines[0])}</p>"
    )


def _source(path: Path, base: Path, *, embed: bool) -> str:
    if embed:
        return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
    relative = Path(os.path.relpath(path.resolve(), base)).as_posix()
    return html.escape(f"./{quote(relative)}")
