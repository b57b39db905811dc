"""Reads a video without learned weights: what is in it, and how well it is drawn.

`read` says what is seen, `score` compares it with what was asked. Semantic scores are shares of
asked attributes that are there; quality scores are in [0, 1], 1 for a rendered clip. They stand in
for VBench's two halves and share its weights of the total (Vchitect/VBench scripts/constant.py).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from colibri.core.errors import UserError
from colibri.testbed.render import Pixels, Plane, background, coverage
from colibri.testbed.world import (
    BACKGROUNDS,
    COLOURS,
    BackgroundName,
    Motion,
    Scene,
    Shape,
    ShapeName,
)

Planes = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One thing in the video, over all frames in which it is found. Lengths as in `Shape`."""

    name: ShapeName
    colour: str
    motion: Motion | None
    """None where it moves in no single direction."""
    radius: float
    track: NDArray[np.float64]
    """(frames, 2): row and column of the centre in pixels; NaN where it is not found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is in a video."""

    background: BackgroundName | None
    """None where no known background is near."""
    background_colour: str
    things: tuple[Seen, ...]
    count: int
    """Separate blobs in the typical frame, named or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Semantics:
    """Shares of the asked attributes that are there, each in [0, 1]."""

    shape: float
    colour: float
    background: float
    direction: float
    count: float

    @property
    def mean(self) -> float:
        """All five alike."""
        return _mean(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How well it is drawn, each in [0, 1], 1 for a rendered clip."""

    sharpness: float
    """Edge strength against that of the closest rendered clip."""
    likeness: float
    """Nearness of pixels to the closest rendered clip: seams and wrong exposure lower it."""
    solidity: float
    """Lowered by ghosts: secondary blobs and smears beside the shapes."""
    steadiness: float
    """Lowered by flicker from one frame to the next."""
    background: float
    """Constancy of the background over the whole clip."""
    drift: float
    """Lowered by a change of colour, size or background from the first third to the last."""
    smoothness: float
    """Evenness of the shapes' ways."""

    @property
    def mean(self) -> float:
        """All alike."""
        return _mean(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A video against what was asked."""

    semantic: Semantics
    quality: Quality

    @property
    def total(self) -> float:
        """Four parts quality, one part semantics."""
        return (4 * self.quality.mean + self.semantic.mean) / 5

    @property
    def right(self) -> bool:
        """Every asked attribute is there."""
        return self.semantic.mean == 1.0


def score(video: Pixels, asked: Scene) -> Score:
    """Compare (frames, height, width, 3) uint8 RGB with a scene; UserError for another form."""
    reading = read(video)
    return Score(semantic=_semantics(reading, asked), quality=_quality(video, reading))


def read(video: Pixels) -> Reading:
    """What is seen in (frames, height, width, 3) uint8 RGB."""
    _check(video)
    place, distance, ground = _nearest_place(video)
    blobs = [_blobs(frame, ground) for frame in video.astype(np.float32)]
    tracks = _tracks(blobs)
    typical = int(np.median([len(found) for found in blobs]))
    return Reading(
        background=place.background if distance < _PLACE_TOLERANCE else None,
        background_colour=place.background_colour,
        things=tuple(_seen(track, len(video), video.shape[1:3], ground) for track in tracks),
        count=typical,
    )


_PLACE_TOLERANCE = 26.0
"""Median difference in RGB length; neighbouring plain backgrounds are 70 apart and more."""
_FOREGROUND = 42.0
"""A pixel at least this far from the background, in RGB length, belongs to a thing."""
_COLOUR_TOLERANCE = 70.0
_STILL = 0.07
"""Way over the whole clip, in shares of the side, below which a thing counts as still."""


# ---- reading ----


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blob:
    frame: int
    colour: str
    rgb: NDArray[np.float32]
    row: float
    column: float
    alpha: Plane


def _check(video: Pixels) -> None:
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or len(video) < 1:
        raise UserError(
            f"expected a video as uint8 (frames, height, width, 3), got {video.dtype} "
            f"{video.shape}",
            hint="read it with colibri.core.video.read_frames and np.stack",
        )


def _nearest_place(video: Pixels) -> tuple[Scene, float, NDArray[np.float32]]:
    """The known background nearest to the video's still parts, and how it is drawn."""
    still = np.median(video, axis=0).astype(np.float32)
    height, width = still.shape[:2]
    plain = [("plain", colour) for colour in COLOURS]
    places = [*plain, *((name, "white") for name in BACKGROUNDS if name != "plain")]
    found: list[tuple[float, Scene, NDArray[np.float32]]] = []
    for name, colour in places:
        scene = Scene(background=name, background_colour=colour, shapes=())  # type: ignore[arg-type]
        for texture in (False, True) if name != "plain" else (False,):
            ground = background(scene, height, width, texture=texture)
            apart = np.linalg.norm(still - ground, axis=-1)
            # the larger of the two halves' medians: sky alone must not decide
            halves = (apart[: height // 2], apart[height // 2 :])
            found.append((max(float(np.median(half)) for half in halves), scene, ground))
    distance, scene, ground = min(found, key=lambda item: item[0])
    return scene, distance, ground


def _blobs(frame: NDArray[np.float32], ground: NDArray[np.float32]) -> list[_Blob]:
    apart = np.linalg.norm(frame - ground, axis=-1)
    labels, count = ndimage.label(apart > _FOREGROUND)
    least = 0.008 * labels.size
    found = []
    for index in range(1, count + 1):
        mask = labels == index
        if mask.sum() < least:
            continue
        core = ndimage.binary_erosion(mask, iterations=2)
        rgb = np.median(frame[core if core.sum() >= 8 else mask], axis=0)
        alpha = _alpha(frame, ground, rgb) * ndimage.binary_dilation(mask, iterations=3)
        rows, columns = np.indices(alpha.shape)
        total = alpha.sum()
        found.append(
            _Blob(
                frame=0,
                colour=_named(rgb),
                rgb=rgb,
                row=float((rows * alpha).sum() / total),
                column=float((columns * alpha).sum() / total),
                alpha=alpha,
            )
        )
    return found


def _alpha(
    frame: NDArray[np.float32], ground: NDArray[np.float32], rgb: NDArray[np.float32]
) -> Plane:
    """Share of the thing in each pixel, if each is a mixture of its colour and the background."""
    way = rgb - ground
    share = ((frame - ground) * way).sum(-1) / np.maximum((way * way).sum(-1), 1.0)
    return np.clip(share, 0, 1).astype(np.float32)


def _named(rgb: NDArray[np.float32]) -> str:
    name, apart = min(
        ((name, float(np.linalg.norm(rgb - np.array(c)))) for name, c in COLOURS.items()),
        key=lambda item: item[1],
    )
    return name if apart < _COLOUR_TOLERANCE else "unknown"


def _tracks(blobs: Sequence[Sequence[_Blob]]) -> list[list[tuple[int, _Blob]]]:
    """Blobs joined over frames by nearness in place and colour; those seen in half the frames."""
    tracks: list[list[tuple[int, _Blob]]] = []
    for index, found in enumerate(blobs):
        free = list(range(len(tracks)))
        for blob in sorted(found, key=lambda b: -float(b.alpha.sum())):
            reach = 0.3 * min(blob.alpha.shape)
            costs = [(_apart(tracks[t][-1][1], blob), t) for t in free]
            cost, best = min(costs, default=(np.inf, -1))
            if cost < reach:
                tracks[best].append((index, blob))
                free.remove(best)
            else:
                tracks.append([(index, blob)])
    return [track for track in tracks if len(track) >= max(1, len(blobs) // 2)]


def _apart(one: _Blob, other: _Blob) -> float:
    way = float(np.hypot(one.row - other.row, one.column - other.column))
    return way + 0.1 * float(np.linalg.norm(one.rgb - other.rgb))


def _seen(
    track: Sequence[tuple[int, _Blob]],
    frames: int,
    size: tuple[int, ...],
    ground: NDArray[np.float32],
) -> Seen:
    side = min(size)
    places = np.full((frames, 2), np.nan)
    for index, blob in track:
        places[index] = blob.row, blob.column
    names = [blob.colour for _, blob in track]
    colour = max(sorted(set(names)), key=names.count)
    name = _shape_name([blob.alpha for _, blob in track[:: max(1, len(track) // 8)]])
    areas = [float(blob.alpha.sum()) for _, blob in track]
    return Seen(
        name=name,
        colour=colour,
        motion=_motion(places, side),
        radius=float((np.median(areas) / _UNIT_AREA[name]) ** 0.5) / side,
        track=places,
    )


def _shape_name(alphas: Sequence[Plane]) -> ShapeName:
    """By how much the outline goes in and out 3, 4 or 5 times a turn, against a drawn shape.

    Blur makes that weaker but does not change the number of corners; `Quality.sharpness` judges it.
    """
    corners = np.mean([_corners(alpha) for alpha in alphas], axis=0)
    drawn = _drawn_corners()
    best: tuple[float, ShapeName] = max(
        (float(corners[i] / drawn[i]), name) for i, name in enumerate(_CORNERED)
    )
    return best[1] if best[0] > _CORNERED_FROM else "circle"


_CORNERED: tuple[ShapeName, ...] = ("triangle", "square", "star")
_TURNS = (3, 4, 5)
_CORNERED_FROM = 0.4
"""Share of a drawn shape's corners below which a thing is round."""


def _corners(alpha: Plane) -> NDArray[np.float64]:
    """The third moment's part with 3, 4 and 5 turns, in the direction of the drawn shapes."""
    rows, columns = np.indices(alpha.shape)
    total = float(alpha.sum())
    up = (rows * alpha).sum() / total - rows
    right = columns - (columns * alpha).sum() / total
    weight = alpha * np.hypot(up, right) ** 3
    # angles from straight up, where a triangle and a star have a corner and a square a side
    angle = np.arctan2(right, up)
    parts = [(weight * np.cos(turns * angle)).sum() / weight.sum() for turns in _TURNS]
    return np.array(parts) * (1, -1, 1)


@functools.cache
def _drawn_corners() -> tuple[float, ...]:
    parts = []
    for index, name in enumerate(_CORNERED):
        shape = Shape(
            name=name, colour="red", radius=0.2, row=0.5, column=0.5, motion="still", speed=0.0
        )
        parts.append(float(_corners(coverage(shape, 0.0, 128, 128))[index]))
    return tuple(parts)


_UNIT_AREA: dict[ShapeName, float] = {
    "circle": float(np.pi),
    "square": (2 * 0.85) ** 2,
    "triangle": 3 * 3**0.5 / 4,
    "star": float(5 * 0.45 * np.sin(np.pi / 5)),
}
"""Area of each shape at radius 1, as `render` draws it."""


def _motion(places: NDArray[np.float64], side: int) -> Motion | None:
    """The direction of a straight line through the places."""
    known = np.flatnonzero(~np.isnan(places[:, 0]))
    if len(known) < 2:
        return "still"
    rows, columns = (
        float(np.polyfit(known, places[known, axis], 1)[0]) * (len(places) - 1) / side
        for axis in (0, 1)
    )
    if max(abs(rows), abs(columns)) < _STILL:
        return "still"
    if abs(rows) > 2 * abs(columns):
        return "down" if rows > 0 else "up"
    if abs(columns) > 2 * abs(rows):
        return "right" if columns > 0 else "left"
    return None


# ---- semantics ----


def _semantics(reading: Reading, asked: Scene) -> Semantics:
    """Asked shapes are paired with seen ones by colour first, then by name."""
    free = list(reading.things)
    shape, colour, direction = [], [], []
    pairs: list[tuple[Shape, Seen | None]] = []
    wanted = sorted(asked.shapes, key=lambda s: all(t.colour != s.colour for t in free))
    for item in wanted:
        best = max(
            free,
            key=lambda t, s=item: (  # type: ignore[misc]
                2 * (t.colour == s.colour) + (t.name == s.name),
                t.radius,
            ),
            default=None,
        )
        if best is not None:
            free.remove(best)
        pairs.append((item, best))
    for item, best in pairs:
        shape.append(float(best is not None and best.name == item.name))
        colour.append(float(best is not None and best.colour == item.colour))
        direction.append(float(best is not None and best.motion == item.motion))
    same = reading.background == asked.background and (
        asked.background != "plain" or reading.background_colour == asked.background_colour
    )
    return Semantics(
        shape=float(np.mean(shape)),
        colour=float(np.mean(colour)),
        background=float(same),
        direction=float(np.mean(direction)),
        count=float(reading.count == len(asked.shapes)),
    )


# ---- quality ----


def _quality(video: Pixels, reading: Reading) -> Quality:
    """Everything is measured against the clip that the renderer draws from the reading."""
    seen = video.astype(np.float32)
    scene = Scene(
        background=reading.background or "plain",
        background_colour=reading.background_colour,
        shapes=(),
    )
    size = video.shape[1:3]
    ground = min(
        (background(scene, *size, texture=texture) for texture in (False, True)),
        key=lambda g: float(np.abs(np.median(seen, axis=0) - g).mean()),
    )
    drawn, cover = _redrawn(reading, ground, len(video))
    near = ndimage.maximum_filter(cover, size=(1, 7, 7)) > 0.02
    free = ~near
    residual = np.abs(seen - drawn).mean(-1)
    beside = np.linalg.norm(seen - _with_offset(seen, ground, free), axis=-1) * free
    shape_area = max(float(cover.sum()), 0.01 * cover.size)
    smear = float(np.clip(beside - 15, 0, 60).sum() / 60) / shape_area
    step = np.abs(np.diff(seen - drawn, axis=0)).mean(-1)
    calm = (free[1:] & free[:-1]) if len(video) > 1 else free[:0]
    flicker = float(step[calm].mean()) if calm.any() else 0.0
    return Quality(
        sharpness=_sharpness(seen, drawn, near),
        likeness=float(np.exp(-max(0.0, residual.mean() - 1) / 15)),
        solidity=float(np.exp(-4 * smear)),
        steadiness=float(np.exp(-max(0.0, flicker - 0.3) / 4)),
        background=_constancy(seen, free),
        drift=_drift(seen, cover, free),
        smoothness=_smoothness(reading, min(size)),
    )


def _redrawn(
    reading: Reading, ground: NDArray[np.float32], frames: int
) -> tuple[NDArray[np.float32], Planes]:
    """The closest rendered clip, and the share of shapes in each of its pixels."""
    height, width = ground.shape[:2]
    side = min(height, width)
    drawn = np.repeat(ground[None], frames, 0).copy()
    cover = np.zeros((frames, height, width), np.float32)
    for thing in reading.things:
        rgb = np.array(COLOURS.get(thing.colour, (128, 128, 128)), np.float32)
        for index, (row, column) in enumerate(thing.track):
            if np.isnan(row):
                continue
            shape = Shape(
                name=thing.name,
                colour="red",
                radius=thing.radius,
                row=row / height,
                column=column / width,
                motion="still",
                speed=0.0,
            )
            alpha = coverage(shape, 0.0, height, width)
            drawn[index] += alpha[..., None] * (rgb - drawn[index])
            cover[index] = np.maximum(cover[index], alpha)
    assert side > 0
    return drawn, cover


def _with_offset(
    seen: NDArray[np.float32], ground: NDArray[np.float32], free: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The background moved by the video's own mean difference from it."""
    offset = (seen - ground)[free].mean(0) if free.any() else np.zeros(3, np.float32)
    return np.asarray(ground + offset, np.float32)


def _sharpness(
    seen: NDArray[np.float32], drawn: NDArray[np.float32], near: NDArray[np.bool_]
) -> float:
    """Ratio of squared gradients beside the shapes' edges; blur spreads and lowers them."""
    if not near.any():
        return 0.0
    real, ideal = (float(_gradient(clip)[near].sum()) for clip in (seen, drawn))
    return float(np.clip(real / max(ideal, 1e-6), 0, 1)) ** 0.5


def _gradient(clip: NDArray[np.float32]) -> Planes:
    down = np.diff(clip, axis=1, append=clip[:, -1:])
    right = np.diff(clip, axis=2, append=clip[:, :, -1:])
    return (down * down + right * right).sum(-1)


def _constancy(seen: NDArray[np.float32], free: NDArray[np.bool_]) -> float:
    """From the mean distance of uncovered pixels to their own mean over time."""
    weight = free[..., None].astype(np.float32)
    times = weight.sum(0)
    mean = (seen * weight).sum(0) / np.maximum(times, 1)
    apart = np.abs(seen - mean).mean(-1)
    often = free & (times[..., 0] >= 2)
    return float(np.exp(-max(0.0, float(apart[often].mean()) - 0.3) / 6)) if often.any() else 0.0


def _drift(seen: NDArray[np.float32], cover: Planes, free: NDArray[np.bool_]) -> float:
    """From the change of mean colours and of covered area, the first third against the last."""
    third = max(1, len(seen) // 3)
    ends = (slice(0, third), slice(len(seen) - third, len(seen)))
    always = free[ends[0]].all(0) & free[ends[1]].all(0)
    changes = [0.0]
    if always.any():
        changes.append(_change(*(seen[end][:, always].mean((0, 1)) for end in ends)))
    cores = [seen[end][cover[end] > 0.95] for end in ends]
    if all(len(core) for core in cores):
        changes.append(_change(*(core.mean(0) for core in cores)))
    areas = [float(cover[end].sum()) for end in ends]
    shrunk = abs(areas[1] - areas[0]) / max(*areas, 1.0)
    return float(np.exp(-max(0.0, max(changes) + 30 * shrunk - 2) / 20))


def _change(first: NDArray[np.float32], last: NDArray[np.float32]) -> float:
    return float(np.abs(last - first).mean())


def _smoothness(reading: Reading, side: int) -> float:
    """From the mean distance between each place and a straight way, in shares of the side."""
    rough = []
    for thing in reading.things:
        known = np.flatnonzero(~np.isnan(thing.track[:, 0]))
        if len(known) < 3:
            return 0.0
        for axis in (0, 1):
            place = thing.track[known, axis]
            line = np.polyval(np.polyfit(known, place, 1), known)
            rough.append(float(np.abs(place - line).mean()) / side)
    return float(np.exp(-max(0.0, max(rough) - 0.003) / 0.05)) if rough else 0.0


def _mean(record: Semantics | Quality) -> float:
    return float(np.mean([getattr(record, field.name) for field in fields(record)]))
