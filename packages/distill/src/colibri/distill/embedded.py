"""Prompts and first frames of the small world, as curated shards: what a bare command trains on."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from colibri.core.clip import clip_id
from colibri.core.shards import SHARD_SCHEMA, write_shard
from colibri.core.video import write_video
from colibri.testbed import captions
from colibri.testbed.small import FPS, FRAMES, SIDE, small_clip, small_scene
from colibri.testbed.world import Scene

STYLES = (captions.terse, captions.terse, captions.plain, captions.short)


Style = Callable[[Scene, np.random.Generator], str]


def write_embedded(
    folder: Path,
    *,
    rows: int,
    seed: int = 0,
    styles: Sequence[Style] = STYLES,
    videos: bool = False,
) -> Path:
    """Write `rows` captioned scenes of the training part; the same rows for the same seed.

    `styles` are drawn from for each caption, the scenes are the same whatever they are. `videos`
    writes the clips too, where the rows' `video` says.
    """

    def made(index: int) -> dict[str, object]:
        rng = np.random.default_rng([seed, 17, index])
        scene = small_scene(rng, part="train")
        picture = io.BytesIO()
        Image.fromarray(small_clip(scene, frames=1)[0]).save(picture, format="PNG")
        text = styles[int(rng.integers(len(styles)))](scene, rng)
        name = f"{seed}/{index:06d}.mp4"
        if videos and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / name, small_clip(scene), fps=int(FPS), crf=8, preset="veryfast")
        return {field.name: None for field in SHARD_SCHEMA} | {
            "id": clip_id("small-world", name),
            "source": "small-world",
            "video": name,
            "image": {"bytes": picture.getvalue(), "path": None},
            "width": SIDE,
            "height": SIDE,
            "fps": FPS,
            "num_frames": FRAMES,
            "caption_original": text,
            "caption": text,
            "captioner": "none",
            "licence": "apache-2.0",
            "split": "train",
        }

    ordered = sorted((made(index) for index in range(rows)), key=lambda row: str(row["id"]))
    write_shard(folder / "data" / "00000.parquet", ordered, SHARD_SCHEMA)
    return folder
