"""What lives where, before anything loads: one plan from a budget, by running the shapes alone.

Each stage (text, denoise, decode) has ways in order of preference; the first whose predicted peak
fits is taken. The same order is gone down when memory runs out after all.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.decoder import decode_stream, encode_video
from colibri.core.wan.family import ModelFamily
from colibri.core.wan.rollout import whole_clip
from colibri.infer import quantized
from colibri.infer.decode import STEPS_DOWN
from colibri.infer.dryrun import peak_bytes
from colibri.infer.models import Machine, Source
from colibri.infer.recipe import Recipe
from colibri.infer.stream_weights import chunk_ffn, streamed_bytes

GIB = 1 << 30
GPU_RESERVE_BYTES = 700 << 20
"""CUDA's context, a desktop, kernels' workspaces: what a card does not give to tensors."""
FRAGMENTED = 0.96
"""Share of a GPU's memory that its allocator can use."""
PROCESS_BYTES = 1_500_000_000
"""Python, PyTorch and its libraries on the host, without weights: a rough figure."""

TEXT_WAYS = ("device", "stream", "cpu")
"""Of the text encoder: whole on the device, block by block, on the CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How the transformer is placed and run."""

    place: Literal["device", "stream"] = "device"
    """Whole on the device, or block by block from the host."""
    ffn_chunks: int = 1
    """Parts that the feed-forward takes its tokens in."""
    lean: bool = False
    """One row of modulation a clip instead of one a token, where no first frame is given."""
    vae_waits: bool = False
    """The VAE is on the host while the transformer works, and the other way round."""

    def text(self) -> str:
        """For people."""
        words = [
            "transformer on the device"
            if self.place == "device"
            else "transformer block by block from the host"
        ]
        if self.ffn_chunks > 1:
            words.append(f"feed-forward in {self.ffn_chunks} parts")
        if self.lean:
            words.append("one modulation row a clip")
        words.append("VAE on the host meanwhile" if self.vae_waits else "VAE stays beside it")
        return ", ".join(words)


