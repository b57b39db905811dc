"""The tiny teacher's table: semantics and quality of fresh samples of held-out prompts.

    python benchmarks/testbed_scores.py [--model FOLDER] [--videos 64] [--out FILE.json]

Samples with 50 Euler steps and CFG 4, with 3 steps and no CFG, and from a first frame; rendered
clips of the same scenes give the ceiling.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

from colibri.testbed.embedded import TEACHER, embedded_model
from colibri.testbed.score import score
from colibri.testbed.small import small_clip


def main() -> None:
    """Print the table, and write it with versions if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="folder of a tiny family; the embedded one")
    parser.add_argument("--videos", type=int, default=64, help="half as many from an image")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()

    import torch
    from colibri.testbed.train.card import score_table
    from colibri.testbed.train.family import (
        FamilyScores,
        family_hash,
        held_out_scenes,
        load_family,
        numbers_of,
        score_image,
        score_text,
    )

    folder = options.model or embedded_model(TEACHER)
    scenes = held_out_scenes(options.videos, seed=options.seed)
    pipeline = load_family(folder)
    rendered = tuple(score(small_clip(scene), scene) for scene in scenes)
    tables = {"rendered": FamilyScores(scores=rendered, shapes=numbers_of(scenes))}
    seconds = {}
    for name, sampled in (
        ("text, 50 steps, CFG 4", lambda: score_text(pipeline, scenes, seed=options.seed)),
        (
            "text, 3 steps, no CFG",
            lambda: score_text(pipeline, scenes, steps=3, guidance=1.0, seed=options.seed),
        ),
        (
            "image, 50 steps, CFG 4",
            lambda: score_image(pipeline, scenes[: options.videos // 2], seed=options.seed),
        ),
    ):
        began = time.perf_counter()
        tables[name] = sampled()
        seconds[name] = time.perf_counter() - began
        print(f"{name}: {seconds[name]:.0f} s", flush=True)
    print(score_table(tables))
    if options.out:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "weights": family_hash(folder),
            "videos": options.videos,
            "seconds": seconds,
            "scores": {name: [asdict(one) for one in t.scores] for name, t in tables.items()},
            "shapes": {name: t.shapes for name, t in tables.items()},
            "first_frame_db": {name: t.first_frame_db for name, t in tables.items()},
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
