"""Encode curated shards once: text embeddings and first-frame latents, so that training holds
neither text encoder nor VAE. Stopped at any moment, the same command goes on to the same bytes."""

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from colibri.core import wan
from colibri.core.clip import VideoRef
from colibri.core.errors import RowError, UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.hashing import hash_text
from colibri.core.latents import write_latents
from colibri.core.shards import chunked, read_rows, write_text_whole
from colibri.core.video import open_ref, read_frames
from colibri.core.wan.decoder import encode_video, to_pixels
from colibri.core.wan.text import clean_prompt, encode_text
from colibri.distill.config import EncodeConfig
from colibri.distill.device import find_device
from colibri.distill.encodings import (
    FORMAT,
    NULL,
    EncodedManifest,
    EncodedShard,
    hash_text_encoder,
    write_manifest,
    write_text,
    written_as,
)
from colibri.distill.teacher import teacher_folder

log = logging.getLogger(__name__)

COLUMNS = ["id", "caption", "image", "split", "video", "member", "start_s"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    id: str
    caption: str
    image: bytes | None
    key: str
    """Hash of caption and image."""
    video: VideoRef


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
    """Encode every row of the split; `on_shard(done, found of these, refused)` hears each shard.

    Rows without a caption are refused with a reason; a row without an image is for text to video
    alone. UserError for shards that are none, ids that come twice, a size that does not divide.
    """
    config.check()
    files = shard_files(config.shards)
    folder = teacher_folder(config.model)
    family, _ = wan.describe(folder)
    height, width = config.size
    LatentShape.of(VideoShape(frames=1, height=height, width=width), family.codec, family.patch)
    tokens = config.text_tokens or family.defaults.text_tokens
    encoder = _Encoder(config, folder, tokens)
    negative = family.defaults.negative_prompt
    shards: list[EncodedShard] = []
    refused: list[str] = []
    seen: set[str] = set()
    found = done = 0
    rows = _rows(files, config.split, seen, refused)
    for index, chunk in enumerate(chunked(rows, config.shard_rows)):
        name = f"{index:05d}.safetensors"
        keys = {row.id: row.key for row in chunk}
        if not encoder.is_done(config.out, name, keys):
            encoder.write(config.out, name, chunk)
        else:
            found += len(chunk)
        if config.clips and not encoder.has_clips(config.out, name, chunk):
            encoder.write_clips(config.out, name, chunk)
        with_frame, broken = encoder.outcome(config.out, name)
        refused += [f"{row}: image cannot be read" for row in broken]
        kept = tuple(row.id for row in chunk if row.id not in broken)
        content = hash_text(encoder.text_hash, encoder.vae_hash, *(keys[row] for row in kept))
        shards.append(
            EncodedShard(name=name, rows=kept, with_frame=tuple(with_frame), content=content)
        )
        done += len(chunk)
        if on_shard:
            on_shard(done, found, len(refused))
    if not any(shard.rows for shard in shards):
        raise UserError(f"{config.shards} has no rows of the split {config.split!r} to encode")
    encoder.write_null(config.out, negative)
    manifest = EncodedManifest(
        format=FORMAT,
        text_hash=encoder.text_hash,
        vae_hash=encoder.vae_hash,
        text_tokens=tokens,
        text_width=int(family.transformer["text_dim"]),
        size=(height, width),
        negative_prompt=negative,
        shards=tuple(shards),
        refused=tuple(refused),
    )
    write_manifest(config.out, manifest)
    write_text_whole(config.out / ".gitignore", "*\n")
    return Encoding(manifest=manifest, encoded=done - found, found=found)


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


class _Encoder:
    """The encoders of one model folder; weights are loaded when a shard needs them."""

    def __init__(self, config: EncodeConfig, folder: Path, tokens: int) -> None:
        self._config, self._folder, self._tokens = config, folder, tokens
        self._model: wan.WanModel | None = None
        self.text_hash = hash_text_encoder(folder, text_tokens=tokens, precision=config.precision)
        self.vae_hash = wan.load(folder, parts=()).vae_hash

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

    def is_done(self, out: Path, name: str, keys: dict[str, str]) -> bool:
        """Both files are there, whole, of these encoders, and of these captions and images."""
        text, first = (written_as(out / kind / name) for kind in ("text", "first"))
        return (
            text is not None
            and first is not None
            and text.get("encoder") == self.text_hash
            and text.get("keys") == keys
            and first.get("vae_hash") == self.vae_hash
            and first.get("recipe", {}).get("keys") == keys
            and first["recipe"].get("size") == list(self._config.size)
        )

    def write(self, out: Path, name: str, rows: Sequence[_Row]) -> None:
        keys = {row.id: row.key for row in rows}
        latents, broken = self._latents(rows)
        words: dict[str, Tensor] = {}
        for start in range(0, len(rows), self._config.batch):
            part = [row for row in rows[start : start + self._config.batch] if row.id not in broken]
            if part:
                embeddings = self._words([row.caption for row in part])
                words |= dict(zip((row.id for row in part), embeddings, strict=True))
        captions = {row.id: row.caption for row in rows}
        write_text(out / "text" / name, words, encoder=self.text_hash, keys=keys, captions=captions)
        write_latents(
            out / "first" / name,
            latents,
            codec=self.model.family.codec,
            vae_hash=self.vae_hash,
            recipe={
                "keys": keys,
                "size": list(self._config.size),
                "with_frame": sorted(latents),
                "broken": sorted(broken),
            },
        )

    def has_clips(self, out: Path, name: str, rows: Sequence[_Row]) -> bool:
        """The shard's clips are there, whole, of this VAE, size, length and these videos."""
        about = written_as(out / "clips" / name)
        return (
            about is not None
            and about.get("vae_hash") == self.vae_hash
            and about.get("recipe", {}).get("of") == self._clip_recipe(rows)
        )

    def write_clips(self, out: Path, name: str, rows: Sequence[_Row]) -> None:
        height, width = self._config.size
        latents: dict[str, Tensor] = {}
        missing: dict[str, str] = {}
        for row in rows:
            try:
                frames = list(self._frames(row.video))
            except RowError as error:
                missing[row.id] = str(error)
                continue
            fitted = [_fit(Image.fromarray(f), height=height, width=width) for f in frames]
            latents[row.id] = encode_video(self.model.vae, torch.cat(fitted, dim=2))[0].cpu()
        if missing:
            log.warning("%s: %d rows without a clip, %s", name, len(missing), min(missing.items()))
        write_latents(
            out / "clips" / name,
            {row: clip.clone() for row, clip in latents.items()},
            codec=self.model.family.codec,
            vae_hash=self.vae_hash,
            recipe={"of": self._clip_recipe(rows), "missing": missing},
        )

    def _frames(self, video: VideoRef) -> Iterator[Any]:
        wanted, count = self._config.clips, 0
        with open_ref(video, self._config.videos or self._config.shards) as file:
            for frame in read_frames(file, start_s=video.start_s, limit=wanted):
                count += 1
                yield frame
        if count < wanted:
            raise RowError("too_short", f"{count} of {wanted} frames")

    def _clip_recipe(self, rows: Sequence[_Row]) -> dict[str, Any]:
        videos = {row.id: [row.video.video, row.video.member, row.video.start_s] for row in rows}
        return {"videos": videos, "size": list(self._config.size), "frames": self._config.clips}

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

    def _latents(self, rows: Sequence[_Row]) -> tuple[dict[str, Tensor], set[str]]:
        height, width = self._config.size
        pictures: dict[str, Tensor] = {}
        broken: set[str] = set()
        for row in rows:
            if row.image is None:
                continue
            try:
                pictures[row.id] = fit_image(row.image, height=height, width=width)
            except OSError as error:
                log.warning("row %s: its image cannot be read: %s", row.id, error)
                broken.add(row.id)
        latents: dict[str, Tensor] = {}
        for names in chunked(pictures, self._config.batch):
            made = encode_video(self.model.vae, torch.cat([pictures[name] for name in names]))
            latents |= {name: made[i].cpu().clone() for i, name in enumerate(names)}
        return latents, broken


def _rows(files: Sequence[Path], split: str, seen: set[str], refused: list[str]) -> Iterator[_Row]:
    for file in files:
        try:
            for raw in read_rows(file, COLUMNS):
                row = _row(raw, split, seen, refused)
                if row is not None:
                    yield row
        except (OSError, KeyError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise UserError(f"{file} cannot be read as a curated shard: {error}") from None


def _row(raw: dict[str, Any], split: str, seen: set[str], refused: list[str]) -> _Row | None:
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
    digest = hashlib.sha256(image).hexdigest() if image else ""
    return _Row(
        id=raw["id"],
        caption=caption,
        image=image,
        key=hash_text(caption, digest),
        video=VideoRef(video=raw["video"], member=raw["member"], start_s=raw["start_s"]),
    )
