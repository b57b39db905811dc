"""One HTML page of a run: validation clips beside the teacher's, figures, curves.

It loads nothing from the net; videos lie beside it.
"""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colibri.core.shards import write_text_whole

CURVES = (
    ("validate/score", "score: the worst figure, 1 is the teacher's"),
    ("validate/prompt", "clips that their own prompt explains best"),
    ("validate/motion", "motion, the teacher's is 1"),
    ("validate/spread", "spread, the teacher's is 1"),
    ("validate/variety", "variety, the teacher's is 1"),
    ("loss/denoise", "critic's loss"),
    ("dmd/gradient_raw", "critic minus teacher, raw"),
    ("gradient_norm/student", "student's gradient norm"),
    ("gradient_norm/critic", "critic's gradient norm"),
    ("sample/saturated_percent", "saturated latents, percent"),
)

STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem; }
.clips figure { margin: 0; } .clips video { width: 100%; background: #8882; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
svg { width: 100%; height: 7rem; border: 1px solid #8884; }
polyline { fill: none; stroke: #2a7; stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.bad { color: #c33; }
"""


def write_page(
    path: Path,
    *,
    title: str,
    lines: Sequence[Mapping[str, Any]],
    clips: Sequence[tuple[str, Sequence[tuple[str, str]]]],
) -> None:
    """`lines` are those of log.jsonl; `clips` are (heading, ((video relative to the page, words),
    ...)), newest first."""
    parts = [f"<h1>{html.escape(title)}</h1>", _table(lines)]
    for heading, shown in clips:
        figures = "".join(
            f'<figure><video src="{html.escape(video)}" autoplay loop muted playsinline></video>'
            f"<figcaption>{html.escape(words)}</figcaption></figure>"
            for video, words in shown
        )
        parts.append(f'<h2>{html.escape(heading)}</h2><div class="clips">{figures}</div>')
    curves = "".join(_curve(name, words, lines) for name, words in CURVES)
    parts.append(f'<h2>Curves</h2><div class="curves">{curves}</div>')
    write_text_whole(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n",
    )


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a log; one that a kill has cut is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Validations, the newest first."""
    checked = [line for line in lines if "validate/score" in line]
    if not checked:
        return "<p>No validation yet.</p>"
    names = sorted({key for line in checked for key in line if key.startswith("validate/")})
    head = "".join(f"<th>{html.escape(name.split('/')[1])}</th>" for name in names)
    rows = []
    for line in reversed(checked):
        cells = "".join(
            f"<td>{line[name]:.3f}</td>" if isinstance(line.get(name), float) else "<td>-</td>"
            for name in names
        )
        said = line.get("complaint")
        note = f'<td class="bad">{html.escape(str(said))}</td>' if said else "<td></td>"
        rows.append(f"<tr><td>{line['step'] + 1}</td>{cells}{note}</tr>")
    return f"<table><tr><th>step</th>{head}<th></th></tr>{''.join(rows)}</table>"


def _curve(name: str, words: str, lines: Sequence[Mapping[str, Any]]) -> str:
    points = [
        (float(line["step"]), float(line[name]))
        for line in lines
        if isinstance(line.get(name), int | float)
    ]
    if len(points) < 2:
        return ""
    low, high = min(y for _, y in points), max(y for _, y in points)
    width, height = points[-1][0] - points[0][0] or 1.0, high - low or 1.0
    drawn = " ".join(
        f"{1000 * (x - points[0][0]) / width:.1f},{100 - 100 * (y - low) / height:.2f}"
        for x, y in points
    )
    return (
        f"<figure><figcaption>{html.escape(words)}: {low:.3g} to {high:.3g}, last "
        f'{points[-1][1]:.3g}</figcaption><svg viewBox="0 0 1000 100" preserveAspectRatio="none">'
        f'<polyline points="{drawn}"/></svg></figure>'
    )
