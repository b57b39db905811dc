"""`colibri report`: one HTML page of a pipeline's folder, to show to a friend.

Videos of every model side by side, what the scorer says, seconds, sizes, and where it all comes
from. The page holds its videos, loads nothing from elsewhere and runs no script. What a file says
is text on the page and never markup.
"""

import base64
import contextlib
import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.core.shards import write_text_whole

ORDER = ("teacher", "student", "light", "quantized")
NAMES = {"light": "student, light decoder", "quantized": "student, few-bit weights"}


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Whose page, and where it goes."""

    folder: Path = Path()
    """Folder of a pipeline: videos/, scores.json, and what else the stages have written."""
    out: Path = Path("report.html")
    """The page. Curves go to curves/ in `folder`, as CSV."""
    title: str = "From captioned clips to a few-step video model"
    """Heading of the page."""
    prompts: int = 8
    """Rows of videos on the page, one a prompt and seed."""


def write_report(config: ReportConfig) -> Path:
    """Write the page and the curves' CSV files; returns the page's path.

    UserError where the folder has no scores of `colibri score`.
    """
    folder = config.folder
    scores = _json(folder / "scores.json")
    if scores is None or scores.get("format") != "colibri-scores/1":
        raise UserError(f"{folder} has no scores.json", hint="run colibri score there first")
    models = scores["models"]
    known = [name for name in ORDER if name in models]
    names = known + sorted(set(models) - set(known))
    bench = {path.stem: _json(path) or {} for path in sorted((folder / "bench").glob("*.json"))}
    curves = {
        "decoder": _curve(folder / "vae" / "metrics.jsonl", "l1"),
        "student": _curve(_log(folder / "distill"), "gap"),
    }
    for name, points in curves.items():
        key = "l1" if name == "decoder" else "gap"
        lines = "".join(f"{step},{value:.6g}\n" for step, value in points)
        write_text_whole(folder / "curves" / f"{name}.csv", f"step,{key}\n{lines}")
    parts = {
        "TITLE": html.escape(config.title),
        "LEAD": html.escape(_lead(folder, models)),
        "TILES": _tiles(models, bench),
        "HEADS": "".join(f"<th>{_name(name, models[name])}</th>" for name in names),
        "ROWS": "\n".join(_rows(folder, models, names, config.prompts)),
        "SCORES": "\n".join(_scores(folder, models, names, bench)),
        "CHAIN": "\n".join(_chain(folder)),
        "CURVES": _curves(curves),
        "LINEAGE": html.escape(_lineage(folder, names)),
        "MACHINE": html.escape(_machine(bench)),
    }
    page = (files("colibri.umbrella") / "report.html").read_text("utf-8")
    for mark, value in parts.items():
        page = page.replace(f"<!--{mark}-->", value)
    write_text_whole(config.out, page)
    return config.out


# ---- what is said ----


def _lead(folder: Path, models: dict[str, Any]) -> str:
    counts = (_json(folder / "curated" / "manifest.json") or {}).get("counts", {})
    lead = f"{counts['in']:,} captioned clips, {counts['kept']:,} kept. " if counts else ""
    steps = {name: model["steps"] for name, model in models.items()}
    if {"teacher", "student"} <= steps.keys():
        lead += (
            f"The teacher needs {steps['teacher']} steps with guidance, its student "
            f"{steps['student']} without. "
        )
    if "tiny" in (_json(folder / "inputs.json") or {}).get("model", {}).get("family", ""):
        lead += (
            "These are small test models of coloured shapes, trained on a CPU: the page shows that "
            "the chain works, not how real video looks. "
        )
        prompts = {video["prompt"] for model in models.values() for video in model["videos"]}
        held_out = sum(map(_is_held_out, prompts))
        lead += f"{held_out} of {len(prompts)} prompts are of scenes that no training has shown."
    return lead


def _is_held_out(prompt: str) -> bool:
    from colibri.infer.scores import scene_of
    from colibri.testbed.small import part_of

    scene = scene_of(prompt)
    return scene is not None and part_of(scene) == "held-out"


def _tiles(models: dict[str, Any], bench: dict[str, Any]) -> str:
    tiles = []
    if {"teacher", "student"} <= models.keys():
        tiles.append(
            (f"{models['teacher']['steps']} → {models['student']['steps']}", "sampling steps")
        )
        for key in ("semantic", "quality"):
            mine, theirs = (models[name]["mean"].get(key) for name in ("student", "teacher"))
            if mine is not None and theirs is not None:
                tiles.append((f"{mine:.2f}", f"{key}; the teacher {theirs:.2f}"))
    slow, fast = (_seconds(bench.get(name, {})) for name in ("teacher", "student"))
    if slow and fast:
        tiles.insert(1, (f"{slow / fast:.1f}×", "faster a video, text to MP4"))
    return "".join(
        f"<div><b>{html.escape(big)}</b><span>{html.escape(small)}</span></div>"
        for big, small in tiles
    )


def _rows(folder: Path, models: dict[str, Any], names: Sequence[str], count: int) -> Iterator[str]:
    """One row a prompt and seed, first each prompt's first seed."""
    by_key: dict[tuple[str, int], dict[str, Any]] = {}
    for name in names:
        for video in models[name]["videos"]:
            by_key.setdefault((video["prompt"], video["seed"]), {})[name] = video
    for prompt, seed in sorted(by_key, key=lambda key: (key[1], key[0]))[:count]:
        cells = []
        for name in names:
            video = by_key[prompt, seed].get(name)
            cells.append(_cell(folder / "videos" / name, video) if video else "<td></td>")
        label = f"{html.escape(prompt)}<small>seed {seed}</small>"
        yield f"<tr><th scope='row'>{label}</th>{''.join(cells)}</tr>"


