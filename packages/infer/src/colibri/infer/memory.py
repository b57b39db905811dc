"""What lives where, before anything loads: one plan from a budget, by running the shapes alone.

Each stage (text, denoise, decode) has ways in order of preference; the first whose predicted peak
fits is taken. The same order is gone down when memory runs out after all.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.decoder import encode_video
from colibri.core.wan.dryrun import peak_bytes
from colibri.core.wan.family import ModelFamily
from colibri.core.wan.rollout import whole_clip
from colibri.core.wan.rows import set_frame_rows
from colibri.infer import device_profile, quantized
from colibri.infer.decode import STEPS_DOWN, Say, video_parts, ways_down
from colibri.infer.light import Light, planned
from colibri.infer.models import Machine, Source
from colibri.infer.quantized import SCHEMES, About
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
    """One row of modulation a latent frame instead of one a token."""
    vae_waits: bool = False
    """The VAE is on the host while the transformer works, and the other way round."""

    def text(self, *, cpu: bool = False) -> str:
        """For people."""
        words = []
        if not cpu:
            words.append(
                "transformer on the device"
                if self.place == "device"
                else "transformer block by block from the host"
            )
            words.append("VAE on the host meanwhile" if self.vae_waits else "VAE stays beside it")
        if self.ffn_chunks > 1:
            words.append(f"feed-forward in {self.ffn_chunks} parts")
        if self.lean:
            words.append("one modulation row a frame")
        return ", ".join(words) or "whole"


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
        head = f"Memory plan for {_size(self.budget_bytes)} of tensors ({self.precision}):"
        rows = [head, f"  {'stage':<9}{'weights':>10}{'working':>11}{'peak':>11}  how"]
        said = _TEXTS | _DECODES
        for stage in self.stages:
            much = (stage.weights_bytes, stage.working_bytes, stage.peak_bytes)
            over = "" if stage.peak_bytes <= self.budget_bytes else "  OVER THE BUDGET"
            rows.append(
                f"  {stage.name:<8}"
                + "".join(f"{_size(one):>11}" for one in much)
                + f"  {said.get(stage.way, stage.way)}{over}"
            )
        rows.append(
            f"  host: {_size(self.host_bytes)} of weights and frames at most, and about "
            f"{_size(PROCESS_BYTES)} for the process"
        )
        if self.way.place == "stream" and not any(one in self.precision for one in SCHEMES):
            rows.append("  infer quantize would halve the weights, or more")
        if self.decode in ("tiles", "cpu") and self.precision.endswith("VAE float32"):
            rows.append("  --vae-dtype bfloat16 would nearly halve what decoding takes")
        return "\n".join(rows)


CPU_WAYS = (Way(), Way(ffn_chunks=8), Way(ffn_chunks=8, lean=True))
"""Where the device is the host, nothing is gained by moving weights."""


def ways_for(device: str) -> tuple[Way, ...]:
    """Of placing the transformer, in order of preference."""
    return CPU_WAYS if device.startswith("cpu") else WAYS


def plan_for(
    asked: str | None,
    source: Source,
    recipe: Recipe,
    machine: Machine,
    *,
    say: Say = lambda _: None,
) -> Machine:
    """`machine` with a plan for `recipe`, which is said; without one where no budget is asked or
    known.

    `asked` is a number of GiB, `auto`, or None: auto on a GPU. UserError for anything else.
    """
    budget = budget_bytes(asked, machine.device)
    if budget is None:
        return machine
    plan = make_plan(source, recipe, machine, budget)
    say(plan.lines())
    return replace(machine, plan=plan)


def budget_bytes(asked: str | None, device: str) -> int | None:
    """What tensors may take on `device`, None where nothing is asked and it cannot be known."""
    gpu = not device.startswith("cpu")
    if asked is None or asked.strip().lower() == "auto":
        if device.startswith("cuda") and (free := _free_cuda_bytes(device)) is not None:
            return int(free * FRAGMENTED) - GPU_RESERVE_BYTES // 2  # its context is there already
        found = None if gpu or asked is None else available_host_bytes()
        if asked is not None and found is None:
            raise UserError(
                f"--vram auto: how much memory is free on {device} is not known here",
                hint="give a number of GB, such as 8",
            )
        return found
    try:
        size = float(asked)
    except ValueError:
        size = 0.0
    if not 0 < size < 10_000:
        raise UserError(f"--vram {asked} is not a number of GB", hint="such as 16, 8, or auto")
    whole = int(size * GIB)
    if gpu and whole <= 2 * GPU_RESERVE_BYTES:
        raise UserError(
            f"--vram {asked} leaves too little beside what a GPU takes for itself",
            hint="use 2 or more",
        )
    return int(whole * FRAGMENTED) - GPU_RESERVE_BYTES if gpu else whole


def _free_cuda_bytes(device: str) -> int | None:
    """Free memory of a GPU, None where it is not there."""
    try:
        return int(torch.cuda.mem_get_info(device)[0])
    except (RuntimeError, AssertionError):
        return None


def available_host_bytes() -> int | None:
    """Free memory of the host, from Linux; None elsewhere."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None