WAYS = (
    Way(),
    Way(vae_waits=True),
    Way(vae_waits=True, ffn_chunks=8),
    Way(vae_waits=True, place="stream"),
    Way(vae_waits=True, place="stream", ffn_chunks=8),
    Way(vae_waits=True, ffn_chunks=8, lean=True),
    Way(vae_waits=True, place="stream", ffn_chunks=8, lean=True),
    Way(vae_waits=True, place="stream", ffn_chunks=32, lean=True),
)
"""In order of preference: the same frames bit for bit before the same up to rounding at a place,
and what is fast before what is slow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of a video on the device."""

    name: str
    way: str
    weights_bytes: int
    working_bytes: int
    """Most that is held beside the weights."""

    @property
    def peak_bytes(self) -> int:
        """Predicted."""
        return self.weights_bytes + self.working_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Where everything lives."""

    budget_bytes: int
    text: str
    way: Way
    decode: str
    stages: tuple[Stage, ...]
    host_bytes: int
    """Predicted peak on the host, weights and frames; the process itself comes on top."""
    precision: str

    @property
    def fits(self) -> bool:
        """False where even the last way of a stage is predicted to be too large."""
        return all(stage.peak_bytes <= self.budget_bytes for stage in self.stages)

    def lines(self) -> str:
        """A table for people."""
        head = f"Memory plan for {_gb(self.budget_bytes)} ({self.precision}):"
        rows = [head, f"  {'stage':<9}{'weights':>10}{'working':>10}{'peak':>10}  how"]
        for stage in self.stages:
            much = (stage.weights_bytes, stage.working_bytes, stage.peak_bytes)
            over = "" if stage.peak_bytes <= self.budget_bytes else "  OVER THE BUDGET"
            rows.append(
                f"  {stage.name:<9}"
                + "".join(f"{_gb(one):>10}" for one in much)
                + f"  {stage.way}{over}"
            )
        rows.append(
            f"  host: {_gb(self.host_bytes)} of weights and frames at most, and about "
            f"{_gb(PROCESS_BYTES)} for the process"
        )
        if (
            self.way.place == "stream"
            and "int" not in self.precision
            and "fp8" not in self.precision
        ):
            rows.append("  infer quantize would halve the weights, or more")
        return "\n".join(rows)


def plan_for(asked: str | None, source: Source, recipe: Recipe, machine: Machine) -> Machine:
    """`machine` with a plan for `recipe`; without one where no budget is asked or known.

    `asked` is a number of GiB, `auto`, or None: auto on a GPU. UserError for anything else.
    """
    budget = budget_bytes(asked, machine.device)
    if budget is None:
        return machine
    return replace(machine, plan=make_plan(source, recipe, machine, budget))


def budget_bytes(asked: str | None, device: str) -> int | None:
    """What tensors may take on `device`, None where nothing is asked and it cannot be known."""
    gpu = not device.startswith("cpu")
    if asked is None or asked.strip().lower() == "auto":
        if device.startswith("cuda"):
            free, _ = torch.cuda.mem_get_info(device)
            return int(free * FRAGMENTED) - GPU_RESERVE_BYTES // 2  # its context is there already
        return None if gpu or asked is None else available_host_bytes()
    try:
        size = float(asked)
    except ValueError:
        size = 0.0
    if not 0 < size < 10_000:
        raise UserError(f"--vram {asked} is not a number of GB", hint="such as 16, 8, or auto")
    whole = int(size * GIB)
    if gpu and whole <= GPU_RESERVE_BYTES:
        raise UserError(f"--vram {asked} is less than a GPU takes for itself", hint="use 2 or more")
    return int(whole * FRAGMENTED) - GPU_RESERVE_BYTES if gpu else whole


def available_host_bytes() -> int | None:
    """Free memory of the host, from Linux; None elsewhere."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def make_plan(source: Source, recipe: Recipe, machine: Machine, budget: int) -> MemoryPlan:
    """The first way of each stage that is predicted to fit `budget` bytes, else its last."""
    shapes = Shapes(source, recipe, machine)
    text = _first([shapes.text(way) for way in TEXT_WAYS], budget, machine.device.startswith("cpu"))
    decodes = {way: shapes.decode(way) for way in ("whole", "chunks")}
    decode = "whole"
    if decodes["whole"].peak_bytes > budget:
        decode = "chunks"
        if decodes["chunks"].peak_bytes > budget:
            decodes["tiles"], decode = shapes.decode("tiles"), "tiles"
            if decodes["tiles"].peak_bytes > budget and not machine.device.startswith("cpu"):
                decodes["cpu"], decode = shapes.decode("cpu"), "cpu"
    chosen = shapes.denoise(WAYS[-1]), WAYS[-1]
    for way in WAYS:
        stage = shapes.denoise(way)
        beside = 0 if way.vae_waits else shapes.weights("transformer")
        if max(stage.peak_bytes, decodes[decode].peak_bytes + beside) <= budget:
            chosen = stage, way
            break
    decoding = decodes[decode]
    if not chosen[1].vae_waits:
        decoding = replace(
            decoding, weights_bytes=decoding.weights_bytes + shapes.weights("transformer")
        )
    found = quantized.scheme_of(source.folder)
    return MemoryPlan(
        budget_bytes=budget,
        text=text.way,
        way=chosen[1],
        decode=decode,
        stages=(text, chosen[0], decoding),
        host_bytes=shapes.host(text.way, chosen[1], decode),
        precision=f"{found + ', ' if found else ''}{machine.dtype}, VAE {machine.vae_dtype}",
    )