def _cell(folder: Path, video: dict[str, Any]) -> str:
    content = base64.b64encode((folder / video["file"]).read_bytes()).decode()
    scores = video["scores"]
    said = " · ".join(
        f"{key} {scores[key]:.2f}" for key in ("semantic", "quality") if key in scores
    )
    return (
        "<td><video autoplay loop muted playsinline "
        f'src="data:video/mp4;base64,{content}"></video><small>{html.escape(said)}</small></td>'
    )


def _scores(
    folder: Path, models: dict[str, Any], names: Sequence[str], bench: dict[str, Any]
) -> Iterator[str]:
    sizes = {
        "teacher": _teacher_bytes(folder),
        "student": _bytes(_student(folder)),
        "quantized": _bytes(folder / "quantized"),
    }
    for name in names:
        model, mean = models[name], models[name]["mean"]
        seconds = _seconds(bench.get(name, {}))
        cells = [
            NAMES.get(name, name),
            str(model["steps"]),
            *(
                f"{mean[key]:.3f}" if key in mean else "–"
                for key in ("semantic", "quality", "total")
            ),
            f"{seconds:.2f}" if seconds else "–",
            f"{sizes[name] / 1e6:.1f}" if sizes.get(name) else "–",
            str(len(model["videos"])),
        ]
        yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def _chain(folder: Path) -> Iterator[str]:
    """Each stage with what it did and the seconds it took."""
    seconds: dict[str, float] = _json(folder / "times.json") or {}
    said = dict(_said(folder))
    groups: dict[str, float] = {}
    for stage, took in seconds.items():
        name = stage.split("@")[0]
        groups[name] = groups.get(name, 0.0) + took
    for name in dict.fromkeys([*said, *groups]):
        time = f"{groups[name]:.0f} s" if name in groups else ""
        yield (
            f"<li><b>{html.escape(name)}</b><span>{html.escape(said.get(name, ''))}</span>"
            f"<i>{time}</i></li>"
        )


def _said(folder: Path) -> Iterator[tuple[str, str]]:
    if manifest := _json(folder / "curated" / "manifest.json"):
        counts = manifest["counts"]
        yield "data", f"{counts['in']:,} clips with captions of every manner"
        yield (
            "curate",
            f"{counts['kept']:,} kept, {counts['rejected']:,} rejected, "
            f"{counts['quarantined']:,} quarantined with a reason; captions by "
            f"{manifest['captioner']['name']}",
        )
    if encoded := _json(folder / "encoded" / "manifest.json"):
        rows = sum(len(shard["rows"]) for shard in encoded["shards"])
        yield "encode", f"text and first frames of {rows:,} rows, once"
    if measured := (_json(folder / "decoder.json") or {}).get("rows"):
        teacher, light = measured[0], measured[-1]
        yield (
            "decoder",
            f"PSNR {light['psnr']:.1f} dB (the full decoder {teacher['psnr']:.1f}), "
            f"{light['parameters'] / 1e6:.2f} of {teacher['parameters'] / 1e6:.2f} M parameters, "
            f"{light['ms_per_frame']:.1f} ms a frame ({teacher['ms_per_frame']:.1f})",
        )
    if about := _json(_student(folder) / "distill.json"):
        yield (
            "student",
            f"{len(about['schedule']['sigmas']) - 1} steps, {about['step']:,} updates, losses "
            f"{', '.join(about['config']['terms'])}",
        )
    if report := _json(folder / "quantized" / "quantization.json"):
        before, after = (
            sum(part[key] for part in report["parts"]) for key in ("bytes_before", "bytes_after")
        )
        psnr = (report.get("difference") or {}).get("frames_psnr_db")
        more = f"; the same video within {psnr:.1f} dB" if isinstance(psnr, float) else ""
        yield (
            "quantize",
            f"{report['scheme']}: {before / 1e6:.1f} → {after / 1e6:.1f} MB{more}",
        )

    if scores := _json(folder / "scores.json"):
        videos = sum(len(model["videos"]) for model in scores["models"].values())
        yield "generate", f"{videos} videos: the same prompts and seeds by each model"


