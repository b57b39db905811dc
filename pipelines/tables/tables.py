#!/usr/bin/env python3
"""Our figures beside published ones: tables.md and tables.html from files of figures.

    python pipelines/tables/tables.py --results benchmarks/results --out docs/results

Ours come from the JSON of the benchmarks alone, theirs from published.toml. What the sentences say
is computed. A table whose file is missing names the command that makes it. `NAME.full.json`, which
`pipelines/metrics/metrics.py` writes, adds rows of full-size models.
"""

import argparse
import html
import itertools
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from colibri.core.shards import write_text_whole

HERE = Path(__file__).resolve().parent
Want = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of one row, over its seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def spread(self) -> float:
        """From the lowest seed to the highest; 0 for one seed."""
        return max(self.values) - min(self.values)

    def text(self, digits: int) -> str:
        """The mean, and the range where there are several seeds."""
        mean = f"{self.mean:,.{digits}f}"
        if len(self.values) < 2:
            return mean
        return f"{mean} ({min(self.values):,.{digits}f} to {max(self.values):,.{digits}f})"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of ours, and the published one which it stands beside."""

    head: str
    of: Callable[[Any], float | None]
    """From a row of the results."""
    want: Want | None = None
    theirs: str | None = None
    digits: int = 1


@dataclass(frozen=True, kw_only=True)
class Table:
    """One of the published tables."""

    name: str
    """Of the file of figures, and of the published figures."""
    title: str
    says: str
    command: str
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[str, str | None]]
    """Ours by key: label, and the published row."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Heads of the published columns."""


def _at(*path: str, times: float = 1.0) -> Callable[[Any], float | None]:
    def of(row: Any) -> float | None:
        for step in path:
            if not isinstance(row, dict) or step not in row:
                return None
            row = row[step]
        return None if row is None else float(row) * times

    return of


def _window(name: str, index: int, times: float = 1.0) -> Callable[[Any], float | None]:
    def of(row: Any) -> float | None:
        curve = row.get("by_window", {}).get(name)
        return None if curve is None else float(curve[index]) * times

    return of


def _last_total(row: Any) -> float | None:
    quality, semantic = _window("quality", -1, 100)(row), _window("semantic", -1, 100)(row)
    return None if quality is None or semantic is None else (4 * quality + semantic) / 5


MODELS = {
    "teacher-raw": ("teacher, without recap", "Wan-2.2-5B, without recap"),
    "teacher-recap": ("teacher, with recap", "Wan-2.2-5B, with recap"),
    "student-raw": ("student, without recap", "Hummingbird-XT, without recap"),
    "student-recap": ("student, with recap", "Hummingbird-XT, with recap"),
}
OF_100 = {"quality": "Quality", "semantic": "Semantic", "total": "Total"}

