"""`vae encode`: a frozen Wan VAE's latents of clips, kept on disk so that training need not encode.

Every clip gives `cuts` random cuts. Which ones follows from the seed and the clip's id; which shard
each belongs to from the clips that the folder notes. A shard is written whole or not at all and
says of every cut what it was cut from. A run that was killed goes on with the shards that are
missing; clips that came since get shards of their own. Pixels are not kept: training reads them
again and checks them against the hash noted here.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from colibri.core.config import to_table
from colibri.core.errors import RowError, UserError
from colibri.core.geometry import Codec, LatentShape, VideoShape
from colibri.core.hashing import hash_file, hash_text
from colibri.core.latents import KEY, check_safetensors, read_latents, write_latents
from colibri.core.progress import Progress
from colibri.core.shards import chunked, write_json_whole
from colibri.core.wan.decoder import LatentStats, hash_vae_folder, to_pixels
from colibri.core.wan.family import codec_of
from colibri.vae.clips import DRAWS, Cut, Frames, Source, open_source, read_cut, usual_crop
from colibri.vae.config import EncodeConfig
from colibri.vae.load import EMBEDDED, load_teacher, read_config, teacher_folder
from colibri.vae.losses import posterior_kl

WORLD_CLIPS = 2000
"""Clips of the rendered small world, which has no end, where no count is given."""

SETTINGS, MANIFEST = "encode.json", "manifest.json"
ROUNDS = "rounds"
"""In the settings: ids of the clips of the first run, then of those that later runs added."""

FREE = ("out", "teacher", "data_root", "device", "batch", "plan")
"""Settings that do not change what a shard holds, up to rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """What a run left: `cuts` = `kept` + `refused`."""

    folder: Path
    shards: int
    cuts: int
    kept: int
    refused: int


def encode(config: EncodeConfig, *, after_shard: Callable[[int], None] | None = None) -> Encoded:
    """Write the shards that are missing in `config.out`, then its manifest.

    `after_shard` is called with a shard's number once it is on disk. UserError for a folder with
    other settings, clips that are gone or another VAE's latents, and where no cut can be used.
    """
    source = open_source(config.clips, config.data_root, "train")
    folder = teacher_folder(config.teacher or EMBEDDED)
    vae_hash = hash_vae_folder(folder)
    accelerator = Accelerator(cpu=config.device == "cpu")
    teacher = load_teacher(folder)
    crop = height, width = config.crop or usual_crop(config.clips)
    LatentShape.of(
        VideoShape(frames=config.frames, height=height, width=width), codec_of(teacher.config)
    )
    if accelerator.is_main_process:
        _claim(config, crop, source, vae_hash)
    accelerator.wait_for_everyone()
    shards = _shards(config)
    progress = Progress("encode", sum(map(len, shards)), log=None)
    writer: _Writer | None = None
    for index, part in enumerate(shards):
        path = config.out / shard_name(index)
        if index % accelerator.num_processes != accelerator.process_index:
            continue
        if _is_whole(path, part):
            progress.add(len(part))
            continue
        writer = writer or _Writer(config, crop, source, teacher.to(accelerator.device), vae_hash)
        refused = writer.write(path, part)
        progress.add(len(part), refused=refused)
        if after_shard:
            after_shard(index)
    progress.close()
    accelerator.wait_for_everyone()
    return _finish(config, len(shards), write=accelerator.is_main_process)


def plan(config: EncodeConfig) -> str:
    """What a run would write, in words."""
    source = open_source(config.clips, config.data_root, "train")
    cuts = _clips(config, source) * config.cuts
    folder = teacher_folder(config.teacher or EMBEDDED)
    codec = codec_of(read_config(folder))
    height, width = config.crop or usual_crop(config.clips)
    shape = LatentShape.of(VideoShape(frames=config.frames, height=height, width=width), codec)
    values = shape.channels * shape.frames * shape.height * shape.width
    size = values * cuts * torch.finfo(getattr(torch, config.dtype)).bits // 8
    return "\n".join(
        [
            f"clips       {_clips(config, source):,}, {config.cuts} cuts of each",
            f"latents     {shape.channels}x{shape.frames}x{shape.height}x{shape.width} a cut, "
            f"{config.dtype}",
            f"files       {-(-cuts // config.shard):,} shards, {size / 1e9:.3f} GB",
        ]
    )


