"""Encode curated shards once: text embeddings and first-frame latents, so that training holds
neither text encoder nor VAE. Stopped at any moment, the same command goes on to the same bytes;
processes that `torchrun` starts share the shards."""

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from colibri.core import wan
from colibri.core.clip import VideoRef
from colibri.core.errors import RowError, UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.hashing import hash_json, hash_text
from colibri.core.latents import check_safetensors, write_latents
from colibri.core.shards import chunked, read_rows, write_text_whole
from colibri.core.video import DAMAGE, open_ref, read_frames
from colibri.core.wan.decoder import encode_video, to_pixels
from colibri.core.wan.text import clean_prompt, encode_text
from colibri.distill.config import EncodeConfig
from colibri.distill.device import find_device
from colibri.distill.encodings import (
    FORMAT,
    MANIFEST,
    NULL,
    EncodedManifest,
    EncodedShard,
    hash_text_encoder,
    lay_out,
    write_manifest,
    write_text,
    written_as,
)
from colibri.distill.parallel import World, processes
from colibri.distill.teacher import teacher_folder

log = logging.getLogger(__name__)

COLUMNS = ["id", "caption", "image", "split", "video", "member", "start_s"]
HEAD_BYTES = 1 << 16
"""Of a video's start, by which, with its length, another video under its name is noticed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    id: str
    caption: str
    pictured: bool
    """Whether it has an image; the bytes stay in `file`."""
    key: str
    """Hash of caption and image."""
    video: VideoRef
    file: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """What a run of `encode` did."""

    manifest: EncodedManifest
    encoded: int
    """Rows encoded now."""
    found: int
    """Rows that were there already."""


def encode(
    config: EncodeConfig, *, on_shard: Callable[[int, int, int], object] | None = None
) -> Encoding:
    """Encode every row of the split; `on_shard(done, found of these, refused)` hears each shard of
    this process.

    Rows without a caption are refused with a reason; a row without an image is for text to video
    alone. UserError for shards that are none, ids that come twice, a size that does not divide.
    """
    config.check()
    if dist.is_initialized():  # called by one process of a run
        alone = World(rank=0, size=1, device=find_device(config.device))
        return _encode(config, alone, on_shard)
    with processes(config.device) as world:
        return _encode(config, world, on_shard)


def _encode(
    config: EncodeConfig, world: World, on_shard: Callable[[int, int, int], object] | None
) -> Encoding:
    files = shard_files(config.shards)
    folder = teacher_folder(config.model)
    family, _ = wan.describe(folder)
    height, width = config.size
    LatentShape.of(VideoShape(frames=1, height=height, width=width), family.codec, family.patch)
    tokens = config.text_tokens or family.defaults.text_tokens
    encoder = _Encoder(config, folder, tokens)
    refused: list[str] = []
    rows = {row.id: row for row in _rows(files, config.split, refused)}
    shards = {
        name: [rows[row] for row in ids]
        for name, ids in lay_out(config.out, rows, most=config.shard_rows).items()
    }
    mine = dict(list(shards.items())[world.rank :: world.size])
    fresh = {
        name: encoder.fresh(part)
        for name, part in mine.items()
        if not encoder.is_done(config.out, name, _keys(part))
    }
    world.wait()
    images = _images([row for part in fresh.values() for row in part], config.split)
    encoded = done = broken = 0
    for name, part in mine.items():
        if name in fresh:
            encoder.write(config.out, name, part, dict(islice(images, len(fresh[name]))))
            encoded += len(fresh[name])
        if config.clips:
            encoder.write_clips(config.out, name, part)
        done += len(part)
        broken += len(encoder.outcome(config.out, name)[1])
        if on_shard:
            on_shard(done, done - encoded, len(refused) + broken)
    if world.leads:
        encoder.write_null(config.out, family.defaults.negative_prompt)
    world.wait()
    encoded = int(sum(world.gather({"rows": [float(encoded)]})["rows"]))
    written: list[EncodedShard] = []
    for name, part in shards.items():
        with_frame, unread = encoder.outcome(config.out, name)
        refused += [f"{row}: image cannot be read" for row in unread]
        kept = [row for row in part if row.id not in unread]
        written.append(
            EncodedShard(
                name=name,
                rows=tuple(row.id for row in kept),
                with_frame=tuple(with_frame),
                content=hash_text(encoder.text_hash, encoder.vae_hash, *(row.key for row in kept)),
                clips=encoder.hash_clips(config.out, name),
            )
        )
    if not any(shard.rows for shard in written):
        raise UserError(f"{config.shards} has no rows of the split {config.split!r} to encode")
    manifest = EncodedManifest(
        format=FORMAT,
        text_hash=encoder.text_hash,
        vae_hash=encoder.vae_hash,
        text_tokens=tokens,
        text_width=int(family.transformer["text_dim"]),
        size=(height, width),
        negative_prompt=family.defaults.negative_prompt,
        shards=tuple(written),
        refused=tuple(refused),
    )
    if world.leads:
        write_manifest(config.out, manifest)
        write_text_whole(config.out / ".gitignore", "*\n")
        _remove_others(config, {*shards, f"{NULL}.safetensors"})
    world.wait()
    return Encoding(manifest=manifest, encoded=encoded, found=len(rows) - encoded)


def shard_files(folder: Path) -> list[Path]:
    """Parquet files of a curated data set, in order."""
    files = sorted((folder / "data").glob("*.parquet")) or sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no curated shards", hint="give the folder of curate run")
    return files


def fit_image(content: bytes, *, height: int, width: int) -> Tensor:
    """Pixels (1, 3, 1, height, width) in [-1, 1]: scaled to cover the size, cut around the middle.

    Raises OSError for bytes that are no picture.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = opened.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise OSError(str(error)) from None
    return _fit(picture, height=height, width=width)