def make_plan(
    source: Source,
    recipe: Recipe,
    machine: Machine,
    budget: int,
    *,
    about: Mapping[str, About] | None = None,
) -> MemoryPlan:
    """The first way of each stage that is predicted to fit `budget` bytes, else its last.

    `about` describes quantised parts that are not on disk.
    """
    cpu = machine.device.startswith("cpu")
    shapes = Shapes(source, recipe, machine, about)
    text = _first(map(shapes.text, TEXT_WAYS[:1] if cpu else TEXT_WAYS), budget)
    transformer = shapes.weights("transformer")
    decodes = ways_down(shapes.decoder, machine.device)
    decode = _first((shapes.decode(way, beside=transformer * cpu) for way in decodes), budget)

    def fits(way: Way, stage: Stage) -> bool:
        """Beside a transformer that stays, decoding has to fit too."""
        stays = not cpu and not way.vae_waits
        return max(stage.peak_bytes, stays * (decode.peak_bytes + transformer)) <= budget

    for way in ways_for(machine.device):
        denoise = shapes.denoise(way)
        if fits(way, denoise):
            break
    if not cpu and not way.vae_waits:
        decode = replace(decode, weights_bytes=decode.weights_bytes + transformer)
    return MemoryPlan(
        budget_bytes=budget,
        text=text.way,
        way=way,
        decode=decode.way,
        stages=(text, denoise, decode),
        host_bytes=shapes.host(way),
        precision=f"{shapes.scheme}{machine.dtype}, VAE {machine.vae_dtype}",
    )


