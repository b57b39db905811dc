"""Files of text embeddings, and the folder that joins them with first-frame latents.

A folder holds `text/*.safetensors`, `first/*.safetensors` (the latent format of `core.latents`) and
`manifest.json`, written last. Every shard says which rows it holds, with a hash of what was
encoded, and which encoder made it: a changed caption or encoder is noticed. `clips/*.safetensors`
are there where they were asked for.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colibri.core.config import from_table, to_table
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file, hash_json, hash_text
from colibri.core.latents import KEY, check_safetensors
from colibri.core.shards import write_json_whole, write_whole

if TYPE_CHECKING:
    import torch

TEXT_FORMAT = "colibri-text/1"
FORMAT = "colibri-encoded/1"
MANIFEST = "manifest.json"
NULL = "null"
"""Shard and key of the negative prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedShard:
    """One pair of files, `text/NAME` and `first/NAME`."""

    name: str
    rows: tuple[str, ...]
    """Row ids, in order."""
    with_frame: tuple[str, ...]
    """Those that have a first frame."""
    content: str
    """Hash over captions, images and encoders: what was encoded, not when or where."""
    clips: str = ""
    """Hash over the videos in `clips/NAME` and their form; empty without that file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedManifest:
    """`manifest.json` of an encoded folder."""

    format: str
    text_hash: str
    """Hash of tokenizer and text encoder, its length and precision."""
    vae_hash: str
    text_tokens: int
    """Tokens that embeddings are padded to with zeros when they are read."""
    text_width: int
    size: tuple[int, ...]
    """Height and width of the first frames in pixels."""
    negative_prompt: str
    shards: tuple[EncodedShard, ...]
    refused: tuple[str, ...]
    """`id: reason` of rows that could not be encoded."""

    @property
    def data_hash(self) -> str:
        """What a student trained on this folder was trained on."""
        clips = [shard.clips for shard in self.shards if shard.clips]
        return hash_json([self.text_hash, self.vae_hash, *(s.content for s in self.shards), *clips])


def lay_out(folder: Path, rows: Iterable[str], *, most: int) -> dict[str, tuple[str, ...]]:
    """Rows of each shard, by its name: as a finished folder has them where it holds just these
    rows, else as `cut` does."""
    ids = tuple(rows)
    try:
        held = {shard.name: shard.rows for shard in read_manifest(folder).shards}
    except UserError:  # none, or not whole
        held = {}
    return held if tuple(row for part in held.values() for row in part) == ids else cut(ids, most)


def cut(ids: Iterable[str], most: int) -> dict[str, tuple[str, ...]]:
    """Shards of up to `most` neighbours, by name.

    An id decides whether it begins a shard, and a shard is named after its rows: one that is added
    or taken away makes its own shard another and, where shards are full, some after it. A name
    never comes to stand for other rows.
    """
    shards: list[list[str]] = []
    for row in ids:
        begins = int(hash_text(row)[:12], 16) % most == 0
        if begins or not shards or len(shards[-1]) == most:
            shards.append([])
        shards[-1].append(row)
    return {f"{hash_text(*rows)[:16]}.safetensors": tuple(rows) for rows in shards}


def write_text(
    path: Path,
    rows: "Mapping[str, torch.Tensor]",
    *,
    encoder: str,
    keys: Mapping[str, str],
    captions: Mapping[str, str],
) -> None:
    """Write embeddings (tokens, width) by row id, whole or not at all; same in, same bytes out."""
    from safetensors.torch import save_file

    about = {
        "format": TEXT_FORMAT,
        "encoder": encoder,
        "keys": dict(keys),
        "captions": dict(captions),
    }
    tensors = {name: rows[name].detach().cpu().contiguous() for name in sorted(rows)}
    text = json.dumps(about, sort_keys=True, ensure_ascii=False)

    def write(temporary: Path) -> None:
        save_file(tensors, temporary, metadata={KEY: text})
        temporary.chmod(0o644)  # safetensors writes for the owner alone

    write_whole(path, write)


def written_as(path: Path) -> dict[str, Any] | None:
    """What a shard's header says of itself; None where it is absent, cut or foreign."""
    try:
        about = json.loads((check_safetensors(path).get("__metadata__") or {})[KEY])
    except (UserError, KeyError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def write_manifest(folder: Path, manifest: EncodedManifest) -> None:
    """The last file of an encoded folder."""
    write_json_whole(folder / MANIFEST, to_table(manifest))


def read_manifest(folder: Path) -> EncodedManifest:
    """UserError where the folder is none, is not finished, or lacks a shard."""
    path = folder / MANIFEST
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} holds no finished encodings", hint="run distill encode, or let it finish"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise UserError(f"{path} is not of the form {FORMAT}")
    manifest = from_table(EncodedManifest, table, where=str(path))
    for shard in manifest.shards:
        for kind in ("text", "first"):
            check_safetensors(folder / kind / shard.name)
    return manifest


def hash_text_encoder(folder: Path, *, text_tokens: int, precision: str) -> str:
    """SHA-256 over a pipeline folder's tokenizer and text encoder files, length and precision."""
    files = [
        path
        for part in ("text_encoder", "tokenizer")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file() and path.suffix in (".safetensors", ".json", ".model", ".txt")
    ]
    if not files:
        raise UserError(f"{folder} has no text encoder")
    listed = [f"{path.relative_to(folder).as_posix()} {hash_file(path)}" for path in files]
    return hash_text(str(text_tokens), precision, *listed)