TABLES = (
    Table(
        name="t2v",
        title="Table 1: from text",
        says="Held-out scenes, asked for as people and captioners write (short, long, about the "
        "camera, in the first person), as they are and rewritten by the rule engine. Ours: the "
        "small world's scorer, of 100; published: VBench.",
        command="python benchmarks/published_tables.py t2v --seeds 0,1,2",
        columns=tuple(
            Column(head=head, of=_at(name, times=100), want="higher", theirs=name, digits=2)
            for name, head in OF_100.items()
        ),
        rows=MODELS,
        units=OF_100,
    ),
    Table(
        name="i2v",
        title="Table 2: from a first frame",
        says="Does what the first frame shows stay? Ours: colour of the subject and of the "
        "background against the frame, of 100, without learned features; published: VBench-I2V.",
        command="python benchmarks/published_tables.py i2v --seeds 0,1,2",
        columns=tuple(
            Column(head=head, of=_at(name, times=100), want="higher", theirs=name, digits=2)
            for name, head in (
                ("subject", "Subject"),
                ("background", "Background"),
                ("quality", "Quality"),
            )
        ),
        rows=MODELS,
        units={"subject": "Subject", "background": "Background", "quality": "Quality"},
    ),
    Table(
        name="runtime",
        title="Table 3: seconds of a video",
        says="Ours: 17 frames of 64x64, loading left out, median of rounds by turns. Published: "
        "121 frames of 1280x704.",
        command="python benchmarks/published_tables.py runtime --decoder FOLDER",
        columns=(
            Column(head="text s", of=_at("text_s"), digits=3),
            Column(head="denoise s", of=_at("denoise_s"), digits=3),
            Column(head="decode s", of=_at("decode_s"), digits=3),
            Column(head="total s", of=_at("total_s"), want="lower", theirs="mi325x_s", digits=3),
        ),
        rows={
            "teacher": ("teacher", "Wan-2.2-5B"),
            "student": ("student, teacher's decoder", None),
            "student-light": ("student, light decoder", "Hummingbird-XT"),
        },
        units={
            "mi300x_s": "MI300X s",
            "mi325x_s": "MI325X s",
            "strix_halo_s": "Strix Halo s",
            "navi48_s": "Navi48 s",
        },
    ),
    Table(
        name="vae_table",
        title="Table 4: decoders",
        says="Ours: held-out rendered clips, all decoders but the shipped one trained for the same "
        "time; memory of one long video. Published: UCF-101 at 256x256, seconds and memory of 121 "
        "frames of 1280x704. LPIPS and FVD need their real weights and stand in rows of full-size "
        "models only.",
        command="python benchmarks/vae_table.py --seconds 600",
        columns=(
            Column(head="LPIPS", of=_at("lpips"), want="lower", theirs="lpips", digits=4),
            Column(head="FVD", of=_at("fvd"), want="lower", digits=2),
            Column(head="PSNR", of=_at("psnr"), want="higher", theirs="psnr", digits=2),
            Column(head="SSIM", of=_at("ssim"), want="higher", theirs="ssim", digits=4),
            Column(head="flicker", of=_at("flicker"), want="lower", digits=2),
            Column(
                head="ms a frame", of=_at("ms_per_frame"), want="lower", theirs="seconds", digits=2
            ),
            Column(head="peak MB", of=_at("peak_mb"), want="lower", theirs="memory_gb"),
        ),
        rows={
            "teacher-diffusers": ("teacher, diffusers' way", "Wan-2.2 VAE"),
            "teacher": ("teacher, here", None),
            "shipped": ("the light decoder that is shipped: causal, trained longer", None),
            "2d": ("2D, TAEHV's form", "TAEW2.2"),
            "tiny": ("light, causal", None),
            "tiny-both": ("light, non-causal", "Hummingbird-XT's"),
            "warm": ("from the teacher's channels, without features: causal", None),
            "warm-both": ("the same, non-causal", None),
            "warm-micro": ("the same, smaller, causal", None),
            "warm-micro-both": ("the same, smaller, non-causal", None),
        },
        units={
            "lpips": "LPIPS",
            "psnr": "PSNR",
            "ssim": "SSIM",
            "seconds": "s",
            "memory_gb": "GB",
        },
    ),
    Table(
        name="long_tables",
        title="Table 5: long videos",
        says="One recipe with one thing changed a row. Kept: the semantic score of the last window "
        "over that of the first; colour, sharpness: the last window against the first (no drift: 0 "
        "and 1); flicker: 1 less the scorer's steadiness, last window. Published: other "
        "models by a flicker metric that is not defined there.",
        command="python benchmarks/long_tables.py",
        columns=(
            Column(head="FPS", of=_at("frames_per_s"), want="higher"),
            Column(head="flicker", of=_window("flicker", -1), want="lower", digits=4),
            Column(head="DOVER", of=_at("dover"), want="higher", digits=2),
            Column(head="colour", of=_window("colour_change", -1), want="lower", digits=2),
            Column(head="sharpness", of=_window("sharpness", -1), digits=2),
            Column(head="kept", of=_at("kept"), want="higher", digits=3),
            Column(head="Quality", of=_window("quality", -1, 100), want="higher", digits=2),
            Column(head="Semantic", of=_window("semantic", -1, 100), want="higher", digits=2),
            Column(head="Total", of=_last_total, want="higher", digits=2),
        ),
        rows={
            "shipped": ("the long model that is shipped", None),
            "base": ("window 4, sink 1, start on paths, self-forcing, long", None),
            "no-long": ("without the long stage", None),
            "start-only": ("teacher forcing alone", None),
            "no-start": ("self-forcing without a start", None),
            "consistency": ("start by causal consistency", None),
            "window-2": ("window 2", None),
            "window-6": ("window 6", None),
            "one-pass": ("no pass to write the cache: the past as its last step saw it", None),
            "no-sink": ("trained without a sink", None),
            "no-sink-5": ("no sink, as many keys", None),
            "sink-off": ("run without its sink", None),
        },
        units={
            "fps": "FPS",
            "flicker": "flicker",
            "dover": "DOVER",
            "quality": "Quality",
            "semantic": "Semantic",
            "total": "Total",
        },
    ),
    Table(
        name="distill_tables",
        title="Figure 1: what captions do to a student",
        says="Students trained alike, on captions of one style each; scored on the same held-out "
        "prompts, from text. The publication shows pictures.",
        command="python benchmarks/distill_tables.py --rows "
        "base,captions-action-only,captions-over-long,captions-camera-heavy",
        columns=(
            Column(head="Semantic", of=_at("text", "semantic", times=100), want="higher", digits=2),
            Column(head="Quality", of=_at("text", "quality", times=100), want="higher", digits=2),
            Column(
                head="solidity (ghosts lower it)",
                of=_at("text", "parts", "quality", "solidity", times=100),
                digits=2,
            ),
            Column(
                head="count right",
                of=_at("text", "parts", "semantic", "count", times=100),
                digits=2,
            ),
            Column(head="smoothness", of=_at("text", "parts", "quality", "smoothness", times=100)),
            Column(head="motion", of=_at("text", "motion"), digits=4),
        ),
        rows={
            "base": ("curated", None),
            "captions-action-only": ("action-only", None),
            "captions-over-long": ("over-long", None),
            "captions-camera-heavy": ("camera-heavy", None),
        },
    ),
)

