"""A video end to end: stage table, memory plans, quantised weights, few steps against many.

Every variant makes the same video (same prompt, seed, size) in one process; variants take turns,
round after round, so that a busy moment meets them all. Loading is a stage of its own and in no
other's figure. Peak memory is what PyTorch's allocator held: the device's own count on a GPU, the
profiler's on a CPU, in a run that is not timed.

    python benchmarks/infer_e2e.py --model FOLDER
    python benchmarks/infer_e2e.py --full-size

`--full-size` is for a GPU: Wan2.2-TI2V-5B with random weights made on the device, 121 frames of
1280x704. Neither time nor memory depends on what the weights are; the text encoder is left out
there, and said to be.
"""

import argparse
import gc
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.shards import write_json_whole
from colibri.core.video import write_video
from colibri.core.wan.family import WAN22_TI2V_5B
from colibri.core.wan.model import kept_in_float32
from colibri.core.wan.sampler import schedule_for
from colibri.infer import about, light, memory, models, placement, quantized
from colibri.infer.config import DType, InfoConfig, QuantizeConfig, Scheme
from colibri.infer.denoise import denoise, encode_prompt, needed_prompts
from colibri.infer.finish import decode_clip
from colibri.infer.models import Machine, Source
from colibri.infer.quantize import about_as, quantize
from colibri.infer.recipe import DecoderUse, Recipe
from colibri.vae import load_decoder
from rows import command

FORMAT = "colibri-infer-e2e/1"
PROMPT = "a red circle moves left over a blue background"
TIMESTEPS = (1000, 750, 500)
SCHEMES: tuple[Scheme, ...] = ("int8", "int8-dynamic", "int4")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to make the video."""

    name: str
    steps: int = 3
    guided: bool = False
    scheme: Scheme | None = None
    vram: str | None = None
    """A memory plan for so many GB; None: everything on the device."""
    decoder: str | None = None
    """Folder of a light decoder; None: the model's own."""