class Shapes:
    """One model, one video: the bytes of each stage in each way. Loads no weights."""

    def __init__(self, source: Source, recipe: Recipe, machine: Machine) -> None:
        self._source, self._recipe, self._machine = source, recipe, machine
        self._family: ModelFamily = source.family
        self._shape = source.family.latent_shape(recipe.video)

    def text(self, way: str) -> Stage:
        """The text encoder on one prompt."""
        encoder = self._network("text_encoder")
        tokens = self._family.defaults.text_tokens

        def run() -> Tensor:
            ids = torch.zeros((1, tokens), dtype=torch.long, device="meta")
            hidden: Tensor = encoder(ids, torch.ones_like(ids)).last_hidden_state
            return torch.where(ids[..., None] > 0, hidden, 0)

        if way == "cpu":
            return Stage(name="text", way=way, weights_bytes=0, working_bytes=0)
        weights = _bytes(encoder)
        if way == "stream":
            _, largest = streamed_bytes(encoder.encoder.block)
            inside = sum(_bytes(block) for block in encoder.encoder.block)
            weights += 2 * largest - inside
        return Stage(
            name="text",
            way=way,
            weights_bytes=weights,
            working_bytes=self._peak(run),
        )

    def denoise(self, way: Way) -> Stage:
        """All sampling steps, and before them the encoding of a first frame."""
        transformer, vae = self._network("transformer"), self._network("vae")
        recipe, shape = self._recipe, self._shape
        weights = _bytes(transformer)
        if way.place == "stream":
            _, largest = streamed_bytes(transformer.blocks)
            weights += 2 * largest - sum(_bytes(block) for block in transformer.blocks)
        if not way.vae_waits:
            weights += _bytes(vae)
        for block in transformer.blocks:
            chunk_ffn(block, way.ffn_chunks)
        words = torch.empty(
            (1, self._family.defaults.text_tokens, self._family.transformer["text_dim"]),
            dtype=getattr(torch, recipe.dtype),
            device="meta",
        )
        first = (1, shape.channels, 1, shape.height, shape.width)

        def run() -> Tensor:
            return whole_clip(
                transformer,
                words.clone(),
                shape=shape,
                schedule=_few_steps(recipe.flow),
                generator=torch.Generator().manual_seed(0),
                sampler=recipe.sampler,
                guidance=recipe.guidance,
                negative_BLD=None if recipe.guidance == 1 else words.clone(),
                first_BCTHW=torch.empty(first, device="meta") if recipe.image_sha256 else None,
                per_token=self._family.expand_timesteps and not way.lean,
            )

        working = self._peak(run)
        if recipe.image_sha256:
            pixels = torch.empty((1, 3, 1, recipe.height, recipe.width), device="meta")
            encoding = self._peak(lambda: encode_video(vae, pixels))
            beside = _bytes(vae) - weights if way.vae_waits else 0  # it works alone then
            working = max(working, encoding + beside)
        return Stage(name="denoise", way=way.text(), weights_bytes=weights, working_bytes=working)

    def decode(self, way: str) -> Stage:
        """Latents to frames, the VAE alone on the device."""
        vae = self._network("vae")
        shape = self._shape
        # Beyond a few latents only the finished frames grow.
        size = (1, shape.channels, shape.frames, shape.height, shape.width)

        def run() -> object:
            raw = torch.empty(size, dtype=torch.float32, device="meta")
            if way == "chunks":
                for video in decode_stream(vae, raw):
                    _to_uint8(video)
                return None
            return _to_uint8(vae.decode(raw.to(vae.dtype)).sample)

        if way == "cpu":
            return Stage(name="decode", way=_DECODES[way], weights_bytes=0, working_bytes=0)
        if way == "tiles":
            vae.enable_tiling()
        try:
            working = self._peak(run)
        finally:
            vae.disable_tiling()
            vae.clear_cache()
        return Stage(
            name="decode",
            way=_DECODES[way],
            weights_bytes=_bytes(vae),
            working_bytes=working,
        )

    def weights(self, part: str) -> int:
        """Bytes of a part as it is loaded."""
        return _bytes(self._network(part))

    def host(self, text: str, way: Way, decode: str) -> int:
        """Most that the host holds of weights and frames at any moment, loading among them."""
        cpu = self._machine.device.startswith("cpu")
        encoder, transformer, vae = (
            self.weights(part) for part in ("text_encoder", "transformer", "vae")
        )
        video = self._recipe
        frames = video.frames * video.height * video.width * 3
        # Every part is read onto the host first; the two of the video one after the other.
        denoising = transformer + vae if way.vae_waits or cpu else max(transformer, vae)
        decoding = frames + (transformer if way.vae_waits or cpu else 0) + (vae if cpu else 0)
        return max(encoder, denoising, decoding)

    def _peak(self, run: Callable[[], object]) -> int:
        return peak_bytes(run, self._machine.device)

    @functools.cache  # noqa: B019 (it lives as long as one plan)
    def _network(self, part: str) -> Any:
        machine = self._machine
        if part == "vae":
            dtype = getattr(torch, machine.vae_dtype)
            return wan.build_meta(self._family, "vae").to(dtype).eval()
        folder = self._source.folder / part
        about = quantized.read_about(folder) if quantized.is_quantized(folder) else None
        return quantized.build(self._family, part, machine.dtype, about).to("meta")


_DECODES = {
    "whole": "whole",
    "chunks": "one latent frame at a time",
    "tiles": "in tiles, which may show slightly near their seams",
    "cpu": "on the CPU",
}
assert tuple(_DECODES) == STEPS_DOWN


def _few_steps(flow: FlowSchedule) -> FlowSchedule:
    """Its first steps: from the third on nothing new is held."""
    if flow.steps <= 3:
        return flow
    return replace(flow, sigmas=(*flow.sigmas[:3], flow.sigmas[-1]), timesteps=flow.timesteps[:3])


def _to_uint8(video: Tensor) -> Tensor:
    unit = (video.float() * 0.5 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def _first(stages: list[Stage], budget: int, cpu: bool) -> Stage:
    ways = [stage for stage in stages if not (cpu and stage.way == "cpu")]
    return next((stage for stage in ways if stage.peak_bytes <= budget), ways[-1])


def _bytes(network: Any) -> int:
    seen = {id(one): one.nbytes for one in (*network.parameters(), *network.buffers())}
    return sum(seen.values())


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