def _lineage(folder: Path, names: Sequence[str]) -> str:
    from colibri.umbrella.lineage import text, trace

    name = "quantized" if "quantized" in names else names[-1]
    videos = sorted((folder / "videos" / name).rglob("*.mp4"))
    tree = text(trace(videos[0], [folder]), rows=2)
    return f"$ colibri lineage {videos[0].relative_to(folder)}\n{tree}"


def _machine(bench: dict[str, Any]) -> str:
    for table in bench.values():
        if "device" in table:
            versions = ", ".join(f"{name} {value}" for name, value in table["versions"].items())
            return (
                f"Seconds a video: median of warm runs, text, denoising, decoding and writing, "
                f"without loading; {table['device']}, {table['dtype']}; {versions}."
            )
    return ""


# ---- curves ----


def _curve(path: Path, key: str) -> list[tuple[int, float]]:
    """(step, value) of a log; `gap` is the mean of the student's gaps over noise levels."""
    points = []
    with contextlib.suppress(OSError):
        for line in path.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                table = json.loads(line)
                found = [table[key]] if key in table else []
                if key == "gap":
                    found = [v for name, v in table.items() if name.startswith("dmd/gap/")]
                values = [value for value in found if isinstance(value, float)]
                if values:
                    points.append((int(table["step"]), sum(values) / len(values)))
    return points


def _curves(curves: dict[str, list[tuple[int, float]]]) -> str:
    titles = {
        "decoder": "Light decoder: mean absolute difference to the clip, by step",
        "student": "Student: gap of critic and teacher, by step",
    }
    drawn = []
    for name, points in curves.items():
        if len(points) < 2:
            continue
        last, top = points[-1][0], max(value for _, value in points) or 1.0
        path = " ".join(
            f"{40 + 540 * step / last:.1f},{150 - 130 * value / top:.1f}" for step, value in points
        )
        drawn.append(
            f"<figure><svg viewBox='0 0 600 172' role='img'><path d='M40 20V150H580'/>"
            f"<polyline points='{path}'/><text x='36' y='26'>{top:.2g}</text>"
            f"<text x='36' y='154'>0</text><text x='580' y='168'>{last:,}</text></svg>"
            f"<figcaption>{titles[name]}</figcaption></figure>"
        )
    return "".join(drawn)


# ---- files ----


def _name(name: str, model: dict[str, Any]) -> str:
    said = NAMES.get(name, name)
    return f"{html.escape(said)}<small>{model['steps']} steps</small>"


def _seconds(table: dict[str, Any]) -> float | None:
    value = table.get("total_warm_s")
    return float(value) if value else None


def _student(folder: Path) -> Path:
    found = sorted((folder / "distill").glob("**/student/distill.json"))
    return found[-1].parent if found else folder / "distill" / "student"


def _log(folder: Path) -> Path:
    found = sorted(folder.glob("**/log.jsonl"))
    return found[-1] if found else folder / "log.jsonl"


def _teacher_bytes(folder: Path) -> int:
    source = (_json(folder / "inputs.json") or {}).get("model", {}).get("source")
    if not source:
        return 0
    from colibri.infer.models import find_model

    with contextlib.suppress(UserError):
        return _bytes(find_model(source).folder)
    return 0


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _json(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        table = json.loads(path.read_text("utf-8"))
        return table if isinstance(table, dict) else None
    return None
