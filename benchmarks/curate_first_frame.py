"""Bytes read and clips a second for one first frame: ours against bare PyAV and decord loops.

Clips are synthetic 1280x720 H.264 of 8 s with the index in front. Ours also counts the real frames,
turns, fits to 1280x704 and encodes; the bare loops only decode.
"""

import argparse
import io
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import av
import decord
import numpy as np
from colibri.core.clip import VideoRef
from colibri.core.shards import write_json_whole
from colibri.core.video import write_video
from colibri.curate.frames import Counted, FrameConfig, first_frame
from colibri.testbed.render import render
from colibri.testbed.world import random_scene


def main() -> None:
    """Write the clips, time each reader in turn, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/curate_first_frame.json")
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        clips = [_write(root / f"{number}.mp4", number) for number in range(arguments.clips)]
        size = statistics.mean(path.stat().st_size for path in clips)
        results: dict[str, dict[str, float]] = {}
        for name, read in READERS.items():
            results[name] = {"bytes": statistics.mean(read(path) for path in clips), "clips_s": 0}
        times: dict[str, list[float]] = {name: [] for name in READERS}
        for _ in range(arguments.rounds):
            for name, read in READERS.items():
                start = time.perf_counter()
                for path in clips:
                    read(path)
                times[name].append((time.perf_counter() - start) / len(clips))
        for name, taken in times.items():
            results[name]["clips_s"] = 1 / statistics.median(taken)
    print(f"mean clip {size / 1e6:.2f} MB, 1280x720, 200 frames")
    print(f"{'reader':<18}{'kB read':>10}{'clips/s':>10}")
    for name, entry in results.items():
        print(f"{name:<18}{entry['bytes'] / 1e3:>10.1f}{entry['clips_s']:>10.1f}")
    write_json_whole(
        arguments.out,
        {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.platform(),
            "versions": {"av": av.__version__, "decord": decord.__version__},
            "mean_clip_bytes": size,
            "readers": results,
        },
    )


def _write(path: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    scene = random_scene(rng)
    grain = rng.integers(0, 24, (8, 720, 1280, 3), np.uint8)
    frames = (
        np.clip(frame.astype(int) + grain[index % 8], 0, 255).astype(np.uint8)
        for index, frame in enumerate(render(scene, frames=200, height=720, width=1280, fps=25))
    )
    write_video(path, frames, fps=25, crf=23, preset="ultrafast")
    return path


def _ours(path: Path) -> float:
    return first_frame(VideoRef(video=path.name), path.parent, FrameConfig()).bytes_read


def _bare_pyav(path: Path) -> float:
    file = Counted(path.open("rb"))
    with av.open(cast(BinaryIO, file), "r") as container:
        next(container.decode(container.streams.video[0])).to_ndarray(format="rgb24")
    return file.bytes_read


def _bare_decord(path: Path) -> float:
    file = Counted(path.open("rb"))
    decord.VideoReader(io.BytesIO(file.read()), ctx=decord.cpu(0))[0].asnumpy()
    return file.bytes_read


READERS: dict[str, Callable[[Path], float]] = {
    "colibri": _ours,
    "bare PyAV": _bare_pyav,
    "bare decord": _bare_decord,
}


if __name__ == "__main__":
    main()
