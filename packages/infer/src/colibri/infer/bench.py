"""Where the time of a video goes: each stage cold and warm, with its peak memory.

Measures the very functions that `generate` calls. Loading is a stage of its own and never part of
another's figure.
"""

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole
from colibri.core.video import write_video
from colibri.infer import models
from colibri.infer.config import BenchConfig
from colibri.infer.decode import Say, free_memory
from colibri.infer.denoise import (
    denoise,
    encode_prompt,
    load_denoiser,
    load_encoder,
    needed_prompts,
)
from colibri.infer.finish import decode_clip
from colibri.infer.jobs import job_of
from colibri.infer.models import Machine
from colibri.infer.outputs import check_file, writing
from colibri.infer.settings import describe, make_recipes

FORMAT = "colibri-bench/1"
INCLUDES = {
    "load text": "tokenizer and text encoder from disk to the device",
    "text": "tokens and embeddings of the prompt, and of the negative one where there is guidance",
    "load video": "transformer and VAE from disk to the device, LoRA files",
    "denoise": "noise and all sampling steps; cold: with compiling and kernel choice",
    "step": "one sampling step, both branches where there is guidance",
    "decode": "latents on the device to frames in memory",
    "write": "frames to an H.264 MP4 on disk",
}
PARTS = ("text", "denoise", "decode", "write")
"""The stages of a warm video; `step` is part of `denoise`."""

T = TypeVar("T")


@dataclass(kw_only=True)
class Stage:
    """Times of one stage, the first one cold."""

    times_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def warm_s(self) -> float | None:
        """Median of all but the first."""
        return statistics.median(self.times_s[1:]) if len(self.times_s) > 1 else None


class Meter:
    """Times and peak memory by stage. `clock` counts seconds."""

    def __init__(self, device: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.stages: dict[str, Stage] = {}
        self._device, self._clock = device, clock

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what happens inside, to the device's last kernel."""
        self._reset_peak()
        begin = self.now()
        yield
        stage = self.stages.setdefault(name, Stage())
        stage.times_s.append(self.now() - begin)
        stage.peak_bytes = max(stage.peak_bytes, self._peak())

    def now(self) -> float:
        """The clock, once the device has nothing left to do."""
        import torch

        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        return self._clock()

    def _reset_peak(self) -> None:
        import torch

        if self._device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self._device)
        else:  # Linux: the process's high-water mark of resident memory
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def _peak(self) -> int:
        import torch

        if self._device.startswith("cuda"):
            return int(torch.cuda.max_memory_allocated(self._device))
        return peak_resident_bytes()


def bench(config: BenchConfig, *, say: Say) -> dict[str, Any]:
    """Render one video 1 + `config.repeats` times; the figures as a JSON-ready table, also on disk.

    Nothing of the video is kept.
    """
    from colibri.infer import light
    from colibri.infer.memory import plan_for

    if config.repeats < 1:
        raise UserError("--repeats has to be at least 1")
    check_file(config.json)
    source = models.find_model(config.model, config.revision, say=say)
    say(source.line())
    machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
    (planned,) = make_recipes(
        config,
        [job_of(config.prompt, config.seed, negative_prompt=config.negative_prompt)],
        source,
        machine,
        decoder=light.find_decoder(config.decoder, source, say=say),
        say=say,
    )
    recipe = planned.recipe
    say(describe(recipe, machine, 1))
    machine = plan_for(config.vram, source, recipe, machine, say=say)
    meter = Meter(machine.device)
    runs = 1 + config.repeats
    with meter.stage("load text"):
        model = load_encoder(source, machine, machine.plan.text if machine.plan else "device")
    for _ in range(runs):
        with meter.stage("text"):
            embeddings = {text: encode_prompt(model, text) for text in needed_prompts(recipe)}
    del model
    free_memory()
    with meter.stage("load video"):
        model = load_denoiser(source, machine, recipe)
    way = ""
    for _ in range(runs):
        steps = [meter.now()]
        with meter.stage("denoise"):
            latents = denoise(
                model,
                recipe,
                embeddings,
                None,
                on_step=lambda _, steps=steps: steps.append(meter.now()),  # type: ignore[misc]
            )
        times = [later - earlier for earlier, later in itertools.pairwise(steps)]
        step = meter.stages.setdefault("step", Stage())
        step.times_s.append(statistics.median(times))
        step.peak_bytes = meter.stages["denoise"].peak_bytes
        with meter.stage("decode"):
            frames, way = decode_clip(model, machine, latents, mode=config.decode, say=say)
        with tempfile.TemporaryDirectory() as folder, meter.stage("write"):
            write_video(Path(folder) / "b.mp4", iter(frames), fps=Fraction(recipe.fps), exact=True)
    table = report(meter, machine, runs) | {"recipe": to_table(recipe), "decode": way}
    table["plan"] = to_table(machine.plan) if machine.plan else None
    with writing(config.json):
        write_json_whole(config.json, table)
    return table


def report(meter: Meter, machine: Machine, runs: int) -> dict[str, Any]:
    """The figures of a meter, with what they include and what they were measured on."""
    stages = {}
    for name in INCLUDES:
        stage = meter.stages[name]
        stages[name] = {
            "cold_s": stage.times_s[0],
            "warm_s": stage.warm_s,
            "all_s": stage.times_s,
            "peak_bytes": stage.peak_bytes,
            "includes": INCLUDES[name],
        }
    loads = ("load text", "load video")
    return {
        "format": FORMAT,
        "stages": stages,
        "total_cold_s": sum(stages[name]["cold_s"] for name in (*loads, *PARTS)),
        "total_warm_s": sum(stages[name]["warm_s"] or 0.0 for name in PARTS),
        "runs": runs,
        "memory": "allocated on the GPU" if "cuda" in machine.device else "resident, the process",
        "device": models.device_name(machine.device),
        "dtype": machine.dtype,
        "vae_dtype": machine.vae_dtype,
        "versions": models.versions(),
    }


def text(table: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{'stage':<12}{'cold s':>10}{'warm s':>10}{'peak GB':>10}  includes"]
    for name, stage in table["stages"].items():
        warm = "" if stage["warm_s"] is None else f"{stage['warm_s']:.3f}"
        lines.append(
            f"{'  ' if name == 'step' else ''}{name:<{10 if name == 'step' else 12}}"
            f"{stage['cold_s']:>10.3f}{warm:>10}{stage['peak_bytes'] / 1e9:>10.2f}"
            f"  {stage['includes']}"
        )
    lines += [
        f"{'total':<12}{table['total_cold_s']:>10.3f}{table['total_warm_s']:>10.3f}",
        "",
        f"Cold: first in this process, loading included. Warm: median of {table['runs'] - 1} more, "
        f"without loading; {', '.join(PARTS)}.",
        f"Memory: {table['memory']}. {table['device']}, {table['dtype']}, "
        f"VAE {table['vae_dtype']}; "
        + ", ".join(f"{name} {version}" for name, version in table["versions"].items())
        + ".",
    ]
    return "\n".join(lines)


def peak_resident_bytes() -> int:
    """Most memory that this process has held, since the mark was reset where that is possible."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