def _fit(picture: Image.Image, *, height: int, width: int) -> Tensor:
    scale = max(height / picture.height, width / picture.width)
    size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    picture = picture.crop((left, top, left + width, top + height))
    return to_pixels(np.array(picture)[None])


class _Held:
    """Rows that the files of one folder hold; `keys(header)` are those a file has, with what each
    was made of."""

    def __init__(self, folder: Path, keys: Callable[[dict[str, Any]], Mapping[str, str]]) -> None:
        self._at: dict[tuple[str, str], Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            about = written_as(path)
            made = keys(about) if about else {}
            if made:
                names = check_safetensors(path)
                self._at |= {(row, key): path for row, key in made.items() if row in names}

    def has(self, row: str, key: str) -> bool:
        return (row, key) in self._at

    def take(self, keys: Mapping[str, str]) -> dict[str, Tensor]:
        """Tensors of those of the rows that are held."""
        from safetensors import safe_open

        by_file: dict[Path, list[str]] = {}
        for row, key in keys.items():
            if self.has(row, key):
                by_file.setdefault(self._at[row, key], []).append(row)
        taken: dict[str, Tensor] = {}
        for path, names in by_file.items():
            with safe_open(path, framework="pt") as file:
                taken |= {name: file.get_tensor(name) for name in names}
        return taken


class _Encoder:
    """The encoders of one model folder; weights are loaded when a shard needs them."""

    def __init__(self, config: EncodeConfig, folder: Path, tokens: int) -> None:
        self._config, self._folder, self._tokens = config, folder, tokens
        self._model: wan.WanModel | None = None
        self._codec = wan.describe(folder)[0].codec
        self.text_hash = hash_text_encoder(folder, text_tokens=tokens, precision=config.precision)
        self.vae_hash = wan.load(folder, parts=()).vae_hash
        out = config.out
        self._text = _Held(out / "text", self._text_keys)
        self._first = _Held(out / "first", lambda about: self._latent_keys(about, frames=None))
        self._clips = _Held(
            out / "clips", lambda about: self._latent_keys(about, frames=config.clips)
        )

    @property
    def model(self) -> wan.WanModel:
        if self._model is None:
            dtype: wan.DType = "bfloat16" if self._config.precision == "bf16" else "float32"
            self._model = wan.load(
                self._folder,
                parts=("tokenizer", "text_encoder", "vae"),
                dtype=dtype,
                device=find_device(self._config.device).type,
            )
        return self._model

    def _text_keys(self, about: dict[str, Any]) -> dict[str, str]:
        """What a file of embeddings holds, with what each row's were made of; nothing of another
        encoder."""
        return dict(about.get("keys", {})) if about.get("encoder") == self.text_hash else {}

    def _latent_keys(self, about: dict[str, Any], *, frames: int | None) -> dict[str, str]:
        """The same of a file of latents; nothing of another VAE, size or length."""
        recipe = about.get("recipe", {})
        form = (about.get("vae_hash"), recipe.get("size"), recipe.get("frames"))
        wanted = (self.vae_hash, list(self._config.size), frames)
        return dict(recipe.get("keys", {})) if form == wanted else {}

    def is_done(self, out: Path, name: str, keys: dict[str, str]) -> bool:
        """Both files are there, whole, of these encoders, and of these captions and images."""
        text, first = (written_as(out / kind / name) for kind in ("text", "first"))
        return (
            text is not None
            and first is not None
            and self._text_keys(text) == keys
            and self._latent_keys(first, frames=None) == keys
        )

    def fresh(self, rows: Sequence[_Row]) -> list[_Row]:
        """Those that no file of the folder holds."""
        return [
            row
            for row in rows
            if not self._text.has(row.id, row.key)
            or (row.pictured and not self._first.has(row.id, row.key))
        ]

    def write(
        self, out: Path, name: str, rows: Sequence[_Row], images: Mapping[str, bytes | None]
    ) -> None:
        """A shard's two files; `images` are those of its fresh rows, others are held."""
        keys, captions = _keys(rows), {row.id: row.caption for row in rows}
        held = {row: key for row, key in keys.items() if row not in images}
        words, latents = self._text.take(held), self._first.take(held)
        made, broken = self._latents(images)
        latents |= made
        fresh = [row for row in captions if row in images]
        for start in range(0, len(fresh), self._config.batch):
            part = [row for row in fresh[start : start + self._config.batch] if row not in broken]
            if part:
                embeddings = self._words([captions[row] for row in part])
                words |= dict(zip(part, embeddings, strict=True))
        self._unfinish(out)
        write_text(out / "text" / name, words, encoder=self.text_hash, keys=keys, captions=captions)
        write_latents(
            out / "first" / name,
            latents,
            codec=self._codec,
            vae_hash=self.vae_hash,
            recipe={
                "keys": keys,
                "size": list(self._config.size),
                "with_frame": sorted(latents),
                "broken": sorted(broken),
            },
        )

    def write_clips(self, out: Path, name: str, rows: Sequence[_Row]) -> None:
        """The shard's clips, unless they are there of this VAE, size, length and these videos."""
        height, width = self._config.size
        keys = {row.id: self._video_key(row.video) for row in rows}
        there = written_as(out / "clips" / name)
        if there and self._latent_keys(there, frames=self._config.clips) == keys:
            return
        latents = self._clips.take({row: key for row, key in keys.items() if key is not None})
        missing: dict[str, str] = {}
        for row in rows:
            if row.id in latents:
                continue
            try:
                frames = list(self._frames(row.video))
            except RowError as error:
                missing[row.id] = str(error)
                continue
            fitted = [_fit(Image.fromarray(f), height=height, width=width) for f in frames]
            latents[row.id] = encode_video(self.model.vae, torch.cat(fitted, dim=2))[0].cpu()
        if missing:
            log.warning("%s: %d rows without a clip, %s", name, len(missing), min(missing.items()))
        self._unfinish(out)
        write_latents(
            out / "clips" / name,
            {row: clip.clone() for row, clip in latents.items()},
            codec=self._codec,
            vae_hash=self.vae_hash,
            recipe={
                "keys": keys,
                "size": list(self._config.size),
                "frames": self._config.clips,
                "missing": missing,
            },
        )

    def _unfinish(self, out: Path) -> None:
        """What the manifest says is no longer so."""
        (out / MANIFEST).unlink(missing_ok=True)

    def hash_clips(self, out: Path, name: str) -> str:
        """Of the videos of a shard's clips, and of what they were brought to; empty without."""
        recipe = (written_as(out / "clips" / name) or {}).get("recipe", {})
        if "keys" not in recipe:
            return ""
        return hash_json({key: recipe[key] for key in ("keys", "size", "frames")})

    def _frames(self, video: VideoRef) -> Iterator[Any]:
        wanted, count = self._config.clips, 0
        with open_ref(video, self._root) as file:
            for frame in read_frames(file, start_s=video.start_s, limit=wanted):
                count += 1
                yield frame
        if count < wanted:
            raise RowError("too_short", f"{count} of {wanted} frames")

    def _video_key(self, video: VideoRef) -> str | None:
        """Hash of a video's length and start; None for one that cannot be opened."""
        try:
            with open_ref(video, self._root) as file:
                head = file.read(HEAD_BYTES)
                size = file.seek(0, 2)
        except (RowError, *DAMAGE):
            return None
        return hash_text(hashlib.sha256(head).hexdigest(), str(size), str(video.start_s))

    @property
    def _root(self) -> Path:
        return self._config.videos or self._config.shards

    def outcome(self, out: Path, name: str) -> tuple[list[str], set[str]]:
        """Rows with a first frame, and rows whose image cannot be read."""
        about = written_as(out / "first" / name)
        assert about is not None
        return about["recipe"]["with_frame"], set(about["recipe"]["broken"])

    def write_null(self, out: Path, negative: str) -> None:
        """The negative prompt's embedding, by the same encoder."""
        path, keys = out / "text" / f"{NULL}.safetensors", {NULL: hash_text(negative)}
        about = written_as(path)
        if about and (about.get("encoder"), about.get("keys")) == (self.text_hash, keys):
            return
        write_text(
            path,
            {NULL: self._words([negative])[0]},
            encoder=self.text_hash,
            keys=keys,
            captions={NULL: negative},
        )

    def _words(self, captions: list[str]) -> list[Tensor]:
        """Embeddings without the zeros after each prompt's end."""
        model = self.model
        # padding is masked: up to the longest prompt is enough, and for short ones far quicker
        known = (len(model.tokenizer(clean_prompt(text)).input_ids) for text in captions)
        longest = min(self._tokens, max(known))
        made = encode_text(model.tokenizer, model.text_encoder, captions, max_tokens=longest)
        lengths = made.ne(0).any(-1).sum(1).clamp_min(1).tolist()
        return [row[:length].cpu() for row, length in zip(made, lengths, strict=True)]

    def _latents(self, images: Mapping[str, bytes | None]) -> tuple[dict[str, Tensor], set[str]]:
        height, width = self._config.size
        pictures: dict[str, Tensor] = {}
        broken: set[str] = set()
        for row, image in images.items():
            if image is None:
                continue
            try:
                pictures[row] = fit_image(image, height=height, width=width)
            except OSError as error:
                log.warning("row %s: its image cannot be read: %s", row, error)
                broken.add(row)
        latents: dict[str, Tensor] = {}
        for names in chunked(pictures, self._config.batch):
            made = encode_video(self.model.vae, torch.cat([pictures[name] for name in names]))
            latents |= {name: made[i].cpu().clone() for i, name in enumerate(names)}
        return latents, broken


def _rows(files: Sequence[Path], split: str, refused: list[str]) -> Iterator[_Row]:
    seen: set[str] = set()
    for file in files:
        for raw in _read(file, COLUMNS):
            row = _row(raw, file, split, seen, refused)
            if row is not None:
                yield row


def _row(
    raw: dict[str, Any], file: Path, split: str, seen: set[str], refused: list[str]
) -> _Row | None:
    if split != "all" and raw["split"] != split:
        return None
    if raw["id"] in seen:
        raise UserError(f"row {raw['id']} comes twice in the shards")
    seen.add(raw["id"])
    caption = (raw["caption"] or "").strip()
    if not caption:
        refused.append(f"{raw['id']}: no caption")
        return None
    image = (raw["image"] or {}).get("bytes")
    return _Row(
        id=raw["id"],
        caption=caption,
        pictured=bool(image),
        key=hash_text(caption, hashlib.sha256(image).hexdigest() if image else ""),
        video=VideoRef(video=raw["video"], member=raw["member"], start_s=raw["start_s"]),
        file=file,
    )


def _images(rows: Sequence[_Row], split: str) -> Iterator[tuple[str, bytes | None]]:
    """Ids and image bytes of `rows`, which are in the order of their files."""
    wanted = {row.id for row in rows}
    for file in dict.fromkeys(row.file for row in rows):
        for raw in _read(file, ["id", "image", "split"]):
            if split in ("all", raw["split"]) and raw["id"] in wanted:
                yield raw["id"], (raw["image"] or {}).get("bytes") or None


def _read(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        yield from read_rows(file, columns)
    except (OSError, KeyError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise UserError(f"{file} cannot be read as a curated shard: {error}") from None


def _keys(rows: Sequence[_Row]) -> dict[str, str]:
    return {row.id: row.key for row in rows}


def _remove_others(config: EncodeConfig, names: set[str]) -> None:
    """Files of an earlier layout, whose rows are in others now."""
    for kind in ("text", "first", *(["clips"] if config.clips else [])):
        for path in (config.out / kind).glob("*.safetensors"):
            if path.name not in names:
                path.unlink()