def main() -> None:
    """Every variant by turns, a table, the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="model folder; without it the embedded tiny model")
    parser.add_argument("--full-size", action="store_true", help="5B, random weights, on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--vae-dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--vram", default="", help="GB, with commas: 16,12,8,6")
    parser.add_argument("--schemes", default="int8,int8-dynamic,int4", help="empty: none")
    parser.add_argument("--decoder", help="folder of a light decoder: 3 steps with it, too")
    parser.add_argument("--many", type=int, default=50, help="steps to compare 3 with; 0: none")
    parser.add_argument("--rounds", type=int, default=3, help="after one that is not counted")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/infer_e2e.json"))
    arguments = parser.parse_args()
    if arguments.full_size and not arguments.device.startswith("cuda"):
        raise SystemExit("--full-size needs a GPU: --device cuda")
    variants = _variants(arguments)
    with tempfile.TemporaryDirectory() as folder:
        table = run(arguments, variants, Path(folder))
    print(text(table))
    write_json_whole(arguments.out, table)
    print(arguments.out)


def run(arguments: argparse.Namespace, variants: list[Variant], folder: Path) -> dict[str, Any]:
    """The figures of all variants, JSON-ready."""
    machine = models.choose_machine(
        arguments.device, cast(DType, arguments.dtype), cast(DType, arguments.vae_dtype)
    )
    makers = [Maker(one, arguments, machine, folder) for one in variants]
    seconds: dict[str, list[dict[str, float]]] = {one.name: [] for one in variants}
    for counted in range(arguments.rounds + 1):
        for maker in makers:
            stages = maker.video()
            if counted:
                seconds[maker.variant.name].append(stages)
            print(f"{maker.variant.name}: {sum(stages.values()):.2f} s", flush=True)
    rows = []
    for maker in makers:
        rounds = seconds[maker.variant.name]
        medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        totals = [sum(one.values()) for one in rounds]
        rows.append(
            {
                "variant": maker.variant.name,
                "steps": maker.variant.steps,
                "guided": maker.variant.guided,
                "stages_s": medians,
                "total_s": statistics.median(totals),
                "all_s": totals,
                "load_s": maker.load_s,
                "weights_bytes": maker.weights_bytes,
                "peak_bytes": maker.peak_bytes(),
                "predicted_bytes": maker.predicted_bytes,
                "way": maker.way,
            }
        )
    recipe = makers[0].recipe
    return {
        "format": FORMAT,
        "date": date.today().isoformat(),
        "family": makers[0].source.family.name,
        "weights": "random" if arguments.full_size else "trained",
        "size": f"{recipe.width}x{recipe.height}",
        "frames": recipe.frames,
        "rounds": arguments.rounds,
        "order": "by turns in one process",
        "not_included": "loading" + (", the text encoder" if arguments.full_size else ""),
        "device": models.device_name(machine.device),
        "machine": {"system": platform.platform(), "threads": torch.get_num_threads()},
        "dtype": machine.dtype,
        "vae_dtype": machine.vae_dtype,
        "versions": models.versions(),
        "rows": rows,
    }


def text(table: dict[str, Any]) -> str:
    """For people."""
    names = list(table["rows"][0]["stages_s"])
    head = f"{'variant':<22}" + "".join(f"{name + ' s':>11}" for name in names)
    lines = [head + f"{'total s':>10}{'times':>8}{'load s':>9}{'weights MB':>12}{'peak MB':>10}"]
    first = table["rows"][0]["total_s"]
    for row in table["rows"]:
        stages = "".join(f"{row['stages_s'][name]:>11.3f}" for name in names)
        lines.append(
            f"{row['variant']:<22}{stages}{row['total_s']:>10.3f}{row['total_s'] / first:>8.2f}"
            f"{row['load_s']:>9.2f}{row['weights_bytes'] / 1e6:>12,.1f}"
            f"{row['peak_bytes'] / 1e6:>10,.1f}"
        )
    lines.append(
        f"{table['family']}, {table['weights']} weights, {table['size']}, {table['frames']} "
        f"frames; median of {table['rounds']} rounds {table['order']}; not included: "
        f"{table['not_included']}. {table['device']}, {table['dtype']}, VAE {table['vae_dtype']}."
    )
    return "\n".join(lines)


class Maker:
    """A loaded model that makes the video of one variant."""

    def __init__(
        self, variant: Variant, arguments: argparse.Namespace, machine: Machine, folder: Path
    ) -> None:
        self.variant = variant
        self._full = arguments.full_size
        self.source = _source(arguments, variant, folder)
        recipe = _recipe(self.source, variant, machine)
        self.recipe = replace(recipe, decoder=_decoder(variant, self.source, self._full))
        self.predicted_bytes: int | None = None
        if variant.vram:
            budget = memory.budget_bytes(variant.vram, machine.device)
            assert budget is not None
            scheme = variant.scheme
            packed = about_as(self.source.family, scheme) if scheme and self._full else None
            plan = memory.make_plan(self.source, self.recipe, machine, budget, about=packed)
            print(plan.lines(), flush=True)
            machine = replace(machine, plan=plan)
            self.predicted_bytes = max(stage.peak_bytes for stage in plan.stages[1:])
        self.machine = machine
        begin = time.perf_counter()
        self._text = (
            None if self._full else _loaded(self.source, machine, "tokenizer", "text_encoder")
        )
        if self._full:
            self._model = _random(self.source.family, machine, variant.scheme)
            if variant.decoder is not None:
                self._model.vae = _light(variant.decoder, self.source.family, machine)
        else:
            self._model = _loaded(
                self.source, machine, "transformer", "vae", decoder=self.recipe.decoder
            )
        placement.place(self._model, machine)
        self.load_s = time.perf_counter() - begin
        parts = (self._model.transformer, self._model.vae)
        self.weights_bytes = sum(map(memory.weights_bytes, parts))
        if self._text is not None:
            self.weights_bytes += memory.weights_bytes(self._text.text_encoder)
        self.way = ""
        placement.enter(self._model, "away")

    def video(self) -> dict[str, float]:
        """Make it; seconds of each stage."""
        machine, stages = self.machine, {}

        def timed(name: str, work: Callable[[], Any]) -> Any:
            _wait(machine.device)
            begin = time.perf_counter()
            made = work()
            _wait(machine.device)
            stages[name] = time.perf_counter() - begin
            return made

        placement.enter(self._model, "denoise")  # from another variant's turn: not counted
        words = timed("text", self._words)
        latents = timed("denoise", lambda: denoise(self._model, self.recipe, words, None))
        frames, self.way = timed(
            "decode",
            lambda: decode_clip(self._model, machine, latents, mode="auto", say=print),
        )
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "video.mp4"
            fps = Fraction(self.recipe.fps)
            timed("write", lambda: write_video(file, iter(frames), fps=fps, exact=True))
        placement.enter(self._model, "away")
        return stages

    def peak_bytes(self) -> int:
        """Weights of the video stages, and most that the allocator gave beside them."""
        gc.collect()
        if self.machine.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self.machine.device)
            self.video()
            return int(torch.cuda.max_memory_allocated(self.machine.device))
        from torch.profiler import ProfilerActivity, profile

        few = replace(self.recipe, schedule=memory.few_steps(self.recipe.flow).to_json())
        words = self._words()
        placement.enter(self._model, "denoise")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            latents = denoise(self._model, few, words, None)
            decode_clip(self._model, self.machine, latents, mode="auto", say=print)
        events = seen.profiler.kineto_results.events()
        held = most = 0
        for one in sorted(
            (one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()
        ):
            held += one.nbytes()
            most = max(most, held)
        return (
            most
            + memory.weights_bytes(self._model.transformer)
            + memory.weights_bytes(self._model.vae)
        )

    def _words(self) -> dict[str, torch.Tensor]:
        prompts = needed_prompts(self.recipe)
        if self._text is not None:
            return {prompt: encode_prompt(self._text, prompt) for prompt in prompts}
        family = self.source.family
        shape = (1, family.defaults.text_tokens, family.transformer["text_dim"])
        return {prompt: torch.zeros(shape, dtype=torch.bfloat16) for prompt in prompts}


def _variants(arguments: argparse.Namespace) -> list[Variant]:
    found = [Variant(name=f"3 steps, {arguments.dtype}")]
    for scheme in filter(None, arguments.schemes.split(",")):
        if scheme not in ("int8", "int8-dynamic", "fp8", "int4"):
            raise UserError(f"there is no scheme {scheme!r}")
        found.append(Variant(name=f"3 steps, {scheme}", scheme=cast(Scheme, scheme)))
    for vram in filter(None, arguments.vram.split(",")):
        found.append(Variant(name=f"3 steps, {vram} GB", vram=vram))
    if arguments.decoder:
        found.append(Variant(name="3 steps, light decoder", decoder=arguments.decoder))
    if arguments.many:
        found.append(
            Variant(name=f"{arguments.many} steps with CFG", steps=arguments.many, guided=True)
        )
    return found


def _source(arguments: argparse.Namespace, variant: Variant, folder: Path) -> Source:
    if arguments.full_size:
        return about.find(InfoConfig(model=WAN22_TI2V_5B.name))
    if variant.scheme is None:
        return models.find_model(arguments.model)
    out = folder / variant.scheme
    if not out.exists():
        quantize(
            QuantizeConfig(model=arguments.model, scheme=variant.scheme, out=out, compare=False),
            say=lambda _: None,
        )
    return models.find_model(str(out))


def _recipe(source: Source, variant: Variant, machine: Machine) -> Recipe:
    asked = InfoConfig(dtype=machine.dtype, vae_dtype=machine.vae_dtype)
    default = source.family.defaults
    recipe = replace(about.recipe_of(source, asked), prompt=PROMPT, prompt_used=PROMPT)
    if variant.guided:
        schedule = schedule_for("unipc", variant.steps, default.shift)
        return replace(recipe, sampler="unipc", guidance=5.0, schedule=schedule.to_json())
    schedule = FlowSchedule.listed(TIMESTEPS, shift=default.shift)
    return replace(recipe, sampler="consistency", guidance=1.0, schedule=schedule.to_json())


def _decoder(variant: Variant, source: Source, full: bool) -> DecoderUse | None:
    """Held against the model's VAE, but for random weights."""
    if variant.decoder is not None and full:
        return DecoderUse(source=variant.decoder, sha256="")
    return light.find_decoder(variant.decoder, source, say=print)