def shard_name(index: int) -> str:
    """File of a shard below the folder."""
    return f"shards/{index:06d}.safetensors"


class _Writer:
    """Cuts, encodes and writes one shard after another."""

    def __init__(
        self,
        config: EncodeConfig,
        crop: tuple[int, int],
        source: Source,
        vae: Any,
        vae_hash: str,
    ) -> None:
        self.config, self.crop, self.source = config, crop, source
        self.vae, self.vae_hash = vae, vae_hash
        self.stats, self.codec = LatentStats.of(vae.config), codec_of(vae.config)

    def write(self, path: Path, part: list[tuple[str, int]]) -> int:
        """One shard; how many of its cuts were refused."""
        latents: dict[str, Tensor] = {}
        cuts: dict[str, dict[str, Any]] = {}
        refused: list[dict[str, str]] = []
        for group in chunked(self._read(part), self.config.batch):
            good = []
            for cut, found in group:
                if isinstance(found, RowError):
                    why = {"reason": found.reason, "error": found.message}
                    refused.append({"clip": cut.clip, "name": self._name(cut)} | why)
                else:
                    good.append((cut, found))
            for (cut, frames), (z, kl) in zip(good, self._encode(good), strict=True):
                pixels = pixel_hash(frames)
                key = hash_text("cut", json.dumps(asdict(cut), sort_keys=True), pixels)
                latents[key] = z
                cuts[key] = asdict(cut) | {"name": self._name(cut), "pixels": pixels, "kl": kl}
        write_latents(
            path,
            latents,
            codec=self.codec,
            vae_hash=self.vae_hash,
            recipe={"cuts": cuts, "refused": refused},
        )
        return len(refused)

    def _name(self, cut: Cut) -> str:
        index = self.source.find(cut.clip)
        assert index is not None, cut.clip
        return self.source.name(index)

    def _read(self, part: list[tuple[str, int]]) -> Iterator[tuple[Cut, Frames | RowError]]:
        config = self.config

        def read(cut: Cut) -> Frames | RowError:
            try:
                return read_cut(self.source, cut, config.frames, self.crop)
            except RowError as error:
                return error

        cuts = [self._cut(clip, turn) for clip, turn in part]
        with ThreadPoolExecutor(max_workers=4) as pool:
            for group in chunked(cuts, max(config.batch, 4)):  # so much is in memory at once
                yield from zip(group, pool.map(read, group), strict=True)

    def _cut(self, clip: str, turn: int) -> Cut:
        key = int(hash_text("cut", clip), 16)
        return Cut.random(clip, np.random.default_rng([self.config.seed, key, turn]))

    @torch.no_grad()
    def _encode(self, cuts: list[tuple[Cut, Frames]]) -> list[tuple[Tensor, float]]:
        """Normalised latents (C, T, H, W) of each, and its posterior's KL divergence."""
        if not cuts:
            return []
        clip = torch.cat([to_pixels(frames) for _, frames in cuts])
        posterior = self.vae.encode(clip.to(self.vae.device, self.vae.dtype)).latent_dist
        normal = self.stats.normalise(posterior.mode().float())
        normal = normal.to(getattr(torch, self.config.dtype)).cpu()
        return [
            (normal[index].clone(), float(posterior_kl(mean, logvar)))
            for index, (mean, logvar) in enumerate(
                zip(posterior.mean, posterior.logvar, strict=True)
            )
        ]


