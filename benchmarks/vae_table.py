"""Light decoders against their teacher and a 2D one, trained alike; and what each term is worth.

Every row is trained on the same cuts of rendered clips (their latents are encoded once), with the
same seed and for the same steps, or for the same seconds, then measured on held-out scenes. Peak
memory is of decoding one long video. Stopped at any moment, the same command goes on; rows that are
finished are not trained again.

    python benchmarks/vae_table.py --seconds 600            # about 10 minutes a row
    python benchmarks/vae_table.py --steps 20 --count 64 --rows tiny,2d   # a quick look
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from colibri.core.config import load_toml
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.shards import write_json_whole
from colibri.core.wan.family import codec_of
from colibri.testbed.embedded import LIGHT, PREFIX
from colibri.vae.bench import DiffusersCore, counted_flops, peak_bytes
from colibri.vae.cli import TINY_RECIPE
from colibri.vae.config import EncodeConfig, EvaluateConfig, LossConfig, TrainConfig
from colibri.vae.decode import Plan
from colibri.vae.encode import encode
from colibri.vae.evaluate import Row, evaluate
from colibri.vae.load import EMBEDDED, load_decoder, load_teacher
from colibri.vae.setup import TEACHER
from colibri.vae.train import train
from rows import about, command
from sampling import folder_of

CALIBRATION = 8
"""Steps that are timed to find how many fit into the seconds; the first two are not counted."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row: what it changes in the tiny recipe."""

    label: str
    changes: dict[str, Any] = field(default_factory=dict)


WARM: dict[str, Any] = {"init": TEACHER, "losses": LossConfig(features=0, temporal=0.25)}
"""What the terms' table speaks for: the teacher's channels to start from, and none of its features,
which take as long as the rest of a step."""

DECODERS = {
    "2d": Variant(label="2D (TAEHV's form), tiny", changes={"kind": "2d"}),
    "tiny": Variant(label="light tiny, causal"),
    "tiny-both": Variant(label="light tiny, non-causal", changes={"causal": False}),
    "warm": Variant(label="warm tiny, causal", changes=WARM),
    "warm-both": Variant(label="warm tiny, non-causal", changes=WARM | {"causal": False}),
    "warm-micro": Variant(label="warm micro, causal", changes=WARM | {"size": "micro"}),
    "warm-micro-both": Variant(
        label="warm micro, non-causal", changes=WARM | {"size": "micro", "causal": False}
    ),
}
"""tiny and tiny-both learn from all terms of the recipe, from random weights."""

LOSSES = {
    "no-features": Variant(label="without features", changes={"losses": LossConfig(features=0)}),
    "raw-features": Variant(
        label="features not normalised", changes={"losses": LossConfig(normalise_features=False)}
    ),
    "no-temporal": Variant(label="without temporal", changes={"losses": LossConfig(temporal=0)}),
    "l1": Variant(label="L1 alone", changes={"losses": LossConfig(features=0, temporal=0)}),
    "teacher-output": Variant(
        label="and the teacher's output", changes={"losses": LossConfig(teacher_output=1.0)}
    ),
    "multiscale": Variant(label="and multi-scale", changes={"losses": LossConfig(multiscale=1.0)}),
    "gan": Variant(label="and a GAN", changes={"losses": LossConfig(gan=0.02)}),
    "from-teacher": Variant(label="from the teacher's channels", changes={"init": TEACHER}),
}
"""Each against the row `tiny`."""

ROWS = DECODERS | LOSSES

SHIPPED = "shipped"
"""The row of a decoder that is there already (--decoder)."""