def _light(folder: str, family: wan.ModelFamily, machine: Machine) -> light.Light:
    decoder = load_decoder(folder, device=machine.device, dtype=getattr(torch, machine.vae_dtype))
    return light.Light(decoder, family, lambda: None)


def _loaded(
    source: Source, machine: Machine, *parts: str, decoder: DecoderUse | None = None
) -> wan.WanModel:
    waits = machine.plan is not None and machine.plan.way.vae_waits
    home = replace(machine, device="cpu") if waits else machine
    return light.load(source, home, decoder, *parts)


def _random(family: wan.ModelFamily, machine: Machine, scheme: Scheme | None) -> wan.WanModel:
    """Transformer and VAE at random, made where they will be."""
    home = "cpu" if machine.plan is not None and machine.plan.way.vae_waits else machine.device
    packed = about_as(family, scheme)["transformer"] if scheme else None
    transformer = quantized.build(family, "transformer", machine.dtype, packed)
    vae = wan.build_meta(family, "vae").eval()
    full = kept_in_float32(vae, "vae", machine.vae_dtype)
    assert not full
    vae = torch.nn.Module.to(vae, getattr(torch, machine.vae_dtype))
    for network in (transformer, vae):
        _fill(network, torch.device(home))
    return wan.WanModel(family=family, transformer=transformer, vae=vae)


@torch.no_grad()
def _fill(network: Any, device: torch.device) -> None:
    for owner in network.modules():
        for tensors in (owner._parameters, owner._buffers):
            for name, empty in tensors.items():
                if empty is None:
                    continue
                if empty.device.type != "meta":
                    tensors[name] = empty.to(device)
                    continue
                made = torch.empty(empty.shape, dtype=empty.dtype, device=device)
                if empty.dtype in (torch.int8, torch.uint8):
                    made.random_(0, 100)
                elif empty.dtype.itemsize == 1:
                    made.copy_(torch.randn(empty.shape, device=device))
                else:
                    made.normal_(0, 0.02)
                tensors[name] = (
                    torch.nn.Parameter(made, False) if tensors is owner._parameters else made
                )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    command(main)