def pixel_hash(frames: Frames) -> str:
    """SHA-256 of a cut's pixels."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()


def _clips(config: EncodeConfig, source: Source) -> int:
    wanted = config.count or (WORLD_CLIPS if config.clips is None else len(source))
    return min(wanted, len(source))


def _claim(config: EncodeConfig, crop: tuple[int, int], source: Source, vae_hash: str) -> None:
    """Note settings and clips in `out`, or check that a run there has the same settings and its
    clips are still there, and note those that came since."""
    path = config.out / SETTINGS
    table = {key: value for key, value in to_table(config).items() if key not in FREE}
    table |= {"crop": list(crop), "vae_hash": vae_hash}
    table["clips"] = None if config.clips is None else config.clips.name
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    changed = sorted(key for key in table if before and before.get(key) != table[key])
    if changed:
        raise UserError(
            f"{config.out} holds latents with another {changed[0]} "
            f"({before.get(changed[0])!r}, now {table[changed[0]]!r})",
            hint="choose another --out, or the same settings to go on",
        )
    rounds = before.get(ROUNDS, [])
    known = set(itertools.chain.from_iterable(rounds))
    gone = sorted(clip for clip in known if source.find(clip) is None)
    if gone:
        raise UserError(
            f"{config.out} holds latents of {gone[0]!r}, which is not among these clips",
            hint="choose another --out, or put it back to go on",
        )
    new = (clip for clip in map(source.id, range(len(source))) if clip not in known)
    added = list(itertools.islice(new, max(_clips(config, source) - len(known), 0)))
    if added:
        write_json_whole(path, table | {ROUNDS: [*rounds, added]})


def _shards(config: EncodeConfig) -> list[list[tuple[str, int]]]:
    """The cuts of each shard: a clip's id and a number. No shard has clips of two rounds."""
    noted = json.loads((config.out / SETTINGS).read_text(encoding="utf-8"))
    return [
        part
        for clips in noted[ROUNDS]
        for part in chunked(itertools.product(clips, range(config.cuts)), config.shard)
    ]


def _is_whole(path: Path, part: list[tuple[str, int]]) -> bool:
    """UserError for a shard with cuts of other clips than those of `part`."""
    if not path.exists():
        return False
    recipe = json.loads(check_safetensors(path)["__metadata__"][KEY])["recipe"]
    found = {str(cut["clip"]) for cut in [*recipe["cuts"].values(), *recipe["refused"]]}
    if found != {clip for clip, _ in part}:
        raise UserError(f"{path} holds cuts of other clips", hint="choose another --out")
    return True


def _finish(config: EncodeConfig, shards: int, *, write: bool) -> Encoded:
    entries, kept = [], 0
    refused: list[dict[str, str]] = []
    for index in range(shards):
        path = config.out / shard_name(index)
        recipe = read_latents(path).recipe
        kept += len(recipe["cuts"])
        refused += recipe["refused"]
        entries.append({"path": shard_name(index), "sha256": hash_file(path)})
    if not kept:
        reason, count = Counter(entry["reason"] for entry in refused).most_common(1)[0]
        error = next(entry["error"] for entry in refused if entry["reason"] == reason)
        raise UserError(
            f"none of the {len(refused)} cuts can be used, {count} for {reason}: {error}",
            hint="mend clips or --crop, and choose another --out",
        )
    if write:
        counts = {"cuts": kept + len(refused), "kept": kept, "refused": len(refused)}
        write_json_whole(config.out / MANIFEST, counts | {"shards": entries})
    return Encoded(
        folder=config.out,
        shards=shards,
        cuts=kept + len(refused),
        kept=kept,
        refused=len(refused),
    )


# ---- what training reads ----


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """One training example."""

    frames: Frames
    """(frames, height, width, 3)"""
    latents: Tensor
    """(C, T, H, W), un-normalised, float32."""
    kl: float


@dataclass(frozen=True, slots=True)
class _Entry:
    shard: Path
    key: str
    cut: Cut
    name: str
    pixels: str
    kl: float