CLAIMED: dict[str, Callable[[Any], float | None]] = {
    "kept": _at("kept"),
    "colour_change": _window("colour_change", -1),
    "semantic": _window("semantic", -1),
    "frames_per_s": _at("frames_per_s"),
    "solidity": _at("text", "parts", "quality", "solidity"),
    "smoothness": _at("text", "parts", "quality", "smoothness"),
    "count": _at("text", "parts", "semantic", "count"),
    "motion": _at("text", "motion"),
}
"""Figures that the published claims are held against."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--published", type=Path, default=HERE / "published.toml")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--check", action="store_true", help="fail where it would change a file")
    arguments = parser.parse_args()
    blocks = list(page(arguments.results, tomllib.loads(arguments.published.read_text("utf-8"))))
    made = {"tables.md": markdown(blocks), "tables.html": web(blocks)}
    stale = False
    for name, text in made.items():
        path = arguments.out / name
        if arguments.check:
            if not path.is_file() or path.read_text("utf-8") != text:
                print(f"{path} is not what the results say; run this without --check")
                stale = True
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(path, text)
        print(path)
    return int(stale)


# ---- what stands on the page ----

Block = (
    tuple[Literal["title", "head", "text", "command"], str]
    | tuple[Literal["table"], tuple[list[str], list[list[str]]]]
)


def page(results: Path, published: dict[str, Any]) -> Iterator[Block]:
    """The page's parts, in order."""
    source = published["source"]
    yield "title", "The published tables"
    yield (
        "text",
        f"Beside each of our figures stands the one that was published: {source['title']}, "
        f"{source['date']}, {source['url']} (text: {source['text']}). Ours are of the tiny models "
        "in the small world unless a row says full size: orders can be compared, levels cannot. "
        "A range is from the lowest seed to the highest.",
    )
    for table in TABLES:
        yield "head", table.title
        yield "text", table.says
        found = {kind: read_results(results / f"{table.name}{kind}.json") for kind in KINDS}
        if not any(found.values()):
            yield "text", "Not run. This makes it:"
            yield "command", table.command
        for kind, figures in found.items():
            if figures:
                yield from _of(table, figures, published, KINDS[kind])
        paired = any(theirs for _, theirs in table.rows.values())
        if table.units and not (paired and any(found.values())):
            yield "text", "Published:"
            yield "table", _theirs(table, published[table.name])
        if figures := found[""]:
            for sentence in claims(table.name, figures["rows"], published["claims"]):
                yield "text", sentence


