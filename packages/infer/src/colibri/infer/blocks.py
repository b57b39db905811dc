"""What a long render keeps on disk while it is made, so that a kill loses no block.

A folder NAME.blocks: the latents of each block, now and then the key cache, and how much of the
video is written. Every file appears whole or not at all; what nothing needs any more goes.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.core.latents import check_safetensors, read_latents, write_latents
from colibri.core.shards import write_json_whole, write_whole

if TYPE_CHECKING:
    from torch import Tensor

KEY = "colibri"
BLOCK = "block"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """How much of the growing video is whole."""

    blocks: int = 0
    frames: int = 0
    bytes: int = 0
    """Size of the growing file."""
    hash: str = ""
    """`stream.chained` of the frames."""


class BlockStore:
    """The folder of one long render. `fingerprint` is its recipe's."""

    def __init__(self, folder: Path, *, fingerprint: str, codec: Codec, vae_hash: str) -> None:
        self.folder = folder
        self._fingerprint, self._codec, self._vae_hash = fingerprint, codec, vae_hash

    # ---- latents ----

    def write_block(self, index: int, latents_BCTHW: "Tensor") -> None:
        """Keep the normalised latents of a block."""
        write_latents(
            self._block(index),
            {BLOCK: latents_BCTHW},
            codec=self._codec,
            vae_hash=self._vae_hash,
            recipe={"fingerprint": self._fingerprint, "block": index},
        )

    def read_block(self, index: int) -> "Tensor":
        """UserError where it is missing, damaged or of another render."""
        found = read_latents(self._block(index), vae_hash=self._vae_hash, codec=self._codec)
        if found.recipe != {"fingerprint": self._fingerprint, "block": index}:
            raise self._foreign(self._block(index))
        return found.latents[BLOCK]

    def blocks(self) -> list[int]:
        """Numbers of the blocks that are there, rising."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.safetensors"))

    def forget(self, before: int) -> None:
        """Remove the latents of blocks before this one."""
        for index in self.blocks():
            if index < before:
                self._block(index).unlink()

    # ---- the key cache ----

    def write_cache(self, blocks: int, state: "dict[str, Tensor]") -> None:
        """Keep the state after so many blocks, in the place of an earlier one."""
        from safetensors.torch import save_file

        about = json.dumps({"blocks": blocks, "fingerprint": self._fingerprint}, sort_keys=True)
        tensors = {name: one.detach().cpu().contiguous() for name, one in state.items()}
        write_whole(self._cache, lambda path: save_file(tensors, path, metadata={KEY: about}))

    def read_cache(self, device: str) -> "tuple[int, dict[str, Tensor]]":
        """(blocks, state) of the latest one; (0, {}) where there is none.

        UserError where it is damaged or of another render.
        """
        from safetensors.torch import load_file

        if not self._cache.exists():
            return 0, {}
        header = check_safetensors(self._cache)
        try:
            about = json.loads(header["__metadata__"][KEY])
            blocks, fingerprint = int(about["blocks"]), about["fingerprint"]
        except (KeyError, TypeError, ValueError):
            raise self._damaged(self._cache) from None
        if fingerprint != self._fingerprint:
            raise self._foreign(self._cache)
        return blocks, load_file(self._cache, device=device)

    # ---- the video ----

    def commit(self, written: Written) -> None:
        """Say that so much of the video is on the disk."""
        write_json_whole(
            self._written, {"fingerprint": self._fingerprint, "written": asdict(written)}
        )

    def written(self) -> Written:
        """UserError where the note is damaged or of another render."""
        try:
            table: Any = json.loads(self._written.read_text(encoding="utf-8"))
            fingerprint, written = table["fingerprint"], Written(**table["written"])
        except FileNotFoundError:
            return Written()
        except (ValueError, KeyError, TypeError):
            raise self._damaged(self._written) from None
        if fingerprint != self._fingerprint:
            raise self._foreign(self._written)
        return written

    # ---- all of it ----

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """UserError where another process is at the same render (where the system can tell)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            with contextlib.suppress(ImportError):
                import fcntl

                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise UserError(
                        f"another process is making the video of {self.folder}",
                        hint="wait for it, or choose another --out",
                    ) from None
            yield

    def clear(self, *, keep_latents: bool = False) -> None:
        """Remove the folder; with `keep_latents` all but the latents in it."""
        if not keep_latents:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for path in (self._cache, self._written, self.folder / ".lock"):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a kill left half written."""
        for path in self.folder.glob(".*.part"):
            path.unlink()

    @property
    def _cache(self) -> Path:
        return self.folder / "cache.safetensors"

    @property
    def _written(self) -> Path:
        return self.folder / "written.json"

    def _block(self, index: int) -> Path:
        return self.folder / f"{index:06}.safetensors"

    def _damaged(self, path: Path) -> UserError:
        return UserError(f"{path} is damaged", hint=f"remove {self.folder} to begin again")

    def _foreign(self, path: Path) -> UserError:
        return UserError(
            f"{path} is of another render that is not finished",
            hint=f"choose another --out, or remove {self.folder}",
        )