class LatentCache:
    """Cuts with their latents from a folder of `vae encode`; `draw` is pure, as the sampler's."""

    def __init__(
        self,
        folder: Path,
        source: Source,
        stats: LatentStats,
        *,
        codec: Codec,
        vae_hash: str,
        frames: int,
        crop: tuple[int, int],
        seed: int,
        refused: Callable[[str, RowError], None],
    ) -> None:
        """UserError where the folder is none, is unfinished, or does not fit the run."""
        self.source, self.stats, self.seed, self.refused = source, stats, seed, refused
        self.frames, self.crop = frames, crop
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{folder} holds no cached latents", hint="make them with vae encode"
            ) from None
        if not (folder / MANIFEST).exists():
            raise UserError(
                f"the latents in {folder} are not finished", hint="run the same vae encode again"
            )
        height, width = settings["crop"]
        if (settings["frames"], (height, width)) != (frames, crop):
            raise UserError(
                f"{folder} holds cuts of {settings['frames']} frames of {width}x{height}",
                hint=f"pass --frames {settings['frames']} --crop {width}x{height}",
            )
        shards = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["shards"]
        self.entries: list[_Entry] = []
        for shard in shards:
            path = folder / shard["path"]
            cuts = read_latents(path, vae_hash=vae_hash, codec=codec).recipe["cuts"]
            for key in sorted(cuts):
                self.entries.append(_entry(path, key, cuts[key], source))

    def draw(self, step: int, slot: int) -> Drawn:
        """An example. UserError after many refusals in a row."""
        rng = np.random.default_rng([self.seed, step, slot])
        last: RowError | None = None
        for _ in range(DRAWS):
            entry = self.entries[int(rng.integers(len(self.entries)))]
            try:
                frames = read_cut(self.source, entry.cut, self.frames, self.crop)
                if pixel_hash(frames) != entry.pixels:
                    raise RowError("changed", "not the pixels that were encoded")
                raw = self.stats.unnormalise(_read_one(entry)[None].float())[0]
                return Drawn(frames=frames, latents=raw, kl=entry.kl)
            except RowError as error:
                self.refused(entry.name, error)
                last = error
        assert last is not None
        raise UserError(f"{DRAWS} cached cuts in a row cannot be used; the last: {last.message}")


def _entry(path: Path, key: str, table: dict[str, Any], source: Source) -> _Entry:
    cut = Cut(**{name: table[name] for name in Cut.__dataclass_fields__})
    if source.find(cut.clip) is None:
        raise UserError(
            f"{path} was cut from {table['name']!r}, which is not among these clips",
            hint="give the --clips that were encoded, or encode these into another --out",
        )
    return _Entry(path, key, cut, table["name"], table["pixels"], table["kl"])


def _read_one(entry: _Entry) -> Tensor:
    from safetensors import safe_open

    with safe_open(entry.shard, framework="pt") as tensors:
        latents: Tensor = tensors.get_tensor(entry.key)
    return latents


class MadeLatents:
    """Latents that a DiT made: latent files of `infer` or any other writer of the format.

    There is no clip behind them; what the teacher decodes is the target. Of a tensor with leading
    dimensions the last entry is taken: the end of a trajectory.
    """

    def __init__(
        self,
        folder: Path,
        stats: LatentStats,
        *,
        codec: Codec,
        vae_hash: str,
        shape: LatentShape,
        seed: int,
    ) -> None:
        """UserError where no file has latents of `shape` or larger, or one is of another VAE."""
        self.stats, self.shape, self.seed = stats, shape, seed
        self.entries: list[tuple[Path, str]] = []
        for path in sorted(folder.rglob("*.safetensors")):
            found = read_latents(path, vae_hash=vae_hash, codec=codec)
            for name in sorted(found.latents):
                frames, rows, columns = found.latents[name].shape[-3:]
                if frames >= shape.frames and rows >= shape.height and columns >= shape.width:
                    self.entries.append((path, name))
        if not self.entries:
            raise UserError(
                f"{folder} holds no latents of at least {shape.frames}x{shape.height}x"
                f"{shape.width}",
                hint="lower --frames or --crop, or render larger videos with infer --keep-latents",
            )

    def draw(self, step: int, slot: int) -> Tensor:
        """Un-normalised latents (C, T, H, W), float32: the first frames, a random place."""
        rng = np.random.default_rng([self.seed, step, slot, 1])
        path, name = self.entries[int(rng.integers(len(self.entries)))]
        latents = read_latents(path).latents[name]
        latents = latents.reshape(-1, *latents.shape[-4:])[-1].float()
        top = int(rng.integers(latents.shape[2] - self.shape.height + 1))
        left = int(rng.integers(latents.shape[3] - self.shape.width + 1))
        part = latents[
            :,
            : self.shape.frames,
            top : top + self.shape.height,
            left : left + self.shape.width,
        ]
        return self.stats.unnormalise(part[None])[0]
