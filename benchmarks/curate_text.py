"""Captions alone: rows a second and the driver's memory for 5,000 and 50,000 rows; a large plan.

`curate run --frame.reader none` on the embedded engine, near-copies looked for as always, and
`curate plan --calibrate 0` over a million rows. They are MagicData rows whose videos are not there.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from colibri.core.shards import write_json_whole
from colibri.testbed import captions
from colibri.testbed.world import random_scene
from curate_run import Memory, measure


def write_rows(data: Path, rows: int) -> Path:
    """A MagicData table of `rows` different captions."""
    folder = data / "MagicData"
    (folder / "videos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "MagicData.csv").open("w", encoding="utf-8") as table:
        table.write("video_path,videoid,caption\n")
        for number in range(rows):
            text = " ".join(captions.plain(random_scene(rng), rng) for _ in range(3))
            table.write(f'videos/{number:07d}.mp4,{number:07d},"{text}"\n')
    return data


def plan_rows(data: Path, rows: int) -> dict[str, float]:
    """Seconds and peak memory of a plan over `rows` short captions."""
    folder = data / "MagicData"
    (folder / "videos").mkdir(parents=True)
    with (folder / "MagicData.csv").open("w", encoding="utf-8") as table:
        table.write("video_path,videoid,caption\n")
        for number in range(rows):
            table.write(f"videos/{number:07d}.mp4,{number:07d},A man walks dog {number} home.\n")
    command = [
        *(sys.executable, "-m", "colibri.curate", "plan", "--sources", "magicmotion"),
        *("--data-root", str(data), "--frame.reader", "none", "--calibrate", "0", "--json"),
        *("--captioner", "vllm", "--judge", "vllm"),
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch = Memory(process.pid)
    watch.start()
    stdout, _ = process.communicate()
    seconds = time.perf_counter() - start
    watch.stop()
    assert json.loads(stdout)["usable"] == rows
    return {"rows": rows, "seconds": seconds, "peak_mib": watch.driver / 2**20}


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--plan-rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curate_text.json"))
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (arguments.rows, 10 * arguments.rows):
            data = write_rows(Path(folder) / f"data{rows}", rows)
            out = Path(folder) / f"out{rows}"
            found = measure(data, out, "--frame.reader", "none", with_plain=False)
            results.append(found)
            print(
                f"{found['rows']:>8,} rows  {found['rows_per_s']:8.1f} rows/s  "
                f"driver {found['driver_peak_mib']:.0f} MiB  "
                f"largest worker {found['worker_peak_mib']:.0f} MiB"
            )
        large = plan_rows(Path(folder) / "plan", arguments.plan_rows)
        print(
            f"plan of {large['rows']:,} rows: {large['seconds']:.0f} s, {large['peak_mib']:.0f} MiB"
        )
    ratio = results[1]["driver_peak_mib"] / results[0]["driver_peak_mib"]
    print(f"driver memory at 10x rows: {ratio:.2f}x")
    write_json_whole(
        arguments.out,
        {
            "machine": platform.platform(),
            "cpus": psutil.cpu_count(),
            "date": time.strftime("%Y-%m-%d"),
            "runs": results,
            "plan": large,
            "driver_memory_ratio_at_10x": ratio,
        },
    )


if __name__ == "__main__":
    main()
