"""A prompt in, a video of any length out, while it is being made: `infer long`.

A causal student makes block after block on a key cache of constant size; each is decoded, on a GPU
beside the next one's denoising, and appended to an MP4 that can be played. Latents, cache and video
so far are on disk: the same command again goes on where a killed one stopped, to the same frames.
"""

# B batch  C channels  T latent frames  H W latent rows, columns

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm  # type: ignore[import-untyped]

from colibri.core import wan
from colibri.core.config import from_table, to_table
from colibri.core.errors import UserError
from colibri.core.geometry import VideoShape, swapped_size_hint
from colibri.core.shards import write_json_whole
from colibri.core.wan.family import Causal
from colibri.infer import models, tuning
from colibri.infer.blocks import BlockStore, Written
from colibri.infer.decode import Frames, Say, is_out_of_memory
from colibri.infer.denoise import encode_prompts
from colibri.infer.fragments import GrowingVideo, finished
from colibri.infer.image import Frame, hash_pixels, read_image, write_png
from colibri.infer.jobs import job_of
from colibri.infer.long_config import LongConfig, Store, Switch
from colibri.infer.models import Machine, Source
from colibri.infer.outputs import check_writable, is_done, outputs_of, sweep, writing
from colibri.infer.prompts_at import PromptAt, blocks_of, read_prompts_at
from colibri.infer.recap import recaption
from colibri.infer.recipe import Made, Recipe, metadata, read_video, to_json, with_image
from colibri.infer.stream import Beside, chained, decoded_blocks, decoder_reach, own_stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from colibri.core.wan.cache import KVCache

EMBEDDED = "embedded:tiny-long"
MOST_POSITIONS = 1024
"""Latent frames that Wan's rotary embedding counts, where a config does not say (diffusers'
`rope_max_seq_len`)."""

