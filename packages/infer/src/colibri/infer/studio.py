"""Renders one request after the other and tells how far each is: `infer serve` without its page.

One thread renders, so that two requests never compute at the same time and one copy of the weights
serves all.
"""

import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

from colibri.core.errors import UserError
from colibri.infer import frame_steps, light, models
from colibri.infer.config import (
    AfterConfig,
    DecoderConfig,
    I2vConfig,
    LookConfig,
    MachineConfig,
    RenderConfig,
    SafetyConfig,
    ServeConfig,
    T2vConfig,
)
from colibri.infer.decode import Say
from colibri.infer.generate import Moment, Rendered, generate
from colibri.infer.jobs import job_of
from colibri.infer.kept import Kept
from colibri.infer.recipe import Recipe, read_video
from colibri.infer.scores import Scores, read_scores
from colibri.infer.settings import describe, make_recipes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a person asks for on the page."""

    prompt: str
    seed: int
    steps: int | None
    """None: as the model folder says."""
    image: Path | None
    who: str = ""
    """The page that asks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a request is. `share` is in [0, 1]."""

    text: str
    share: float
    preview: Path | None = None
    video: Path | None = None
    """The video, once it is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """One video of the folder."""

    video: Path
    recipe: Recipe
    scores: Scores | None


class Studio:
    """One model, its folder of videos, and the thread that renders.

    UserError on opening for a wrong model, device or setting.
    """

    def __init__(self, config: ServeConfig, *, say: Say = log.info) -> None:
        self.config = config
        self.source = models.find_model(config.model, config.revision, say=say)
        machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
        trial = make_recipes(  # so that a wrong flag is said here, and not at the first request
            *(config, [job_of("a", 0)], self.source, machine),
            decoder=light.find_decoder(config.decoder, self.source, say=log.debug),
            interpolate=frame_steps.find_interpolate(config.interpolate),
            upscale=frame_steps.find_upscale(config.upscale),
            say=log.debug,
        )
        self.recipe = trial[0].recipe
        """What a request without steps of its own is rendered by, but for prompt and seed."""
        self.line = describe(self.recipe, machine, 1)
        if config.preview < 0:
            raise UserError(f"--preview {config.preview} is not a number of steps")
        if config.out.suffix.lower() == ".mp4":
            raise UserError(f"--out {config.out} is a file", hint="give a folder")
        self._kept = Kept()
        self.filters = self._kept.filters(config.safety)
        self._lock = threading.Lock()
        self._open: list[_Request] = []
        """Requests that run or wait, in order."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="render")

    def render(self, asked: Asked) -> Iterator[Progress]:
        """Make one video; what was made before is there at once.

        UserError in one sentence where it cannot be made. The render goes on when nobody listens
        any more, to be found in `history`; `stop` ends it.
        """
        request = _Request(asked=asked)
        with self._lock:
            self._open.append(request)
        future = self._thread.submit(self._render, request)
        future.add_done_callback(lambda _: request.heard.put(None))
        yield Progress(text="Waiting for the render before", share=0.0)
        while (progress := request.heard.get()) is not None:
            yield progress
        yield self._outcome(future)

    def stop(self, who: str) -> bool:
        """End the requests of one page at their next step; without any, the running one.

        False where nothing is to be stopped.
        """
        with self._lock:
            own = [request for request in self._open if request.asked.who == who]
            chosen = own or self._open[:1]
            for request in chosen:
                request.stopped.set()
        return bool(chosen)

    def history(self, most: int = 24) -> list[Past]:
        """Videos of the folder with a recipe inside, the newest first."""
        found: list[Past] = []
        for path in _by_age(self.config.out):
            if len(found) == most:
                break
            try:
                recipe, _ = read_video(path)
            except UserError:
                continue  # no video of ours, or one that has just been moved away
            found.append(Past(video=path, recipe=recipe, scores=read_scores(path, recipe)))
        return found

    def close(self) -> None:
        """End what runs at its next step and take no more requests."""
        with self._lock:
            for request in self._open:
                request.stopped.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _render(self, request: "_Request") -> Rendered | None:
        """None where it was stopped."""

        def watch(moment: Moment) -> None:
            if request.stopped.is_set():
                raise _Stopped
            request.heard.put(_progress(moment))

        try:
            if request.stopped.is_set():
                return None
            config = self._config(request.asked)
            (rendered,) = generate(config, say=log.info, watch=watch, kept=self._kept)
        except _Stopped:
            return None
        finally:
            with self._lock:
                self._open.remove(request)
        return rendered

    def _config(self, asked: Asked) -> RenderConfig:
        given = {
            one.name: getattr(self.config, one.name)
            for base in (MachineConfig, SafetyConfig, AfterConfig, DecoderConfig, LookConfig)
            for one in fields(base)
        }
        given |= {"out": self.config.out, "preview": self.config.preview}
        given |= {"prompt": asked.prompt, "seed": asked.seed}
        if asked.steps is not None and asked.steps != self.recipe.flow.steps:
            given["steps"] = asked.steps  # a student keeps its own schedule otherwise
        if asked.image is not None:
            return I2vConfig(**given, image=asked.image)
        return T2vConfig(**given)

    def _outcome(self, future: "Future[Rendered | None]") -> Progress:
        try:
            rendered = future.result()
        except UserError:
            raise
        except Exception as error:
            log.exception("a render failed")
            said = " ".join(str(error).split())[:200] or "no reason given"
            raise UserError(
                f"the render failed ({type(error).__name__}: {said})", hint="the terminal says more"
            ) from None
        if rendered is None:
            return Progress(text="Stopped", share=0.0)
        text = "Done" if rendered.new else "Done: it was there already"
        return Progress(text=f"{text}, {rendered.video}", share=1.0, video=rendered.video)


@dataclass(kw_only=True, eq=False)
class _Request:
    asked: Asked
    heard: "queue.SimpleQueue[Progress | None]" = field(default_factory=queue.SimpleQueue)
    """What it is told; None at its end."""
    stopped: threading.Event = field(default_factory=threading.Event)


class _Stopped(Exception):
    """Leaves a render at its next step."""


def _progress(moment: Moment) -> Progress:
    """Denoising is nine tenths of the bar."""
    if moment.stage == "load":
        return Progress(text="Loading the model and reading the prompt", share=0.02)
    if moment.stage == "decode":
        return Progress(text="Decoding the video", share=0.95)
    done = moment.step / max(1, moment.steps)
    text = f"Denoising: step {moment.step} of {moment.steps}"
    return Progress(text=text, share=0.04 + 0.9 * done, preview=moment.preview)


def _by_age(folder: Path) -> list[Path]:
    ages = {}
    for path in folder.glob("*.mp4"):
        try:
            ages[path] = path.stat().st_mtime_ns
        except OSError:
            continue
    return sorted(ages, key=lambda path: (-ages[path], path.name))