def main() -> None:
    """Encode, train every row, measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--seconds", type=float, help="of training for every row")
    budget.add_argument("--steps", type=int, help="of training for every row")
    parser.add_argument("--teacher", help="Wan VAE folder (the tiny one of the small world)")
    parser.add_argument("--work", type=Path, default=Path("out/vae_table"))
    parser.add_argument("--rows", default=",".join(ROWS), help="some of: %(default)s")
    parser.add_argument("--count", type=int, default=1000, help="training clips (%(default)s)")
    parser.add_argument("--held-out", type=int, default=32, help="clips measured (%(default)s)")
    parser.add_argument("--frames", type=int, default=17, help="of a clip (%(default)s)")
    parser.add_argument("--long", type=int, default=129, help="frames of the memory's video")
    parser.add_argument("--seeds", type=int, default=1, help="runs of every row (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--decoder",
        help="a light decoder of the teacher to measure beside them: folder or name; without it "
        f"and without --teacher {PREFIX + LIGHT}",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/vae_table.json"))
    parser.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.rows.split(",") if name.strip()]
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise SystemExit(f"error: there is no row {unknown[0]!r}; known: {', '.join(ROWS)}")
    if arguments.plan:
        each = f"{arguments.steps} steps" if arguments.steps else f"{arguments.seconds:.0f} s"
        print(f"{len(names)} rows, {arguments.seeds} seeds; {each} of training a row")
        return
    run(arguments, names)


def run(arguments: argparse.Namespace, names: list[str]) -> None:
    """All of it."""
    torch.set_num_threads(arguments.threads)
    teacher = arguments.teacher or EMBEDDED
    work: Path = arguments.work
    latents = work / "latents"
    recipe = load_toml(TrainConfig, TINY_RECIPE)
    encode(
        EncodeConfig(
            teacher=teacher,
            out=latents,
            count=arguments.count,
            frames=arguments.frames,
            crop=recipe.crop,
            batch=8,
            device="cpu",
        )
    )
    base = replace(
        recipe,
        teacher=teacher,
        latents=latents,
        frames=arguments.frames,
        threads=arguments.threads,
        device="cpu",
        preview_every=0,
        save_every=50,
    )
    folders: dict[tuple[str, int], Path] = {}
    spent: dict[tuple[str, int], tuple[int | None, float | None]] = {}
    for seed in range(arguments.seeds):
        for name in names:
            out = work / f"{name}-{seed}"
            config = replace(base, **ROWS[name].changes, out=out, seed=seed)
            steps = arguments.steps or _fitting(config, work, arguments.seconds)
            config = replace(config, steps=steps, warmup=min(config.warmup, max(1, steps // 10)))
            print(f"{name}, seed {seed}: {steps} steps", flush=True)
            clock = _Clock()
            trained = train(config, after_step=clock)
            assert trained.folder is not None
            folders[name, seed] = trained.folder
            spent[name, seed] = steps, clock.median
    if arguments.decoder is None and arguments.teacher is None:
        arguments.decoder = PREFIX + LIGHT
    if arguments.decoder:
        folders[SHIPPED, 0], spent[SHIPPED, 0] = folder_of(arguments.decoder), (None, None)
    _measure(arguments, teacher, names, folders, spent)


class _Clock:
    """Seconds of a step, from the calls after each."""

    def __init__(self) -> None:
        self.last: float | None = None
        self.steps: list[float] = []

    def __call__(self, _step: int) -> None:
        now = time.perf_counter()
        if self.last is not None:
            self.steps.append(now - self.last)
        self.last = now

    @property
    def median(self) -> float | None:
        """None where nothing was left to train."""
        return sorted(self.steps)[len(self.steps) // 2] if self.steps else None


def _fitting(config: TrainConfig, work: Path, seconds: float) -> int:
    """Steps in `seconds` on this machine; found once a row and kept, so that a run can go on."""
    note = work / "steps" / f"{config.out.name}-{seconds:g}.txt"
    if not note.exists():
        clock = _Clock()
        trial = replace(config, out=work / "trial" / config.out.name, steps=CALIBRATION)
        _fresh(trial.out)
        train(replace(trial, warmup=1), after_step=clock)
        usual = sorted(clock.steps[2:])[len(clock.steps[2:]) // 2]
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{max(1, int(seconds / usual))}\n")
    return int(note.read_text())


def _fresh(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _measure(
    arguments: argparse.Namespace,
    teacher: str,
    names: list[str],
    folders: dict[tuple[str, int], Path],
    spent: dict[tuple[str, int], tuple[int | None, float | None]],
) -> None:
    labels = {name: row.label for name, row in ROWS.items()}
    labels |= {"teacher": "teacher, fast", SHIPPED: arguments.decoder}
    places = {str(folder): key for key, folder in folders.items()}
    recipe = load_toml(TrainConfig, TINY_RECIPE)
    rows = evaluate(
        EvaluateConfig(
            teacher=teacher,
            decoders=tuple(places),
            count=arguments.held_out,
            frames=arguments.frames,
            crop=recipe.crop,
            device="cpu",
            html=arguments.work / "strips.html",
        )
    )
    costs = {teacher: _cost(teacher, arguments, recipe.crop)}
    costs |= {place: _cost(place, arguments, recipe.crop) for place in places}
    by_name: dict[str, list[Row]] = {"teacher": [rows[0]]}
    for row in rows[1:]:
        by_name.setdefault(places[row.name][0], []).append(row)
    table = []
    for name, group in by_name.items():
        place = teacher if name == "teacher" else str(folders[name, 0])
        steps, step_s = (None, None) if name == "teacher" else spent[name, 0]
        table.append(
            {
                "row": name,
                "label": labels[name],
                "psnr": _mean(group, lambda row: row.psnr),
                "psnr_range": [min(row.psnr for row in group), max(row.psnr for row in group)],
                "runs": [
                    {"psnr": row.psnr, "ssim": row.ssim, "flicker": row.flicker} for row in group
                ],
                "ssim": _mean(group, lambda row: row.ssim),
                "flicker": _mean(group, lambda row: row.flicker),
                "ms_per_frame": _mean(group, lambda row: row.ms_per_frame),
                "parameters": group[0].parameters,
                "steps": steps,
                "step_s": step_s,
                **costs[place],
            }
        )
    table.insert(1, _as_diffusers(teacher, arguments, recipe.crop, table[0]))
    first = ("teacher", "teacher-diffusers")
    _print("decoders", [row for row in table if row["row"] in (*first, SHIPPED, *DECODERS)])
    _print("terms", [row for row in table if row["row"] in ("tiny", *LOSSES)])
    settings = {
        key: value for key, value in vars(arguments).items() if key not in ("out", "work", "plan")
    }
    write_json_whole(
        arguments.out,
        {
            **about(),
            "settings": settings | {"teacher": Path(teacher).name},
            "rows": table,
        },
    )
    print(f"figures   {arguments.out}\nstrips    {arguments.work / 'strips.html'}")


def _as_diffusers(
    teacher: str, arguments: argparse.Namespace, crop: tuple[int, int], row: dict[str, Any]
) -> dict[str, Any]:
    """The teacher's row with the time, work and memory of diffusers' own decoding: the same video
    to rounding."""
    vae = load_teacher(teacher)
    height, width = crop
    video = VideoShape(frames=arguments.frames, height=height, width=width)
    shape = LatentShape.of(video, codec_of(vae.config))
    long = LatentShape.of(replace(video, frames=arguments.long), codec_of(vae.config))

    def latents(shape: LatentShape) -> torch.Tensor:
        return torch.randn(1, shape.channels, shape.frames, shape.height, shape.width)

    z, many, times = latents(shape), latents(long), []
    with torch.no_grad():
        vae.decode(z)
        for _ in range(arguments.held_out):
            start = time.perf_counter()
            vae.decode(z)
            times.append((time.perf_counter() - start) / arguments.frames * 1000)
        peak = peak_bytes(lambda: vae.decode(many), torch.device("cpu"))
    return row | {
        "row": "teacher-diffusers",
        "label": "teacher, diffusers' way",
        "ms_per_frame": sorted(times)[len(times) // 2],
        "gflop": counted_flops(DiffusersCore(vae), shape) / 1e9,
        "peak_mb": peak / 1e6,
    }


def _mean(rows: list[Row], value: Callable[[Row], float]) -> float:
    return sum(map(value, rows)) / len(rows)


def _cost(place: str, arguments: argparse.Namespace, crop: tuple[int, int]) -> dict[str, float]:
    """Work of one clip; memory of a long video in chunks of 8 latents."""
    decoder = load_decoder(place)
    height, width = crop
    clip = VideoShape(frames=arguments.frames, height=height, width=width)
    shape = LatentShape.of(clip, decoder.codec)
    long = LatentShape.of(replace(clip, frames=arguments.long), decoder.codec)
    size = (1, long.channels, long.frames, long.height, long.width)
    z = torch.randn(size, generator=torch.Generator().manual_seed(0))

    def decode() -> None:
        for _ in decoder.stream(z, Plan(chunk=8)):
            pass

    return {
        "gflop": counted_flops(decoder.core, shape) / 1e9,
        "peak_mb": peak_bytes(decode, torch.device("cpu")) / 1e6,
    }


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    if len(rows) < 2 and title == "terms":
        return
    print(f"\n{title:<30}{'PSNR':>8}{'SSIM':>8}{'flicker':>9}{'ms/fr.':>8}{'GFLOP':>8}", end="")
    print(f"{'peak MB':>9}{'M par.':>8}{'steps':>7}")
    for row in rows:
        print(
            f"{row['label']:<30}{row['psnr']:>8.2f}{row['ssim']:>8.4f}{row['flicker']:>9.2f}"
            f"{row['ms_per_frame']:>8.2f}{row['gflop']:>8.2f}{row['peak_mb']:>9.1f}"
            f"{row['parameters'] / 1e6:>8.2f}{row['steps'] or '':>7}"
        )


if __name__ == "__main__":
    command(main)
