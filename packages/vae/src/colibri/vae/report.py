"""The page of `vae evaluate --html`: the table, and strips of frames to look at. Pure but for PNG.

One file without scripts or links: pictures are inside, so that it can be sent around.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]  # (height, width, 3)

STRIP_FRAMES = 6
"""Frames of a clip that are shown."""

ERROR_GAIN = 8
"""Differences are shown so many times enlarged, around mid grey."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One clip: itself and what each decoder made of it, (frames, height, width, 3) uint8."""

    name: str
    clip: Picture
    decoded: Mapping[str, Picture]


def page(
    settings: Mapping[str, object], table: Sequence[Sequence[str]], strips: list[Strip]
) -> str:
    """HTML; `table` has its head first."""
    head, *rows = table
    lines = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'><title>Decoders side by side</title>",
        f"<style>{_STYLE}</style><h1>Decoders side by side</h1>",
        "<dl>" + "".join(f"<dt>{_safe(k)}<dd>{_safe(v)}" for k, v in settings.items()) + "</dl>",
        "<div class=wide><table><thead><tr>",
        *(f"<th>{_safe(name)}" for name in head),
        "<tbody>",
        *("<tr>" + "".join(f"<td>{_safe(part)}" for part in row) for row in rows),
        "</table></div>",
        f"<p>Strips: the clip, then each decoder and its error, {ERROR_GAIN} times enlarged around "
        "grey.",
    ]
    for strip in strips:
        lines.append(f"<h2>{_safe(strip.name)}</h2><div class=wide>")
        lines.append(_figure("clip", _picked(strip.clip)))
        for name, video in strip.decoded.items():
            lines.append(_figure(name, _picked(video)))
            lines.append(_figure(f"{name}, error", _picked(_error(video, strip.clip))))
        lines.append("</div>")
    return "\n".join(lines) + "\n"


def _picked(video: Picture) -> Picture:
    """Frames over the whole length, side by side."""
    picks = np.linspace(0, len(video) - 1, min(STRIP_FRAMES, len(video))).round().astype(int)
    return np.concatenate(list(video[picks]), axis=1)


def _error(video: Picture, clip: Picture) -> Picture:
    error = (video.astype(np.int32) - clip.astype(np.int32)) * ERROR_GAIN + 128
    return error.clip(0, 255).astype(np.uint8)


def _figure(name: str, picture: Picture) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    inside = base64.b64encode(file.getvalue()).decode("ascii")
    text = _safe(name)
    return (
        f"<figure><figcaption>{text}</figcaption>"
        f"<img alt='{text}' src='data:image/png;base64,{inside}'></figure>"
    )


def _safe(value: object) -> str:
    return html.escape(str(value))


_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8886 }
th:first-child, td:first-child { text-align: left }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto }
figure { margin: .4rem 0 }
figcaption { font-size: .85em; opacity: .75 }
img { image-rendering: pixelated; max-width: none }
"""
