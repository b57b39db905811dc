"""MP4s with a recipe inside, of frames that no model has made."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from colibri.core.schedule import FlowSchedule
from colibri.core.video import write_video
from colibri.infer.recipe import DecoderUse, Made, ModelUse, Recipe, metadata
from numpy.typing import NDArray

NOBODY = ModelUse(
    source="nobody",
    revision=None,
    family="tiny-ti2v",
    text_encoder="a" * 64,
    transformer="b" * 64,
    vae="c" * 64,
)


def write_clip(
    path: Path,
    frames: NDArray[np.uint8],
    *,
    prompt: str,
    model: ModelUse = NOBODY,
    seed: int = 0,
    decoder: DecoderUse | None = None,
) -> None:
    """Write `frames` as the video of `prompt` by `model`, three steps."""
    recipe = Recipe(
        prompt=prompt,
        prompt_used=prompt,
        recap="off",
        negative_prompt="",
        seed=seed,
        width=frames.shape[2],
        height=frames.shape[1],
        frames=len(frames),
        fps=8,
        sampler="consistency",
        guidance=1.0,
        schedule=FlowSchedule.listed((1000.0, 750.0, 500.0), shift=3.0).to_json(),
        dtype="float32",
        vae_dtype="float32",
        image=None,
        image_sha256=None,
        loras=(),
        attention=None,
        compile=False,
        model=model,
        decoder=decoder,
    )
    made = Made(frames_sha256="f" * 64, decode="whole", device="cpu", threads=1, versions={})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, iter(frames), fps=Fraction(8), metadata=metadata(recipe, made))