KINDS = {"": "", ".full": ", full size"}
"""Of files of figures, and what their rows are called."""


def read_results(path: Path) -> dict[str, Any]:
    """A file of figures with rows as lists of one entry a seed; {} where it is missing."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    rows: dict[str, list[Any]] = {}
    if isinstance(found["rows"], list):  # means, with what differs by seed under `runs`
        for row in found["rows"]:
            rows[row["row"]] = [{**row, **run} for run in row.get("runs", [row])]
    else:
        for key, row in found["rows"].items():
            rows.setdefault(key.rpartition("/")[0] or key, []).append(row)
    return found | {"rows": rows}


def figure(row: Sequence[Any], of: Callable[[Any], float | None]) -> Figure | None:
    """One figure of a row over its seeds; None where no seed has it."""
    values = tuple(value for one in row if (value := of(one)) is not None)
    return Figure(values=values) if values else None


def _of(
    table: Table, found: dict[str, Any], published: dict[str, Any], kind: str
) -> Iterator[Block]:
    rows, theirs = found["rows"], published.get(table.name, {})
    shown = [
        column for column in table.columns if any(figure(row, column.of) for row in rows.values())
    ]
    paired = [name for name in table.units if any(there for _, there in table.rows.values())]
    speed = table.name == "runtime" and "teacher" in rows
    head = ["", *(column.head for column in shown), *["times faster"] * speed, "seeds"]
    head += [f"published {table.units[name]}" for name in paired] + ["published row"] * bool(paired)
    lines = []
    for key in [*table.rows, *(key for key in rows if key not in table.rows and kind)]:
        label, there = table.rows.get(key, (key, None))
        published = theirs.get(there, {})
        line = [label + kind]
        if key not in rows and not published:
            continue
        if key in rows:
            for column in shown:
                one = figure(rows[key], column.of)
                line.append(one.text(column.digits) if one else "")
            if speed:
                line.append(f"{_seconds(rows['teacher']) / _seconds(rows[key]):.1f}")
            line.append(str(len(rows[key])))
        else:
            line += ["not run", *[""] * (len(shown) + speed)][: len(shown) + speed + 1]
        line += [_plain(published.get(name)) for name in paired]
        line += [there or ""] * bool(paired)
        lines.append(line)
    yield "table", (head, lines)
    about = [f"{found['date']}", found.get("machine", ""), found.get("device", "")]
    settings = ", ".join(f"{name} {value}" for name, value in found.get("settings", {}).items())
    yield "text", "; ".join(part for part in (*about, settings) if part) + "."
    for name, why in found.get("missing", {}).items():
        yield "text", f"{table.rows.get(name, (name,))[0]}: not run, {why}."
    if speed:
        yield "text", speed_up(rows, theirs)
    if paired and (sentence := agreement(table, rows, theirs)):
        yield "text", sentence


def _theirs(table: Table, published: dict[str, dict[str, float]]) -> tuple[list[str], Any]:
    lines = [
        [name, *(_plain(row.get(unit)) for unit in table.units)] for name, row in published.items()
    ]
    return ["", *table.units.values()], lines


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _seconds(row: Sequence[Any]) -> float:
    return fmean(one["total_s"] for one in row)


# ---- what the figures say ----


def agreement(
    table: Table, rows: Mapping[str, Sequence[Any]], theirs: Mapping[str, dict[str, float]]
) -> str:
    """In how many pairs of rows ours lie in the published order, column by column.

    A pair that lies within the spread of its seeds is not counted either way.
    """
    both = [
        (key, label, there) for key, (label, there) in table.rows.items() if there and key in rows
    ]
    told, one_seed = [], False
    for column in table.columns:
        same, other, open_ = 0, [], 0
        for (key, label, there), (key2, label2, there2) in itertools.combinations(both, 2):
            ours = figure(rows[key], column.of), figure(rows[key2], column.of)
            if column.theirs is None or ours[0] is None or ours[1] is None:
                continue
            a, b = theirs[there or ""].get(column.theirs), theirs[there2 or ""].get(column.theirs)
            if a is None or b is None or a == b:
                continue
            one_seed |= min(len(ours[0].values), len(ours[1].values)) < 2
            apart = ours[0].mean - ours[1].mean
            if abs(apart) <= max(ours[0].spread, ours[1].spread):
                open_ += 1
            elif (apart > 0) == (a > b):
                same += 1
            else:
                other.append(f"{label} against {label2}")
        if same or other or open_:
            part = f"{column.head}: {same} of {same + len(other)} pairs in the published order"
            part += f" (not {'; '.join(other)})" if other else ""
            part += f", {open_} within the spread of seeds" if open_ else ""
            told.append(part)
    if not told:
        return ""
    verdict = "agree" if not any("(not " in part for part in told) else "agree in part"
    if all(": 0 of" in part for part in told):
        verdict = "do not agree" if any("(not " in part for part in told) else "decide nothing"
    tail = " One seed only: no spread is known." if one_seed else ""
    return f"Ours {verdict} with the published order. {'. '.join(told)}.{tail}"


def speed_up(rows: Mapping[str, Sequence[Any]], theirs: Mapping[str, dict[str, float]]) -> str:
    """How many times faster the whole is, ours and theirs."""
    base, fast = theirs["Wan-2.2-5B"], theirs["Hummingbird-XT"]
    there = ", ".join(
        f"{base[name] / fast[name]:.1f} ({name.removesuffix('_s').replace('_', ' ')})"
        for name in base
        if name in fast
    )
    last = next((key for key in ("student-light", "student") if key in rows), None)
    if last is None:
        return f"The published student is {there} times faster than its teacher."
    ours = _seconds(rows["teacher"]) / _seconds(rows[last])
    return f"Ours is {ours:.1f} times faster than its teacher, the published one {there}."


def claims(
    name: str, rows: Mapping[str, Sequence[Any]], told: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    """Each published claim about a table, and what our figures say to it."""
    for claim in told:
        if claim["table"] != name:
            continue
        ours = [
            figure(rows.get(claim[side], ()), CLAIMED[claim["by"]]) for side in ("better", "worse")
        ]
        better, worse = ours
        by = claim["by"].replace("_", " ")
        says = f'"{claim["says"][0].upper()}{claim["says"][1:]}"'
        if better is None or worse is None:
            yield f"{says}: not run ({claim['better']} and {claim['worse']} are needed)."
            continue
        apart = better.mean - worse.mean
        if abs(apart) <= max(better.spread, worse.spread):
            verdict = "ours do not decide it"
        elif (apart > 0) == (claim["want"] == "higher"):
            verdict = "ours agree"
        else:
            verdict = "ours do not agree"
        seeds = min(len(better.values), len(worse.values))
        yield (
            f"{says}: {verdict}; {by} {better.mean:.4g} ({claim['better']}) against "
            f"{worse.mean:.4g} ({claim['worse']}), {seeds} seed{'s' * (seeds > 1)}."
        )


# ---- as text ----


def markdown(blocks: Sequence[Block]) -> str:
    """For the site."""
    parts = []
    for kind, content in blocks:
        if kind == "table":
            head, lines = content
            parts.append(
                "\n".join(
                    "| " + " | ".join(cells) + " |"
                    for cells in (head, ["---", *["---:"] * (len(head) - 1)], *lines)
                )
            )
        else:
            marks = {"title": "# {}", "head": "## {}", "text": "{}", "command": "```\n{}\n```"}
            parts.append(marks[kind].format(content))
    return "\n\n".join(parts) + "\n"


def web(blocks: Sequence[Block]) -> str:
    """One page that loads nothing."""
    parts = []
    for kind, content in blocks:
        if kind == "table":
            head, lines = content
            rows = [("th", head), *(("td", line) for line in lines)]
            parts.append(
                "<table>"
                + "".join(
                    "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
                    for tag, cells in rows
                )
                + "</table>"
            )
        else:
            tag = {"title": "h1", "head": "h2", "text": "p", "command": "pre"}[kind]
            parts.append(f"<{tag}>{html.escape(content)}</{tag}>")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;display:block;overflow-x:auto}"
        "th,td{border-bottom:1px solid #8886;padding:.3rem .7rem;text-align:right}"
        "th:first-child,td:first-child{text-align:left}:root{color-scheme:light dark}"
    )
    return (
        "<!doctype html><meta charset=utf-8><title>The published tables</title>"
        f"<style>{style}</style>" + "\n".join(parts) + "\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
