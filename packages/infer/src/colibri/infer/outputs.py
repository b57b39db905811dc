"""Where a video and what belongs to it lie, and which of it is there already."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from colibri.core.errors import UserError
from colibri.infer.recipe import Recipe, read_video

GROWING = ".growing.mp4"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """The files of one video: NAME.mp4, and beside it .json and .first.png.

    While it is being made also .preview.png, .latents.safetensors and .growing.mp4.
    """

    video: Path

    def beside(self, suffix: str) -> Path:
        """The file of the same name with another ending."""
        return self.video.with_name(self.video.stem + suffix)

    @property
    def recipe(self) -> Path:
        """The recipe as JSON."""
        return self.beside(".json")

    @property
    def latents(self) -> Path:
        """The latents, from the end of denoising to the end of decoding."""
        return self.beside(".latents.safetensors")

    @property
    def growing(self) -> Path:
        """A long video while it is being made; it can be played."""
        return self.beside(GROWING)

    @property
    def preview(self) -> Path:
        """A rough picture of the video so far, until the video is there."""
        return self.beside(".preview.png")


def outputs_of(out: Path, recipe: Recipe, *, count: int = 1) -> Outputs:
    """`out` is a folder, or the video's file where there is one."""
    if out.suffix.lower() != ".mp4":
        return Outputs(video=out / f"{recipe.name}.mp4")
    if count > 1:
        raise UserError(f"--out {out} is one file for {count} videos", hint="give a folder")
    return Outputs(video=out)


def videos_below(folder: Path) -> list[Path]:
    """The MP4s below a folder, in order, without those that are not finished."""
    return sorted(
        path
        for path in folder.rglob("*.mp4")
        if not path.name.startswith(".") and not path.name.endswith(GROWING)
    )


def is_done(outputs: Outputs, recipe: Recipe) -> bool:
    """True where the video of just this recipe is there. UserError where the file is another's."""
    if not outputs.video.exists():
        return False
    try:
        found, _ = read_video(outputs.video)
    except UserError as error:
        raise UserError(
            f"{outputs.video} is in the way: {error.message}", hint="choose another --out"
        ) from None
    if found.fingerprint != recipe.fingerprint:
        raise UserError(
            f"{outputs.video} is of another recipe (seed {found.seed}, {found.prompt[:60]!r})",
            hint="choose another --out",
        )
    return True


def check_writable(folder: Path) -> None:
    """UserError before the work, where its result could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"nothing can be written to {folder}: {error.strerror}") from None


def check_file(path: Path) -> None:
    """The same for a file, which may be there."""
    check_writable(path.parent)
    if path.is_dir():
        raise UserError(f"{path} is a folder", hint="give a file")


@contextlib.contextmanager
def writing(path: Path, *, hint: str | None = None) -> Iterator[None]:
    """A full disk and its like as a UserError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be written: {said}", hint=hint) from None


def sweep(outputs: Outputs) -> None:
    """Remove what killed runs left unfinished of this video."""
    folder = outputs.video.parent
    if not folder.is_dir():
        return
    left = re.compile(rf"\.{re.escape(outputs.video.stem)}\.[\w.]+\.(\d+)\.part")
    for path in list(folder.iterdir()):
        found = left.fullmatch(path.name)
        if found and not _alive(int(found[1])):
            with contextlib.suppress(OSError):
                path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
