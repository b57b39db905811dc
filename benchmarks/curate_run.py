"""Rows a second of `curate run`, the share lost to the engine, and memory at 10 times the rows.

The same rows go through the same stage functions in a plain loop in one process (the work itself)
and through `curate run` (Ray, commits, shards). Rows are the sample's good clips, listed many times
under other names. Peak memory is the largest of all processes of the run, and the driver's own.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from colibri.core.shards import write_json_whole
from colibri.curate import stages
from colibri.curate.config import RunConfig
from colibri.curate.ingest import ingest, ingested_rows
from colibri.curate.sample import write_sample


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curate_run.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_sample(work / "sample")
        results = []
        for rows in (arguments.rows, 10 * arguments.rows):
            data = many_rows(work / "sample", work / f"data{rows}", rows)
            results.append(measure(data, work / f"out{rows}", with_plain=rows == arguments.rows))
    small, large = results
    memory_ratio = large["driver_peak_mib"] / small["driver_peak_mib"]
    print(f"{'rows':>8}{'seconds':>10}{'rows/s':>9}{'driver MiB':>12}{'largest worker MiB':>20}")
    for entry in results:
        print(
            f"{entry['rows']:>8}{entry['seconds']:>10.1f}{entry['rows_per_s']:>9.1f}"
            f"{entry['driver_peak_mib']:>12.0f}{entry['worker_peak_mib']:>20.0f}"
        )
    steady = (large["rows"] - small["rows"]) / (large["seconds"] - small["seconds"])
    plain = small["plain_rows_per_s"]
    print(f"plain loop, one core: {plain:.1f} rows/s")
    print(f"steady rate between the two runs: {steady:.1f} rows/s on {psutil.cpu_count()} cores")
    ideal = plain * (psutil.cpu_count() or 1)
    print(f"share of time lost to the engine in the steady state: {1 - steady / ideal:.0%}")
    print(f"driver memory at 10x rows: {memory_ratio:.2f}x")
    write_json_whole(
        arguments.out,
        {
            "machine": platform.platform(),
            "cpus": psutil.cpu_count(),
            "date": time.strftime("%Y-%m-%d"),
            "runs": results,
            "steady_rows_per_s": steady,
            "lost_share": 1 - steady / ideal,
            "driver_memory_ratio_at_10x": memory_ratio,
        },
    )


def many_rows(sample: Path, data: Path, rows: int) -> Path:
    """A MagicData folder of `rows` rows: one good clip of the sample, linked under many names."""
    videos = sorted(
        path
        for path in (sample / "HumanVid" / "videos").glob("*.mp4")
        if path.stat().st_size > 9000
    )
    folder = data / "MagicData"
    (folder / "videos").mkdir(parents=True)
    things = ("red kite", "brown dog", "white boat", "young girl", "green train", "black horse")
    places = ("over a quiet field", "beside the harbor", "along a narrow road", "near tall trees")
    lines = ["video_path,videoid,caption"]
    for number in range(rows):
        name = f"{number:07d}.mp4"
        (folder / "videos" / name).hardlink_to(videos[number % len(videos)])
        caption = (
            f"The video shows a {things[number % 6]} moving slowly {places[number % 4]} while "
            f"people number {number} watch from a wooden bench and the wind bends the grass. "
            "The camera pans right to follow it."
        )
        lines.append(f'videos/{name},{number:07d},"{caption}"')
    (folder / "MagicData.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return data


def measure(data: Path, out: Path, *flags: str, with_plain: bool) -> dict[str, float]:
    """One `curate run` in a process of its own, watched from outside."""
    command = [
        *(sys.executable, "-m", "colibri.curate", "run", "--sources", "magicmotion"),
        *("--data-root", str(data), "--out", str(out), "--no-report", *flags),
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    watch = Memory(process.pid)
    watch.start()
    process.communicate()
    seconds = time.perf_counter() - start
    watch.stop()
    if process.returncode:
        raise SystemExit(f"curate run ended with {process.returncode}: {' '.join(command)}")
    rows = json.loads((out / "manifest.json").read_text())["counts"]["in"]
    result = {
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "driver_peak_mib": watch.driver / 2**20,
        "worker_peak_mib": watch.worker / 2**20,
    }
    if with_plain:
        result["plain_rows_per_s"] = plain_rate(data, out)
    shutil.rmtree(out)
    return result


def plain_rate(data: Path, out: Path) -> float:
    """Rows a second of the stage functions in a plain loop on one core."""
    config = RunConfig(sources=("magicmotion",), data_root=data)
    folder = out / "plain"
    ingest(config, data, folder)
    rows = list(ingested_rows(folder))
    start = time.perf_counter()
    for row in rows:
        row = stages.advance(
            row, lambda row: stages.frame(row, root=data, config=config.frame), "frame"
        )
        row = stages.advance(row, stages.recaption, "recaption")
        row = stages.advance(row, stages.apply_rules, "rules")
        stages.advance(row, stages.apply_judge, "judge")
    return len(rows) / (time.perf_counter() - start)


class Memory(threading.Thread):
    """Peak resident memory of a process and of its largest worker, sampled ten times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self.driver = self.worker = 0

    def run(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self.driver = max(self.driver, self._process.memory_info().rss)
                for child in self._process.children(recursive=True):
                    if child.name().startswith("ray::"):
                        self.worker = max(self.worker, child.memory_info().rss)
            except psutil.Error:
                continue

    def stop(self) -> None:
        self._ended.set()
        self.join()


if __name__ == "__main__":
    main()
