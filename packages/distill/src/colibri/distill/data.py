"""Training batches from an encoded folder, in an order that depends on nothing but the seed.

Position p of a stream is the same row in any run, however positions are split over processes and
micro-batches: where a run stands in its data is a number.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.geometry import Codec, LatentShape
from colibri.core.latents import read_latents
from colibri.distill.encodings import NULL, EncodedManifest, read_manifest, written_as
from colibri.distill.objectives.base import Batch
from colibri.distill.pairs import Pairs

log = logging.getLogger(__name__)


class Encoded:
    """An encoded folder, opened; rows are read when they are asked for."""

    def __init__(
        self,
        folder: Path,
        *,
        codec: Codec,
        shape: LatentShape,
        text_width: int,
        clips: bool = False,
    ) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        self._shape = shape
        _check(self.manifest, folder, codec=codec, shape=shape, text_width=text_width)
        self.rows = tuple(row for shard in self.manifest.shards for row in shard.rows)
        self.with_frame = frozenset(r for shard in self.manifest.shards for r in shard.with_frame)
        self._shard_of = {row: s.name for s in self.manifest.shards for row in s.rows}
        self._clips = _with_clip(folder, self.manifest, codec, shape) if clips else frozenset()
        if clips:
            self.rows = tuple(row for row in self.rows if row in self._clips)
            self.with_frame &= self._clips
        self._pairs: Pairs | None = None
        self._open: dict[tuple[Path, str], Any] = {}
        self._null = self._pad(self._handle("text", f"{NULL}.safetensors").get_tensor(NULL))

    def pair_with(self, pairs: Pairs) -> None:
        """From now on only rows with a path are there, and batches bring it."""
        self._pairs = pairs
        self.rows = tuple(row for row in self.rows if row in pairs.shard_of)
        self.with_frame &= frozenset(self.rows)

    def image_share(self, p_i2v: float) -> float:
        """Of samples that get a first frame, where `p_i2v` of those of rows that have one do."""
        return p_i2v * len(self.with_frame) / len(self.rows)

    def check_frames(self, p_i2v: float) -> None:
        """UserError where no row has the first frame that samples are to get, or, with a `p_i2v` of
        1, not every row; what is lost otherwise is said."""
        lacking = len(self.rows) - len(self.with_frame)
        if p_i2v == 0 or lacking == 0:
            return
        if not self.with_frame:
            raise UserError(
                f"{self.folder} has no row with a first frame, and --p-i2v {p_i2v:g} asks for some",
                hint="pass --p-i2v 0 for text alone, or encode shards that hold images",
            )
        if p_i2v == 1:
            raise UserError(
                f"{self.folder} has {lacking} rows without a first frame, and --p-i2v 1 needs one "
                "for each"
            )
        log.warning(
            "%d of %d rows have no first frame: %.1f %% of samples are image to video, not %g %%",
            lacking,
            len(self.rows),
            100 * self.image_share(p_i2v),
            100 * p_i2v,
        )

    def caption(self, row: str) -> str:
        """What was encoded; the id where the files do not say it."""
        about = written_as(self.folder / "text" / self._shard_of[row]) or {}
        caption: str = about.get("captions", {}).get(row, row)
        return caption

    def batch(
        self, rows: tuple[str, ...], *, given: tuple[bool, ...], device: torch.device | str
    ) -> Batch:
        """Prompts of `rows`; those `given` get their first frame, where they have one."""
        text = torch.stack([self._pad(self._tensor("text", row)) for row in rows])
        gets = tuple(ask and row in self.with_frame for ask, row in zip(given, rows, strict=True))
        blank = torch.zeros(self._shape.channels, 1, self._shape.height, self._shape.width)
        first = [
            self._tensor("first", row).float() if get else blank
            for row, get in zip(rows, gets, strict=True)
        ]
        return Batch(
            ids=rows,
            text_BLD=text.to(device),
            null_BLD=self._null[None].to(device).expand(len(rows), -1, -1),
            first_BCTHW=torch.stack(first).to(device),
            given_B=torch.tensor(gets),
            shape=self._shape,
            clip_BCTHW=torch.stack([self._tensor("clips", row).float() for row in rows]).to(device)
            if self._clips
            else None,
            path_BKCTHW=torch.stack([self._path(row).float() for row in rows]).to(device)
            if self._pairs
            else None,
        )

    def _path(self, row: str) -> Tensor:
        assert self._pairs is not None
        tensor: Tensor = self._file(self._pairs.folder, self._pairs.shard_of[row]).get_tensor(row)
        return tensor

    def _tensor(self, kind: str, row: str) -> Tensor:
        tensor: Tensor = self._handle(kind, self._shard_of[row]).get_tensor(row)
        return tensor

    def _handle(self, kind: str, name: str) -> Any:
        return self._file(self.folder / kind, name)

    def _file(self, folder: Path, name: str) -> Any:
        from safetensors import safe_open

        if (folder, name) not in self._open:
            if len(self._open) >= 256:  # files open at once
                self._open.pop(next(iter(self._open)))
            self._open[folder, name] = safe_open(folder / name, framework="pt")
        return self._open[folder, name]

    def _pad(self, words_LD: Tensor) -> Tensor:
        missing = self.manifest.text_tokens - words_LD.shape[0]
        return torch.nn.functional.pad(words_LD, (0, 0, 0, missing))


class Order:
    """An endless stream of rows: a fresh permutation each epoch."""

    def __init__(self, rows: tuple[str, ...], *, seed: int, stream: int) -> None:
        self._rows, self._seed, self._stream = rows, seed, stream
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def at(self, position: int) -> str:
        """The row at a position, from 0."""
        epoch, index = divmod(position, len(self._rows))
        if epoch != self._epoch:
            rng = np.random.Generator(np.random.PCG64([self._seed, self._stream, epoch]))
            self._epoch, self._permutation = epoch, rng.permutation(len(self._rows))
        return self._rows[int(self._permutation[index])]


def positions(
    update: int, *, micro: int, rank: int, world: int, batch: int, accumulate: int
) -> range:
    """Positions of one micro-batch of one process; an update's positions are the same set for any
    split of `batch * accumulate * world` samples."""
    first = (update * accumulate + micro) * world * batch + rank * batch
    return range(first, first + batch)


def _with_clip(
    folder: Path, manifest: EncodedManifest, codec: Codec, shape: LatentShape
) -> frozenset[str]:
    """Rows with a real clip; UserError where there are none, or of another size."""
    hint = "run distill encode with --clips FRAMES"
    found: set[str] = set()
    wanted = (shape.channels, shape.frames, shape.height, shape.width)
    for shard in manifest.shards:
        path = folder / "clips" / shard.name
        if not path.is_file():
            raise UserError(f"{folder} has no clips, which a loss of this run needs", hint=hint)
        held = read_latents(path, vae_hash=manifest.vae_hash, codec=codec)
        for row, latents in held.latents.items():
            if tuple(latents.shape) != wanted:
                raise UserError(
                    f"{path} holds clips of {tuple(latents.shape)}, this run needs {wanted}",
                    hint=hint,
                )
            found.add(row)
    if not found:
        raise UserError(
            f"{folder} has clips of no row: were the videos found?",
            hint="run distill encode again with --videos DIR, where the rows' paths begin",
        )
    return frozenset(found)


def _check(
    manifest: EncodedManifest, folder: Path, *, codec: Codec, shape: LatentShape, text_width: int
) -> None:
    if manifest.text_width != text_width:
        raise UserError(
            f"{folder} has embeddings of width {manifest.text_width}, the teacher takes "
            f"{text_width}",
            hint="encode with this teacher's text encoder",
        )
    height, width = manifest.size
    if (height, width) != (shape.height * codec.space, shape.width * codec.space):
        raise UserError(
            f"{folder} was encoded for {width}x{height}, this run is for "
            f"{shape.width * codec.space}x{shape.height * codec.space}"
        )
