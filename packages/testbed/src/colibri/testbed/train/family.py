"""Joins what was trained to a diffusers `WanPipeline` folder with a model card, and scores it."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanPipeline
from numpy.typing import NDArray
from PIL import Image

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole
from colibri.core.wan.family import TINY_T2V, TINY_TI2V
from colibri.testbed import captions
from colibri.testbed.score import Score, score
from colibri.testbed.small import FRAMES, SIDE, small_clip
from colibri.testbed.train.bank import bank_scene
from colibri.testbed.train.dit import DitRecipe, TinyModel, tiny_transformer
from colibri.testbed.train.loop import lengths_of, load_weights
from colibri.testbed.train.text import tiny_tokenizer
from colibri.testbed.world import Scene

SHIFT = DitRecipe().shift
MAX_SHARD_SIZE = "7MB"
"""Of a file of weights: they are kept in git."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyScores:
    """Means over fresh held-out prompts."""

    scores: tuple[Score, ...]
    shapes: tuple[int, ...]
    """Asked for in each."""
    first_frame_db: float | None = None
    """PSNR of frame 0 against the given image; None for text alone."""

    @property
    def semantic(self) -> float:
        """Mean share of asked attributes."""
        return float(np.mean([one.semantic.mean for one in self.scores]))

    def semantic_of(self, shapes: int) -> float | None:
        """`semantic` of the scenes with so many shapes; None where there are none."""
        some = [
            one.semantic.mean
            for one, count in zip(self.scores, self.shapes, strict=True)
            if count == shapes
        ]
        return float(np.mean(some)) if some else None

    @property
    def quality(self) -> float:
        """Mean quality."""
        return float(np.mean([one.quality.mean for one in self.scores]))

    @property
    def right(self) -> float:
        """Share of videos with every asked attribute."""
        return float(np.mean([one.right for one in self.scores]))


def save_family(vae: Path, dit: Path, out: Path, *, seed: int = 0) -> Path:
    """Write `out` whole from `vae`, an AutoencoderKLWan folder, and `dit`, a training folder.

    The autoencoder's form says which family it is: tiny-ti2v, or tiny-t2v in Wan2.1's layout.
    """
    for needed in (vae / "config.json", dit / "training.pt"):
        if not needed.exists():
            raise UserError(f"{needed} is missing", hint="train it first: testbed train vae | dit")
    average = TinyModel()
    steps = load_weights(dit, torch.nn.ModuleList([TinyModel(), average]))
    transformer = tiny_transformer()
    transformer.load_state_dict(average.transformer.state_dict())
    autoencoder = AutoencoderKLWan.from_pretrained(vae)
    form = TINY_TI2V if autoencoder.config["is_residual"] else TINY_T2V
    family = replace(
        form,
        transformer=dict(transformer.config),
        vae=dict(autoencoder.config),
        text_encoder=average.text_encoder.config.to_dict(),
        defaults=replace(form.defaults, shift=SHIFT, guidance=4.0, text_tokens=512),
    )
    model = wan.WanModel(
        family=family,
        tokenizer=tiny_tokenizer(seed),
        text_encoder=average.text_encoder.half().eval(),
        transformer=transformer.half().eval(),
        vae=autoencoder.half().eval(),
    )
    wan.save(model, out, max_shard_size=MAX_SHARD_SIZE)
    training = _read(vae / "training.json")
    training["lengths"] = {"dit": lengths_of(dit) or [steps], **training.get("lengths", {})}
    training |= {"seed": seed, "dit": _read(dit / "recipe.json")}
    write_json_whole(out / "training.json", training)
    return out


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def pack(source: Path, out: Path, *, shared: bool) -> Path:
    """A model's folder for git: float16, small files; `shared`: without the teacher's parts."""
    model = wan.load(source, dtype="float16", vae_dtype="float16")
    wan.save(model, out, max_shard_size=MAX_SHARD_SIZE)
    for extra in (*source.glob("*.md"), *source.glob("distill.json")):
        shutil.copy2(extra, out)
    for part in ("vae", "text_encoder", "tokenizer") if shared else ():
        shutil.rmtree(out / part)
    return out


def load_family(folder: Path) -> WanPipeline:
    """The pipeline in float32."""
    pipeline = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def score_text(
    pipeline: WanPipeline,
    scenes: Sequence[Scene],
    *,
    steps: int = 50,
    guidance: float = 4.0,
    seed: int = 0,
    batch: int = 8,
) -> FamilyScores:
    """Text to video for each scene's terse caption."""
    scores = []
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        videos = pipeline(
            prompt=prompts(part, seed + start),
            negative_prompt="",
            height=SIDE,
            width=SIDE,
            num_frames=FRAMES,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed + start),
            output_type="np",
        ).frames
        scores += [score(v, s) for v, s in zip(_bytes(videos), part, strict=True)]
    return FamilyScores(scores=tuple(scores), shapes=numbers_of(scenes))


def score_image(
    pipeline: WanPipeline,
    scenes: Sequence[Scene],
    *,
    steps: int = 50,
    guidance: float = 4.0,
    seed: int = 0,
) -> FamilyScores:
    """Image to video: each scene's true first frame is given."""
    from_image = WanImageToVideoPipeline(
        tokenizer=pipeline.tokenizer,
        text_encoder=pipeline.text_encoder,
        vae=pipeline.vae,
        scheduler=pipeline.scheduler,
        transformer=pipeline.transformer,
        expand_timesteps=True,
    )
    from_image.set_progress_bar_config(disable=True)
    scores, errors = [], []
    for index, (scene, prompt) in enumerate(zip(scenes, prompts(scenes, seed), strict=True)):
        picture = small_clip(scene, frames=1)[0]
        frames = from_image(
            image=Image.fromarray(picture),
            prompt=prompt,
            negative_prompt="",
            height=SIDE,
            width=SIDE,
            num_frames=FRAMES,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed + index),
            output_type="np",
        ).frames
        video = _bytes(frames)[0]
        scores.append(score(video, scene))
        errors.append(np.square((video[0].astype(float) - picture) / 255).mean())
    return FamilyScores(
        scores=tuple(scores),
        shapes=numbers_of(scenes),
        first_frame_db=float(-10 * np.log10(np.mean(errors))),
    )


def held_out_scenes(count: int, *, seed: int = 2) -> list[Scene]:
    """Scenes of combinations that no training clip has."""
    return [bank_scene(seed, index, "held-out", free=False) for index in range(count)]


def numbers_of(scenes: Sequence[Scene]) -> tuple[int, ...]:
    """Of shapes in each."""
    return tuple(len(scene.shapes) for scene in scenes)


def prompts(scenes: Sequence[Scene], seed: int) -> list[str]:
    """A terse caption for each."""
    rng = np.random.default_rng([seed, 19])
    return [captions.terse(scene, rng) for scene in scenes]


def family_hash(folder: Path) -> str:
    """sha256 over the weights' files in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bytes(videos: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (np.asarray(videos) * 255 + 0.5).astype(np.uint8)
