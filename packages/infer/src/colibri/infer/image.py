"""The first frame of an image-to-video render: read, bring to size, hash, keep beside the video."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from colibri.core.errors import UserError
from colibri.core.shards import write_whole

Frame = NDArray[np.uint8]  # (height, width, 3), RGB


def read_image(path: Path, height: int, width: int) -> tuple[Frame, str | None]:
    """The image at (height, width), scaled and cropped at its centre, and a remark if it was.

    Turned upright by its EXIF; transparent parts become white. UserError where it is none.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
    except FileNotFoundError:
        raise UserError(f"there is no image {path}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UserError(f"{path} is not an image that can be read") from None
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.new("RGBA", layer.size, "white")
        upright.alpha_composite(layer)
    plain = upright.convert("RGB")
    if plain.size == (width, height):
        return np.array(plain), None
    fitted = ImageOps.fit(plain, (width, height), Image.Resampling.LANCZOS)
    remark = f"{path.name} is {plain.width}x{plain.height}: scaled and cropped to {width}x{height}"
    return np.array(fitted), remark


def hash_pixels(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 over the shape and the bytes of uint8 pixels."""
    digest = hashlib.sha256(f"uint8 {pixels.shape} ".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def write_png(path: Path, frame: Frame) -> None:
    """The frame as PNG, whole or not at all."""
    write_whole(path, lambda temporary: Image.fromarray(frame).save(temporary, format="png"))