class Shapes:
    """One model, one video: the bytes of each stage in each way. Loads no weights."""

    def __init__(
        self,
        source: Source,
        recipe: Recipe,
        machine: Machine,
        about: Mapping[str, About] | None = None,
    ) -> None:
        self._recipe, self._machine = recipe, machine
        self._family: ModelFamily = source.family
        self._shape = source.family.latent_shape(recipe.video)
        self._about = quantized.about_of(source.folder) if about is None else about

    @property
    def scheme(self) -> str:
        """For people: `int8, ` or nothing."""
        return "".join(f"{one}, " for one in sorted({one.scheme for one in self._about.values()}))

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
        weights = weights_bytes(encoder)
        if way == "stream":
            _, largest = streamed_bytes(encoder.encoder.block)
            inside = sum(weights_bytes(block) for block in encoder.encoder.block)
            weights += 2 * largest - inside
        with _two_blocks(encoder.encoder, "block"):
            working = self._peak(run)
        return Stage(name="text", way=way, weights_bytes=weights, working_bytes=working)

    def denoise(self, way: Way) -> Stage:
        """All sampling steps, and before them the encoding of a first frame."""
        transformer, vae = self._network("transformer"), self._network("vae")
        recipe, shape = self._recipe, self._shape
        weights = weights_bytes(transformer)
        blocks = transformer.blocks
        if way.place == "stream":
            _, largest = streamed_bytes(blocks)
            weights += 2 * largest - sum(weights_bytes(block) for block in blocks)
        if not way.vae_waits:
            weights += weights_bytes(self.decoder)
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
                schedule=few_steps(recipe.flow),
                generator=torch.Generator().manual_seed(0),
                sampler=recipe.sampler,
                guidance=recipe.guidance,
                negative_BLD=None if recipe.guidance == 1 else words.clone(),
                first_BCTHW=torch.empty(first, device="meta") if recipe.image_sha256 else None,
                per_token=self._family.expand_timesteps,
            )

        with _two_blocks(transformer) as some:
            for block in some:
                chunk_ffn(block, way.ffn_chunks)
            set_frame_rows(transformer, way.lean)
            working = self._peak(run)
            set_frame_rows(transformer, False)
        if recipe.image_sha256:
            pixels = torch.empty((1, 3, 1, recipe.height, recipe.width), device="meta")
            encoding = self._peak(lambda: encode_video(vae, pixels))
            if self.decoder is not vae:
                encoding += weights_bytes(vae)  # it comes for the first frame alone
            alone = weights_bytes(self.decoder) - weights  # without the transformer
            beside = alone if way.vae_waits else 0
            working = max(working, encoding + beside)
        return Stage(
            name="denoise",
            way=way.text(cpu=self._machine.device.startswith("cpu")),
            weights_bytes=weights,
            working_bytes=working,
        )

    def decode(self, way: str, *, beside: int = 0) -> Stage:
        """Latents to frames; `beside` are weights that stay beside the VAE's."""
        vae, shape = self.decoder, self._shape
        size = (1, shape.channels, shape.frames, shape.height, shape.width)

        def run() -> None:
            raw = torch.empty(size, dtype=torch.float32, device="meta")
            for video in video_parts(vae, raw, way):
                _to_uint8(video)

        if way == "cpu":
            return Stage(name="decode", way=way, weights_bytes=0, working_bytes=0)
        working = self._peak(run, None if isinstance(vae, Light) else vae)
        return Stage(
            name="decode", way=way, weights_bytes=weights_bytes(vae) + beside, working_bytes=working
        )

    @functools.cached_property
    def decoder(self) -> Any:
        """What decodes: the VAE, or the light decoder of the recipe."""
        use = self._recipe.decoder
        return planned(self._family, self._machine, use) if use else self._network("vae")

    def weights(self, part: str) -> int:
        """Bytes of a part as it is loaded."""
        return weights_bytes(self._network(part))

    def host(self, way: Way) -> int:
        """Most that the host holds of weights and frames at any moment, loading among them."""
        cpu = self._machine.device.startswith("cpu")
        encoder, transformer = map(self.weights, ("text_encoder", "transformer"))
        video, vae = self._recipe, weights_bytes(self.decoder)
        if video.decoder and video.image_sha256:
            vae += self.weights("vae")
        frames = video.frames * video.height * video.width * 3
        stays = cpu or way.vae_waits
        # Every part is read onto the host first; without a wait one goes before the next comes.
        denoising = transformer + vae if stays else max(transformer, vae)
        decoding = frames + transformer * stays + vae * cpu
        return max(encoder, denoising, decoding)

    def _peak(self, run: Callable[[], object], vae: Any = None) -> int:
        return peak_bytes(run, self._machine.device, vae=vae)

    @functools.cache  # noqa: B019 (it lives as long as one plan)
    def _network(self, part: str) -> Any:
        machine = self._machine
        if part == "vae":
            vae = wan.build_meta(self._family, "vae").eval()
            device_profile.set_convolutions(vae, device_profile.convolution_of(machine.device))
            return torch.nn.Module.to(vae, getattr(torch, machine.vae_dtype))
        network = quantized.build(self._family, part, machine.dtype, self._about.get(part))
        network = network.to("meta")
        if part == "text_encoder":
            network.tie_weights()  # its embedding is there once
        return network


_DECODES = {
    "whole": "whole",
    "chunks": "one latent frame at a time",
    "tiles": "in tiles, which may show slightly near their seams",
    "cpu": "on the CPU",
}
assert tuple(_DECODES) == STEPS_DOWN
_TEXTS = {"device": "whole", "stream": "block by block from the host", "cpu": "on the CPU"}
assert tuple(_TEXTS) == TEXT_WAYS


@contextlib.contextmanager
def _two_blocks(network: Any, name: str = "blocks") -> Iterator[Any]:
    """Two blocks stand for all: none holds anything of another.

    The first, which may be packed otherwise than the one from the middle.
    """
    blocks = getattr(network, name)
    setattr(network, name, torch.nn.ModuleList([blocks[0], blocks[len(blocks) // 2]]))
    try:
        yield getattr(network, name)
    finally:
        setattr(network, name, blocks)


def few_steps(flow: FlowSchedule) -> FlowSchedule:
    """Its first steps, which hold as much as all: from the third on nothing new is held."""
    if flow.steps <= 3:
        return flow
    return replace(flow, sigmas=(*flow.sigmas[:3], flow.sigmas[-1]), timesteps=flow.timesteps[:3])


def _to_uint8(video: Tensor) -> Tensor:
    unit = (video.float() * 0.5 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def _first(stages: Iterable[Stage], budget: int) -> Stage:
    """The first that fits, else the last; no later one is computed."""
    for stage in stages:
        if stage.peak_bytes <= budget:
            break
    return stage


def weights_bytes(network: Any) -> int:
    """Of all parameters and buffers, shared ones once."""
    seen = {id(one): one.nbytes for one in (*network.parameters(), *network.buffers())}
    return sum(seen.values())


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB // 10 else f"{count / (1 << 20):.1f} MiB"