HELD, CACHE = "held", "cache."
"""Names in a saved state."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """How fast a run was, with decoding, compressing and writing to disk."""

    frames: int
    """Of this run: fewer than the video's where it went on from a killed one."""
    first_frame_s: float
    """From weights in memory to the first block on the disk."""
    from_start_s: float
    """From the beginning of the command to there."""
    frames_per_s: float
    """After that; of all where there was one block."""

    def text(self) -> str:
        """One line for people."""
        return (
            f"First frame after {self.first_frame_s:.2f} s ({self.from_start_s:.1f} s with "
            f"loading), then {self.frames_per_s:.2f} frames/s, decoding and writing included."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LongRendered:
    """One long video on disk."""

    video: Path
    recipe: Recipe
    made: Made
    speed: Speed | None
    """None where no block had to be made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockWritten:
    """What `watch` hears after each block: it can be played now."""

    growing: Path
    blocks: int
    """Of the video so far."""
    frames: int
    """Of the video so far."""
    cache_bytes: int
    """Of the key cache after the block."""


Watch = Callable[[BlockWritten], object]
"""Hears each `BlockWritten`, in the writing thread; what it raises stops the render."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One prompt of a long video, as its recipe keeps it."""

    at_s: float
    block: int
    """With which it begins, from 0."""
    prompt: str
    prompt_used: str
    recap: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """The table `long` of a recipe: what decides the frames of a video made in blocks."""

    causal: dict[str, Any]
    blocks: int
    store: Store
    """How the key cache keeps its numbers."""
    switch: Switch
    scenes: tuple[Scene, ...]

    @property
    def form(self) -> Causal:
        """Blocks, sink and window."""
        return from_table(Causal, self.causal, where="the recipe's causal form")

    def scene(self, block: int) -> Scene:
        """The prompt of a block."""
        return [scene for scene in self.scenes if scene.block <= block][-1]

    @classmethod
    def of(cls, recipe: Recipe) -> "Rollout":
        """That of a long video's recipe."""
        assert recipe.long is not None
        return from_table(cls, recipe.long, where="the recipe's table 'long'")


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """A block of latents, and what goes on from it."""

    index: int
    latents_BCTHW: "Tensor"
    cache: "KVCache"
    held_BCTHW: "Tensor"
    """The latents whose keys are in the cache, in order."""


# ---- the job ----


def make_long(
    config: LongConfig,
    *,
    say: Say = log.info,
    watch: Watch = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> LongRendered:
    """Make the video that `config` asks for, or go on with it; one that is there is left alone.

    UserError in one sentence for bad input, a model that is not causal, and where memory runs out.
    """
    begin = clock()
    source, machine, recipe, first = prepare(config, say=say)
    say(describe(recipe, machine))
    outputs = outputs_of(config.out, recipe)
    check_writable(outputs.video.parent)
    sweep(outputs)
    store = BlockStore(
        outputs.beside(".blocks"),
        fingerprint=recipe.fingerprint,
        codec=source.family.codec,
        vae_hash=recipe.model.vae,
    )
    growing = outputs.beside(".growing.mp4")
    if is_done(outputs, recipe):
        say(f"{outputs.video}  (there already)")
        growing.unlink(missing_ok=True)
        if store.folder.exists():  # killed while clearing up
            store.clear(keep_latents=config.keep_latents)
        recipe, made = read_video(outputs.video)
        return LongRendered(video=outputs.video, recipe=recipe, made=made, speed=None)
    with store.alone(), writing(outputs.video, hint="the same command again goes on from here"):
        store.sweep()
        if first is not None and recipe.image is not None:
            write_png(outputs.video.with_name(recipe.image), first)
        scenes = Rollout.of(recipe).scenes
        embeddings = encode_prompts(source, machine, [scene.prompt_used for scene in scenes])
        model = load_student(source, machine, recipe)
        written, speed = stream_to(
            *(growing, store, model, recipe, embeddings, first),
            save_every_s=config.save_every_s,
            keep_latents=config.keep_latents,
            watch=watch,
            clock=clock,
            begin=begin,
        )
        made = made_of(written.hash, machine)
        write_json_whole(outputs.recipe, to_json(recipe, made))
        finished(growing, outputs.video, metadata=metadata(recipe, made))  # marks it as done
        growing.unlink()
    store.clear(keep_latents=config.keep_latents)
    if speed is not None:
        say(speed.text())
    say(str(outputs.video))
    return LongRendered(video=outputs.video, recipe=recipe, made=made, speed=speed)


def plan(config: LongConfig, *, say: Say = log.info) -> str:
    """What `make_long` would do. Loads no weights, only hashes them, and writes no video."""
    source, machine, recipe, _ = prepare(config, say=say)
    rollout = Rollout.of(recipe)
    causal, family = rollout.form, source.family
    steps = recipe.flow.steps
    lines = [
        describe(recipe, machine),
        f"{rollout.blocks} blocks of {causal.block} latent frames (the first of "
        f"{causal.first_block}), {steps} + 1 model evaluations each; window "
        f"{causal.window or 'all'}, sink {causal.sink}",
        f"key cache {cache_bytes(family, recipe) / 1e9:.3f} GB"
        + (", the same for any length" if causal.window else ", growing with the length"),
    ]
    lines += [f"{scene.at_s:>8g} s  {scene.prompt_used}" for scene in rollout.scenes]
    weights = wan.measure(family, dtype=machine.dtype, vae_dtype=machine.vae_dtype)
    for part, need in weights.items():
        lines.append(f"{part:<14}{need.parameters:>16,} parameters{need.bytes / 1e9:>10.2f} GB")
    place = outputs_of(config.out, recipe).video
    return "\n".join([*lines, f"{place}{'  (there already)' if place.exists() else ''}"])


def remade(source: Source, machine: Machine, recipe: Recipe, first: Frame | None) -> Made:
    """Make a long video's frames again, one after the other, and write nothing: for replays."""
    scenes = Rollout.of(recipe).scenes
    embeddings = encode_prompts(source, machine, [scene.prompt_used for scene in scenes])
    model = load_student(source, machine, recipe)
    found = ""
    blocks = (one.latents_BCTHW for one in rolled(model, recipe, embeddings, first))
    chunk = Rollout.of(recipe).form.block
    for frames in decoded_blocks(model.vae, blocks, model.family, chunk=chunk):
        found = chained(found, frames)
    return made_of(found, machine)


# ---- what is to be made ----


def prepare(config: LongConfig, *, say: Say) -> tuple[Source, Machine, Recipe, Frame | None]:
    """Model, machine, recipe and first frame; every check that needs no weights."""
    source = models.find_model(config.model or EMBEDDED, config.revision)
    say(source.line())
    causal = causal_of(config, source)
    machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
    recipe, first = make_recipe(config, source, machine, causal, say=say)
    return source, machine, recipe, first


def causal_of(config: LongConfig, source: Source) -> Causal:
    """The model's causal form with what the flags change. UserError for a model that has none."""
    causal = source.family.causal
    if causal is None or source.schedule is None:
        lacks = "is not a causal student" if causal is None else "has no few-step schedule"
        raise UserError(
            f"--model {source.asked} ({source.family.name}) {lacks}, it cannot make a video in "
            "blocks",
            hint="use infer t2v, or a model that distill trained to be causal",
        )
    if config.window is not None:
        causal = replace(causal, window=config.window)
    return causal if config.sink is None else replace(causal, sink=config.sink)


def make_recipe(
    config: LongConfig, source: Source, machine: Machine, causal: Causal, *, say: Say
) -> tuple[Recipe, Frame | None]:
    """The recipe and the first frame. UserError in one sentence for bad input."""
    default, family = source.family.defaults, source.family
    fps = default.fps if config.fps is None else config.fps
    for flag, value in (("--seconds", config.seconds), ("--fps", fps)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{flag} {value} is not a positive number")
    if not config.save_every_s >= 0:
        raise UserError(f"--save-every-s {config.save_every_s} is not a number from 0 up")
    video, blocks = _length(config, source, causal, fps)
    if hint := swapped_size_hint(video.height, video.width, family.sizes):
        say(hint)
    first = None
    if config.image is not None:
        if causal.first_block != 1:
            raise UserError(
                f"--model {source.asked} begins with a block of {causal.first_block} latent "
                "frames, an image is one",
                hint="leave --image out",
            )
        first, remark = read_image(config.image, video.height, video.width)
        if remark:
            say(remark)
    if default.guidance != 1:
        say(f"The folder asks for guidance {default.guidance:g}; blocks are made without.")
    scenes = _scenes(config, source, machine, causal, fps, blocks, say=say)
    rollout = Rollout(
        causal=to_table(causal),
        blocks=blocks,
        store=config.cache,
        switch=config.switch,
        scenes=scenes,
    )
    assert source.schedule is not None
    recipe = Recipe(
        prompt=scenes[0].prompt,
        prompt_used=scenes[0].prompt_used,
        recap=scenes[0].recap,
        negative_prompt="",
        seed=config.seed,
        width=video.width,
        height=video.height,
        frames=video.frames,
        fps=fps,
        sampler="consistency",
        guidance=1.0,
        schedule=source.schedule.to_json(),
        dtype=machine.dtype,
        vae_dtype=machine.vae_dtype,
        image=None,
        image_sha256=None if first is None else hash_pixels(first),
        loras=tuning.read_loras(config.lora),
        attention=tuning.choose_attention(config.attention, machine),
        compile=False,
        model=source.use,
        long=to_table(rollout),
    )
    return with_image(recipe), first


def describe(recipe: Recipe, machine: Machine) -> str:
    """What will be made, in one line."""
    rollout = Rollout.of(recipe)
    scenes = "1 prompt" if len(rollout.scenes) == 1 else f"{len(rollout.scenes)} prompts"
    return (
        f"1 video, {recipe.width}x{recipe.height}, {recipe.frames} frames "
        f"({recipe.frames / recipe.fps:.2f} s) at {recipe.fps}/s in {rollout.blocks} blocks; "
        f"{scenes}, {recipe.flow.steps} steps a block; {machine.device}, {recipe.dtype}."
    )


def cache_bytes(family: wan.ModelFamily, recipe: Recipe) -> int:
    """Memory of the key cache once it is full."""
    rollout, config = Rollout.of(recipe), family.transformer
    causal = rollout.form
    latents = family.latent_shape(recipe.video)
    kept = latents.frames
    if causal.window is not None:
        kept = min(kept, causal.sink + causal.window - causal.block)
    tokens = replace(latents, frames=kept).tokens(family.patch)
    heads, width = config["num_attention_heads"], config["attention_head_dim"]
    number = 1 if rollout.store != "same" else 4 if recipe.dtype == "float32" else 2
    a_head = width * number + (4 if rollout.store != "same" else 0)
    return int(2 * config["num_layers"] * tokens * heads * a_head)


# ---- the work ----


def load_student(source: Source, machine: Machine, recipe: Recipe) -> wan.WanModel:
    """Transformer and VAE, with the LoRA files and attention of `recipe`."""
    model = models.load(source, machine, "transformer", "vae")
    tuning.add_loras(model.transformer, recipe.loras)
    tuning.set_attention(model.transformer, recipe.attention)
    return model


def stream_to(
    growing: Path,
    store: BlockStore,
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "Mapping[str, Tensor]",
    first: Frame | None,
    *,
    save_every_s: float = 60.0,
    keep_latents: bool = False,
    beside: bool | None = None,
    watch: Watch = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
    begin: float | None = None,
) -> tuple[Written, Speed | None]:
    """Roll `recipe` out into a growing MP4, from where `store` says that an earlier run stopped.

    `embeddings` (1, tokens, width) are by prompt. `beside` decodes and writes in a thread of its
    own while denoising goes on; None: as `overlaps` says. `begin` is the clock when the command
    began. The speed is None where nothing was left to do. UserError where memory runs out, and for
    a damaged or foreign store.
    """
    start = clock()
    found = _Found.of(store, recipe, model)
    video = GrowingVideo(growing, fps=recipe.fps, metadata=metadata(recipe))
    video.cut(found.written.bytes)
    writer = _Writer(video, store, model, recipe, found, watch=watch, clock=clock)
    bar = tqdm(
        total=recipe.frames, initial=found.written.frames, desc="video", unit="frame", disable=None
    )

    def pieces() -> "Iterator[Piece]":
        """Blocks that are not in the video yet, each on disk before it is decoded."""
        for index in range(found.written.blocks, found.cached):
            yield Piece(index=index, latents_BCTHW=store.read_block(index))
        rolling = rolled(
            *(model, recipe, embeddings, first),
            cached=found.cached,
            state=found.state,
            given=map(store.read_block, range(found.cached, found.made)),
        )
        saved, saved_at = found.cached, start
        for one in rolling:
            piece = Piece(
                index=one.index,
                latents_BCTHW=one.latents_BCTHW.cpu(),
                cache_bytes=one.cache.nbytes,
            )
            if piece.index >= found.made:
                store.write_block(piece.index, piece.latents_BCTHW)
            if piece.index >= found.written.blocks:
                yield piece
            if clock() - saved_at >= save_every_s:
                store.write_cache(piece.index + 1, state_of(one))
                saved, saved_at = piece.index + 1, clock()
            if not keep_latents:
                store.forget(min(saved, writer.needs()))
            bar.update(writer.written.frames - bar.n)

    try:
        with bar:
            if overlaps(model.vae.device) if beside is None else beside:
                with Beside(writer.work) as other:
                    for piece in pieces():
                        other.hand(piece)
            else:
                writer.work(pieces())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"memory ran out after {writer.written.blocks} blocks, which are kept",
            hint="use a smaller --size or --window, --cache int8, or --dtype bfloat16",
        ) from None
    assert writer.written.frames == recipe.frames
    return writer.written, writer.speed(start, start if begin is None else begin)


def overlaps(device: "torch.device") -> bool:
    """Whether decoding beside denoising gains time: not where both want the same cores."""
    return device.type != "cpu"


def rolled(
    model: wan.WanModel,
    recipe: Recipe,
    embeddings: "Mapping[str, Tensor]",
    first: Frame | None,
    *,
    cached: int = 0,
    state: "Mapping[str, Tensor] | None" = None,
    given: "Iterable[Tensor]" = (),
) -> "Iterator[Rolled]":
    """The blocks of `recipe` in order, in constant memory where the model has a window.

    `embeddings` (1, tokens, width) are by prompt. `state` is `state_of` block `cached` - 1, after
    which it goes on; `given` are latents of the blocks from there that were made before: they are
    only taken into the key cache.
    """
    import torch

    from colibri.core.wan.attention import Prompt
    from colibri.core.wan.cache import KVCache
    from colibri.core.wan.causal import extend, recached
    from colibri.core.wan.decoder import encode_video, to_pixels
    from colibri.core.wan.rollout import block_rollout, seeded_noise

    rollout, network = Rollout.of(recipe), model.transformer
    causal, device = rollout.form, network.device
    cache = KVCache(causal=causal, store=rollout.store)
    held = None
    if state:
        held = state[HELD]
        named = {name.removeprefix(CACHE): one for name, one in state.items() if name != HELD}
        cache = cache.restored(named)
    text, known = None, iter(given)
    for index in range(cached, rollout.blocks):
        scene = rollout.scene(index)
        if text is None or scene.block == index:
            text = Prompt.of(network, embeddings[scene.prompt_used].to(device))
            if scene.block == index and held is not None and rollout.switch == "recache":
                with torch.no_grad():
                    cache = recached(network, held, text, cache)
        latents = next(known, None)
        if latents is not None:
            latents = latents.to(device)
            with torch.no_grad():
                _, cache = extend(network, latents, text, cache)
        else:
            image = None
            if first is not None and index == 0:
                image = encode_video(model.vae, to_pixels(first[None])).to(device)
            (block,) = block_rollout(
                network,
                text,
                shape=model.family.latent_shape(recipe.video),
                causal=causal,
                schedule=recipe.flow,
                noise=seeded_noise([recipe.seed], device=device),
                blocks=1,
                first_BCTHW=image,
                cache=cache,
            )
            latents, cache = block.latents_BCTHW, block.cache
        joined = latents if held is None else torch.cat([held, latents], dim=2)
        latest = cache.held - min(causal.sink, cache.held)
        held = torch.cat(
            [joined[:, :, : cache.held - latest], joined[:, :, joined.shape[2] - latest :]], dim=2
        )
        yield Rolled(index=index, latents_BCTHW=latents, cache=cache, held_BCTHW=held)


def state_of(one: Rolled) -> "dict[str, Tensor]":
    """What a rollout goes on from after a block, as tensors by name."""
    return {HELD: one.held_BCTHW} | {
        f"{CACHE}{name}": tensor for name, tensor in one.cache.state().items()
    }


def warm_start(causal: Causal, block: int, reach: int) -> int:
    """The block to decode from, so that the frames of `block` come out as in one stream.

    `reach` is `stream.decoder_reach`.
    """
    if block == 0:
        return 0
    latents = causal.first_block + (block - 1) * causal.block - reach
    return 0 if latents < causal.first_block else (latents - causal.first_block) // causal.block + 1


def made_of(frames_hash: str, machine: Machine) -> Made:
    """How frames were made, here and now; `frames_hash` by `stream.chained`."""
    import torch

    return Made(
        frames_sha256=frames_hash,
        decode="stream",
        device=models.device_name(machine.device),
        threads=torch.get_num_threads(),
        versions=models.versions(),
    )


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A block of latents on its way to the video."""

    index: int
    latents_BCTHW: "Tensor"
    """On the CPU."""
    cache_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class _Found:
    """How far an earlier run came."""

    written: Written
    cached: int
    """Blocks in the saved key cache."""
    state: "dict[str, Tensor]"
    made: int
    """Blocks whose latents are there, or were."""

    @classmethod
    def of(cls, store: BlockStore, recipe: Recipe, model: wan.WanModel) -> "_Found":
        """UserError where latents that are needed are missing."""
        written = store.written()
        cached, state = store.read_cache(str(model.transformer.device))
        there = store.blocks()
        made = max(written.blocks, cached, *(index + 1 for index in there[-1:]))
        form = Rollout.of(recipe).form
        needed = min(cached, warm_start(form, written.blocks, decoder_reach(model.vae)))
        if missing := sorted(set(range(needed, made)) - set(there)):
            raise UserError(
                f"{store.folder} lacks the latents of block {missing[0]}",
                hint="remove the folder to begin again",
            )
        return cls(written=written, cached=cached, state=state, made=made)


class _Writer:
    """The part beside the denoising: decode, compress, append, and say that it is there."""

    def __init__(
        self,
        video: GrowingVideo,
        store: BlockStore,
        model: wan.WanModel,
        recipe: Recipe,
        found: _Found,
        *,
        watch: Watch,
        clock: Callable[[], float],
    ) -> None:
        self.written = self._before = found.written
        self._video, self._store, self._model, self._recipe = video, store, model, recipe
        self._watch, self._clock = watch, clock
        self._causal = Rollout.of(recipe).form
        self._reach = decoder_reach(model.vae)
        self._first = self._last = (0.0, 0)
        self._cache_bytes = 0

    def needs(self) -> int:
        """The first block whose latents a run after a kill would decode again."""
        return warm_start(self._causal, self.written.blocks, self._reach)

    def work(self, pieces: "Iterator[Piece]") -> None:
        """Append the frames of every piece; those of earlier blocks are decoded only."""
        start = self.needs()
        done = self.written.blocks

        def latents() -> "Iterator[Tensor]":
            yield from map(self._store.read_block, range(start, done))
            for piece in pieces:
                self._cache_bytes = piece.cache_bytes
                yield piece.latents_BCTHW

        with own_stream(str(self._model.vae.device)):
            stream = decoded_blocks(
                self._model.vae, latents(), self._model.family, chunk=self._causal.block
            )
            for index, frames in enumerate(stream, start=start):
                if index >= done:
                    self._append(index, frames)

    def speed(self, start: float, begin: float) -> Speed | None:
        """Of this run; None where it wrote nothing."""
        (first_s, first_frames), (last_s, last_frames) = self._first, self._last
        if last_frames == 0:
            return None
        frames, seconds = last_frames - first_frames, last_s - first_s
        if not frames:
            frames, seconds = last_frames - self._before.frames, last_s - start
        return Speed(
            frames=last_frames - self._before.frames,
            first_frame_s=first_s - start,
            from_start_s=first_s - begin,
            frames_per_s=frames / max(seconds, 1e-9),
        )

    def _append(self, index: int, frames: Frames) -> None:
        size = self._video.append(frames, index=index, start=self.written.frames)
        self.written = Written(
            blocks=index + 1,
            frames=self.written.frames + len(frames),
            bytes=size,
            hash=chained(self.written.hash, frames),
        )
        self._store.commit(self.written)
        self._last = (self._clock(), self.written.frames)
        self._first = self._first if self._first[1] else self._last
        self._watch(
            BlockWritten(
                growing=self._video.path,
                blocks=self.written.blocks,
                frames=self.written.frames,
                cache_bytes=self._cache_bytes,
            )
        )


def _length(config: LongConfig, source: Source, causal: Causal, fps: int) -> tuple[VideoShape, int]:
    """The video's shape, whole blocks of at least the wanted length, and how many blocks."""
    family, default = source.family, source.family.defaults
    wanted = max(1, math.ceil(config.seconds * fps - 1e-6))
    latents = math.ceil((wanted - 1) / family.codec.time) + 1
    blocks = 1 + max(0, math.ceil((latents - causal.first_block) / causal.block))
    total = causal.first_block + (blocks - 1) * causal.block
    longest = int(family.transformer.get("rope_max_seq_len", MOST_POSITIONS))
    seen = total if causal.window is None else min(total, causal.sink + causal.window)
    if seen > longest:
        raise UserError(
            f"a block would see {seen} latent frames, the model has positions for {longest}",
            hint="use fewer --seconds or --window N"
            if causal.window is None
            else "use a smaller --window or --sink",
        )
    height, width = config.size or (default.height, default.width)
    video = VideoShape(frames=(total - 1) * family.codec.time + 1, height=height, width=width)
    family.latent_shape(video)
    return video, blocks


def _scenes(
    config: LongConfig,
    source: Source,
    machine: Machine,
    causal: Causal,
    fps: int,
    blocks: int,
    *,
    say: Say,
) -> tuple[Scene, ...]:
    if (config.prompt is None) == (config.prompts_at is None):
        raise UserError("one of --prompt and --prompts-at is needed")
    if config.prompts_at is not None:
        prompts = read_prompts_at(config.prompts_at)
    else:
        prompts = (PromptAt(at_s=0.0, prompt=config.prompt or "", where="--prompt"),)
    places = blocks_of(
        prompts, causal=causal, codec_time=source.family.codec.time, fps=fps, blocks=blocks
    )
    jobs = [job_of(one.prompt, config.seed, where=one.where) for one in prompts]
    told = recaption(config.recap, source, jobs, machine, asked_model=config.recap_model, say=say)
    return tuple(
        Scene(at_s=at.at_s, block=place, prompt=job.prompt, prompt_used=to.text, recap=to.by)
        for at, place, job, to in zip(prompts, places, jobs, told, strict=True)
    )
