"""A model held open for another program: text, latents, frames and the video, one call each.

Nothing is on disk until `save`. Frames are those of `infer t2v` and `infer i2v` with the same
settings; those go by `colibri.infer.generate`, which survives a kill.
"""

import logging
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from colibri.core.shards import write_json_whole
from colibri.core.video import write_video
from colibri.infer import models
from colibri.infer.config import DecoderConfig, LookConfig, MachineConfig, SafetyConfig
from colibri.infer.decode import Frames, Say
from colibri.infer.denoise import denoise, needed_prompts
from colibri.infer.finish import decode_clip, made_of
from colibri.infer.image import Frame, write_png
from colibri.infer.jobs import Job, job_of
from colibri.infer.kept import Kept
from colibri.infer.models import Machine
from colibri.infer.outputs import check_writable, is_done, outputs_of, writing
from colibri.infer.recap import recaption
from colibri.infer.recipe import Made, Recipe, metadata, to_json
from colibri.infer.settings import make_recipes

if TYPE_CHECKING:
    from torch import Tensor

    from colibri.core.wan.sampler import OnStep

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SessionConfig(MachineConfig, SafetyConfig, DecoderConfig):
    """What is held open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """What a video shall show, and what it shall not."""

    prompt: str
    negative_prompt: str | None = None
    """None: the model's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """A video as latents, with the recipe of its frames."""

    latents_BCTHW: "Tensor"
    """Normalised, float32, on the CPU."""
    recipe: Recipe
    first: Frame | None
    machine: Machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """A video as frames."""

    frames: Frames
    recipe: Recipe
    made: Made
    first: Frame | None


class Session:
    """One model, loaded as far as it is needed. Not for several threads.

    Every call raises UserError in one sentence for bad input, and for what a filter refuses.
    """

    def __init__(self, config: SessionConfig, *, say: Say = log.info) -> None:
        from colibri.infer import light

        self._config, self._say, self._kept = config, say, Kept()
        self._filters = self._kept.filters(config.safety)
        self.source = models.find_model(config.model, config.revision, say=say)
        self._machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
        self._decoder = light.find_decoder(config.decoder, self.source, say=say)
        say(self.source.line())

    def encode(self, text: Text, *, recap: str = LookConfig.recap) -> None:
        """Read the text, so that `sample` with the same text need not load the text encoder."""
        job = _job(text)
        self._filters.check_prompt(job.prompt)
        (caption,) = recaption(
            *(recap, self.source, [job], self._machine),
            asked_model=LookConfig.recap_model,
            say=self._say,
        )
        default = self.source.family.defaults
        negative = default.negative_prompt if text.negative_prompt is None else job.negative_prompt
        prompts = [caption.text] if default.guidance == 1 else [caption.text, negative or ""]
        self._kept.embeddings(self.source, self._machine, prompts, say=self._say)

    def sample(
        self,
        text: Text,
        look: LookConfig,
        *,
        seed: int,
        image: Frame | None = None,
        on_step: "OnStep | None" = None,
    ) -> Sampled:
        """Latents of one video. `image`: its first frame, uint8 (height, width, 3), RGB."""
        from colibri.infer.memory import plan_for

        with tempfile.TemporaryDirectory(prefix="colibri-") as folder:
            file = Path(folder) / "image.png"
            if image is not None:
                write_png(file, image)
            (planned,) = make_recipes(
                *(look, [_job(text, seed, None if image is None else file)]),
                *(self.source, self._machine),
                decoder=self._decoder,
                filters=self._filters,
                say=self._say,
            )
        recipe = planned.recipe
        machine = plan_for(self._config.vram, self.source, recipe, self._machine)
        embeddings = self._kept.embeddings(
            self.source, machine, needed_prompts(recipe), say=self._say
        )
        model = self._kept.denoiser(self.source, machine, recipe)
        latents = denoise(
            *(model, recipe, embeddings, planned.first), on_step=on_step, say=self._say
        )
        return Sampled(
            latents_BCTHW=latents.cpu(), recipe=recipe, first=planned.first, machine=machine
        )

    def decode(self, sampled: Sampled) -> Decoded:
        """Frames of latents that this session has sampled."""
        model = self._kept.denoiser(self.source, sampled.machine, sampled.recipe)
        frames, way = decode_clip(
            *(model, sampled.machine, sampled.latents_BCTHW),
            mode=self._config.decode,
            say=self._say,
        )
        self._filters.check_frames(frames)
        made = made_of(model, sampled.machine, frames, way)
        return Decoded(frames=frames, recipe=sampled.recipe, made=made, first=sampled.first)


def save(decoded: Decoded, out: Path) -> Path:
    """The video with its recipe inside, in the folder `out` or as that .mp4; JSON beside it."""
    recipe, made = decoded.recipe, decoded.made
    outputs = outputs_of(out, recipe)
    if is_done(outputs, recipe):
        return outputs.video
    check_writable(outputs.video.parent)
    with writing(outputs.video):
        if decoded.first is not None and recipe.image is not None:
            write_png(outputs.video.with_name(recipe.image), decoded.first)
        write_json_whole(outputs.recipe, to_json(recipe, made))
        write_video(
            outputs.video,
            iter(decoded.frames),
            fps=Fraction(recipe.fps),
            metadata=metadata(recipe, made),
            exact=True,
        )
    return outputs.video


def _job(text: Text, seed: int = 0, image: Path | None = None) -> Job:
    return job_of(
        text.prompt, seed, negative_prompt=text.negative_prompt, image=image, where="the prompt"
    )
