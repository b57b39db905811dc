"""The model card of the tiny family: measured where it is written."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from colibri.core.config import from_table
from colibri.testbed.train.dit import DitPart, DitRecipe
from colibri.testbed.train.family import (
    FamilyScores,
    family_hash,
    held_out_scenes,
    load_family,
    score_image,
    score_text,
)
from colibri.testbed.train.vae import VaeRecipe, reconstruction_report

ATTRIBUTES = ("shape", "colour", "background", "direction", "count")
QUALITIES = (
    *("sharpness", "likeness", "solidity", "steadiness", "background", "drift", "smoothness"),
)


def write_card(folder: Path, *, videos: int = 32, steps: int = 50) -> str:
    """Score the family on fresh held-out prompts and write `folder`/MODEL_CARD.md; its text.

    With no videos only the autoencoder is measured.
    """
    pipeline = load_family(folder)
    reconstruction = reconstruction_report(pipeline.vae, held_out_scenes(32))
    scores = "The video model's samples have not been scored."
    if videos:
        scenes = held_out_scenes(videos)
        few = scenes[: max(1, videos // 2)]
        tables = {
            f"text, {steps} steps, CFG 4": score_text(pipeline, scenes, steps=steps),
            "text, 3 steps, no CFG": score_text(pipeline, scenes, steps=3, guidance=1.0),
        }
        if pipeline.config.expand_timesteps:
            tables[f"image, {steps} steps, CFG 4"] = score_image(pipeline, few, steps=steps)
        of = "prompts (half of them from an image)" if len(tables) > 2 else "prompts"
        scores = f"{videos} {of}:\n\n{score_table(tables)}"
    training = json.loads((folder / "training.json").read_text())
    where = str(folder / "training.json")
    vae = from_table(VaeRecipe, training.get("vae", {}), where=where)
    dit = from_table(DitRecipe, training.get("dit", {}), where=where)
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6
    name, layout = (
        ("tiny-ti2v", "Wan2.2-TI2V")
        if pipeline.config.expand_timesteps
        else ("tiny-t2v", "Wan2.1-T2V")
    )
    text = f"""\
# {name}

A tiny video model in the layout of {layout}, trained in the small rendered world of
`colibri.testbed` alone. It makes 17 frames of 64x64 at 8 a second: one or two coloured shapes that
move over a background. It shows that a pipeline works; it knows nothing of the real world.

Parts: `WanTransformer3DModel` ({_millions(pipeline.transformer)} M), `AutoencoderKLWan`
({_millions(pipeline.vae)} M, 24 channels, 4x in time, 8x in space), `UMT5EncoderModel`
({_millions(pipeline.text_encoder)} M), a tokenizer of {len(pipeline.tokenizer)} pieces; float16,
{size:.1f} MB.

## Training

- Data: rendered clips, {vae.clips:,} of them for the autoencoder; captions of six kinds; every
  twelfth combination of shape, colour, motion and background held out.
- The video model's parts, each with a learning rate that falls to zero: {_parts(dit.parts)}. It is
  scored on the grid of the small world.
- Steps: {_steps(training["lengths"])}.
- Autoencoder: {vae.batch} clips a step of {vae.frames[0]} or {vae.frames[1]} frames; its latents
  are a linear code.
- Video model and text encoder: {dit.batch} clips a step, flow matching, shift {dit.shift:g},
  {dit.no_text:.0%} of captions empty, {dit.first_frame:.0%} of batches with a
  clean first latent frame; the averaged weights are kept.
- Seed {training["seed"]}; `testbed train vae | dit | family` on a CPU.

## Scores

Fresh scenes of held-out combinations, float32, torch {torch.__version__}. Reconstruction of 32
clips by the autoencoder:
{reconstruction}.

{scores}

sha256 of the weights: `{family_hash(folder)}`
"""
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    return text


def score_table(tables: dict[str, FamilyScores]) -> str:
    """A Markdown table: one row a sampler, semantics and quality attribute by attribute."""
    header = ["sampler", "semantic", "of one shape", "of two", *ATTRIBUTES, "all right"]
    header += ["quality", *QUALITIES, "frame 0"]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for name, family in tables.items():
        by_number = (family.semantic_of(shapes) for shapes in (1, 2))
        cells = [name, f"{family.semantic:.3f}"]
        cells += ["-" if value is None else f"{value:.2f}" for value in by_number]
        cells += [_mean(family, "semantic", key) for key in ATTRIBUTES]
        cells += [f"{family.right:.2f}", f"{family.quality:.3f}"]
        cells += [_mean(family, "quality", key) for key in QUALITIES]
        first = family.first_frame_db
        cells.append("-" if first is None else f"{first:.1f} dB")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(family: FamilyScores, half: str, key: str) -> str:
    values = [getattr(getattr(one, half), key) for one in family.scores]
    return f"{sum(values) / len(values):.2f}"


def _parts(parts: Sequence[DitPart]) -> str:
    return "; ".join(
        f"{part.steps:,} steps on {part.clips:,} clips "
        f"{'of any size, place and speed' if part.free else 'on the grid'}, "
        f"{part.pairs:.0%} with two shapes"
        for part in parts
    )


def _steps(lengths: dict[str, list[int]]) -> str:
    return "; ".join(
        f"{part} {', then to '.join(map(str, steps))}" for part, steps in lengths.items()
    )


def _millions(model: torch.nn.Module) -> str:
    return f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f}"
