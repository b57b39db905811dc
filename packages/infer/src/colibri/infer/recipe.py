"""The recipe of a video: all that is needed to make its frames again, as JSON and inside the MP4.

What decides the frames is in `Recipe`; what only describes how they came about is in `Made`.
"""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av

from colibri.core.config import from_table, to_table
from colibri.core.errors import UserError
from colibri.core.geometry import VideoShape
from colibri.core.hashing import hash_json
from colibri.core.schedule import FlowSchedule

FORMAT = "colibri-recipe/1"
KEY = "comment"
"""The metadata field that MP4 files keep and players show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelUse:
    """Which model, by name and by content."""

    source: str
    """As it was asked for: a folder, a hub id, or `embedded:NAME`."""
    revision: str | None
    family: str
    text_encoder: str
    """SHA-256 over the files of tokenizer and text encoder."""
    transformer: str
    vae: str
    """The hash that latents are bound to (`colibri.core.wan.decoder.hash_vae`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraUse:
    """One LoRA file."""

    path: str
    scale: float
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderUse:
    """A light decoder in the place of the model's own."""

    source: str
    """As it was asked for: a folder, a file, a hub id, or `embedded:NAME`."""
    sha256: str
    """Over its config and weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginUse:
    """A step around the model: a filter, an interpolation, an upscaling."""

    name: str
    """Of a built-in one, `words:FILE`, or `MODULE:NAME`."""
    sha256: str | None
    """Of the file that decides what it does; None for a built-in one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What decides the frames of one video, up to the arithmetic of the machine."""

    prompt: str
    """As the person wrote it."""
    prompt_used: str
    """As the model was given it."""
    recap: str
    """Who rewrote it: off, rules, or a model with the version of its instructions."""
    negative_prompt: str
    seed: int
    width: int
    height: int
    frames: int
    fps: int
    sampler: str
    guidance: float
    schedule: dict[str, Any]
    dtype: str
    vae_dtype: str
    image: str | None
    """File name of the first frame, beside the video."""
    image_sha256: str | None
    """Over its pixels, at the video's size."""
    loras: tuple[LoraUse, ...]
    attention: str | None
    compile: bool
    model: ModelUse
    long: dict[str, Any] | None = None
    """Of a video made in blocks: its causal form and prompts (`colibri.infer.long.Rollout`)."""
    decoder: DecoderUse | None = None
    """None: the model's own."""
    interpolate: tuple[PluginUse, ...] = ()
    """Each puts a frame between each two; `frames` and `fps` are those before."""
    upscale: tuple[PluginUse, ...] = ()
    """Done last; `width` and `height` are those before."""
    safety: tuple[PluginUse, ...] = ()
    """Filters that let the prompt and the frames pass."""

    @property
    def fingerprint(self) -> str:
        """The same for the same recipe, wherever its model and files lie."""
        table = to_table(self)
        for name in ("source", "revision"):
            del table["model"][name]
        for lora in table["loras"]:
            del lora["path"]
        del table["image"]
        for use in (table["decoder"], *table["safety"]):
            if use is not None and use.get("sha256"):
                use.pop("source", None)
                use.pop("name", None)
        for name in ("long", "decoder", "interpolate", "upscale", "safety"):
            if not table[name]:  # other videos keep their names
                del table[name]
        return hash_json(table)

    @property
    def video(self) -> VideoShape:
        """Frames, height and width."""
        return VideoShape(frames=self.frames, height=self.height, width=self.width)

    @property
    def flow(self) -> FlowSchedule:
        """The schedule, bit for bit as it was used."""
        return FlowSchedule.from_json(self.schedule, where="the recipe's schedule")

    @property
    def name(self) -> str:
        """A safe file name from prompt, seed and recipe: two recipes never share one."""
        return f"{_slug(self.prompt)}_s{self.seed}_{self.fingerprint[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """How the frames came about, for the record."""

    frames_sha256: str
    """Over the frames as decoded, before they were interpolated, enlarged and compressed."""
    decode: str
    """How latents became frames: whole, chunks, tiles or cpu."""
    device: str
    threads: int
    """Of PyTorch on the CPU; another number may round differently."""
    versions: dict[str, Any]


def to_json(recipe: Recipe, made: Made | None = None) -> dict[str, Any]:
    """The form that is stored. Without `made` it is a recipe not done yet."""
    table = {"format": FORMAT, "fingerprint": recipe.fingerprint, "recipe": to_table(recipe)}
    return table | ({"made": to_table(made)} if made else {})


def from_json(table: object, *, where: str) -> tuple[Recipe, Made | None]:
    """Undo `to_json`. UserError where it is of another form."""
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise UserError(f"{where} holds no recipe of infer", hint=f"expected {FORMAT}")
    try:
        recipe = from_table(Recipe, table["recipe"], where=where)
    except (KeyError, AttributeError):
        raise UserError(f"{where} has a damaged recipe") from None
    made = table.get("made")
    return recipe, from_table(Made, made, where=where) if isinstance(made, dict) else None


def metadata(recipe: Recipe, made: Made | None = None) -> dict[str, str]:
    """Metadata for the MP4: the prompt as title, the recipe as comment."""
    title = "".join(char if char.isprintable() else " " for char in recipe.prompt)
    return {"title": title[:200], KEY: json.dumps(to_json(recipe, made), sort_keys=True)}


def read_video(path: Path) -> tuple[Recipe, Made]:
    """The recipe inside an MP4. UserError where there is no file, no video, or no recipe."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with av.open(str(path)) as container:
            text = container.metadata.get(KEY, "")
    except (av.error.FFmpegError, OSError, ValueError):
        raise UserError(f"{path} is not a video that can be read") from None
    try:
        table = json.loads(text)
    except ValueError:
        table = None
    recipe, made = from_json(table, where=str(path))
    if made is None:
        raise UserError(f"{path} has a damaged recipe")
    return recipe, made


def with_image(recipe: Recipe) -> Recipe:
    """The recipe with the name that its first frame has beside the video."""
    return replace(recipe, image=f"{recipe.name}.first.png") if recipe.image_sha256 else recipe


def _slug(prompt: str) -> str:
    """Letters, digits and hyphens of the prompt's beginning, in any script."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:60]
    while len(words.encode("utf-8")) > 120:
        words = words[:-1]
    return words.strip("-") or "video"
