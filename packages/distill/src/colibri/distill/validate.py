"""A validation: the averaged student's clips from the same noise each time, and the teacher's."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.latents import read_latents, write_latents
from colibri.core.schedule import FlowSchedule, add_noise, velocity_of
from colibri.core.video import write_video
from colibri.core.wan.decoder import LatentStats, decode_stream, to_frames
from colibri.core.wan.rollout import seeded_noise, whole_clip
from colibri.core.wan.sampler import draw_noise, schedule_for, seeds
from colibri.distill.figures import compare, prompt_accuracy
from colibri.distill.objectives.base import Batch, Role
from colibri.distill.page import read_log, write_page
from colibri.distill.plan import LEVELS, SEEDS
from colibri.distill.roles import computing
from colibri.distill.setup import Setup

SHOWN = 6
"""Frames of a clip in the picture."""
KINDS = {False: "text", True: "image"}

Frames = NDArray[np.uint8]


class Validation:
    """The first rows of the data, of those with a frame where image to video is trained: text to
    video of all, and image to video of those that have a frame."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        encoded, config = setup.encoded, setup.config
        framed = encoded.with_frame if config.p_i2v > 0 else frozenset[str]()
        ordered = sorted(encoded.rows, key=lambda row: row not in framed)
        rows = tuple(ordered[: config.validate_rows])
        with_frame = tuple(row for row in rows if row in framed)
        self._rows = {False: rows} | ({True: with_frame} if with_frame else {})
        """Those of text to video, and of image to video, which come first among them."""
        self._captions = [encoded.caption(row) for row in rows]
        self._folder = config.out / "samples"
        self._teacher = torch.cat([self._reference(given) for given in self._rows])

    @torch.no_grad()
    def run(self, step: int) -> dict[str, float]:
        """Figures by name, alike in every process; the leading one writes `samples/step-NNNNNNNN`
        and its picture."""
        setup = self._setup
        with setup.ema.swapped(setup.roles.trained("student")):
            made = {given: self._clips("student", given) for given in self._rows}
            figures = compare(torch.cat(list(made.values())), self._teacher)
            if len(self._rows[False]) > 1:
                figures["prompt"] = self._prompts(made[False][:, 0])
        if setup.world.leads:
            self._write(step, made)
        return figures

    def page(self) -> Path:
        """Write `index.html` of the run: every validation that is still on disk, newest first."""
        out = self._setup.config.out
        folders = [*sorted(self._folder.glob("step-*[0-9]"), reverse=True)]
        clips = [(f.name, self._videos(f)) for f in folders if f.is_dir()]
        teacher = self._videos(self._folder / "teacher")
        clips.append((f"teacher, {self._setup.config.teacher_steps} steps", teacher))
        write_page(
            out / "index.html",
            title=f"{self._setup.family.name}: {out.name}",
            lines=read_log(out / "log.jsonl"),
            clips=clips,
        )
        return out / "index.html"

    # ---- clips ----

    def _clips(self, role: Role, given: bool) -> Tensor:
        """(R, K, C, T, H, W) latents on the CPU."""
        parts = self._parts(given)
        return torch.stack(
            [
                torch.cat([self._made(role, given, part, seed) for part in parts])
                for seed in range(SEEDS)
            ],
            dim=1,
        )

    def _parts(self, given: bool) -> list[range]:
        """Rows by their place, `config.batch` at once, as a training step has them."""
        count, batch = len(self._rows[given]), self._setup.config.batch
        return [range(first, min(first + batch, count)) for first in range(0, count, batch)]

    def _made(self, role: Role, given: bool, part: range, seed: int) -> Tensor:
        """One clip of each of these rows."""
        setup, config = self._setup, self._setup.config
        batch = self._batch(given, part)
        first = config.seed + seed * len(self._captions) + part.start
        if role == "student" and config.causal_form is not None:
            return self._in_blocks(batch, range(first, first + len(part)))
        schedule, sampler, guidance = self._way(role)
        with setup.roles.playing(role), computing(config.precision, setup.world.device.type):
            return whole_clip(
                setup.roles.network(role),
                batch.text_BLD,
                shape=setup.shape,
                schedule=schedule,
                generator=seeds(first, len(part)),
                sampler=sampler,
                guidance=guidance,
                negative_BLD=batch.null_BLD if guidance != 1 else None,
                first_BCTHW=batch.first_BCTHW if given else None,
            ).cpu()

    def _in_blocks(self, batch: Batch, noise_seeds: range) -> Tensor:
        """A causal student's clips of the teacher's length."""
        setup, config = self._setup, self._setup.config
        blocks = setup.roles.blocks(
            batch.text_BLD,
            shape=setup.shape,
            schedule=setup.schedule,
            noise=seeded_noise(noise_seeds, device=setup.world.device),
            blocks=len(config.causal.blocks(setup.shape.frames)),
        )
        return torch.cat([block.latents_BCTHW for block in blocks], dim=2).cpu()

    def _way(self, role: Role) -> tuple[FlowSchedule, str, float]:
        """Schedule, sampler and standard guidance of student or teacher."""
        setup, config = self._setup, self._setup.config
        if role == "student":
            return setup.schedule, "consistency", 1.0
        default = setup.family.defaults
        schedule = schedule_for(default.sampler, config.teacher_steps, default.shift)
        return schedule, default.sampler, config.guidance.standard(config.guidance.real)

    def _batch(self, given: bool, part: range) -> Batch:
        setup = self._setup
        rows = self._rows[given][part.start : part.stop]
        return setup.encoded.batch(rows, given=(given,) * len(rows), device=setup.world.device)

    def _reference(self, given: bool) -> Tensor:
        """The teacher's clips: made once, then read."""
        setup = self._setup
        path = self._folder / "teacher" / f"{KINDS[given]}.safetensors"
        schedule, sampler, guidance = self._way("teacher")
        recipe = {
            "teacher": setup.teacher_hash,
            "rows": list(self._rows[given]),
            "data": setup.encoded.manifest.data_hash,
            "seed": setup.config.seed,
            "seeds": SEEDS,
            "schedule": schedule.to_json(),
            "sampler": sampler,
            "guidance": guidance,
            "shape": dataclasses.asdict(setup.shape),
        }
        setup.world.wait()
        try:
            held = read_latents(path, vae_hash=setup.vae_hash)
        except UserError:  # none yet, or of another VAE
            held = None
        setup.world.wait()
        if held is not None and held.recipe == recipe:
            return held.latents["clips"]
        made = self._clips("teacher", given)
        if setup.world.leads:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_latents(
                path,
                {"clips": made},
                codec=setup.family.codec,
                vae_hash=setup.vae_hash,
                recipe=recipe,
            )
            self._save_videos(self._folder / "teacher", given, self._decode(made[:, 0]))
        return made

    def _prompts(self, clips_RCTHW: Tensor) -> float:
        """Share of text-to-video clips that their own prompt explains best, by the teacher."""
        setup = self._setup
        parts = self._parts(False)
        count = len(clips_RCTHW)
        errors = torch.zeros(count, count, dtype=torch.float64)
        words_RLD = torch.cat([self._batch(False, part).text_BLD for part in parts])
        for part in parts:
            rows = torch.tensor(part)
            clips = clips_RCTHW[rows].to(setup.world.device)
            noise = draw_noise(
                tuple(clips.shape),
                seeds(setup.config.seed + part.start, len(part)),
                device=clips.device,
            )
            for sigma in LEVELS:
                noisy = add_noise(clips, noise, sigma)
                for turn in range(count):  # clip r with prompt r + turn
                    others = (rows + turn) % count
                    text_BLD = words_RLD[others.to(words_RLD.device)]
                    found = setup.roles.velocity("teacher", noisy, sigma, text_BLD)
                    error = (found - velocity_of(clips, noise)).square().flatten(1).mean(1)
                    errors[rows, others] += error.double().cpu()
        return prompt_accuracy(errors)

    # ---- files ----

    def _write(self, step: int, made: dict[bool, Tensor]) -> None:
        folder = self._folder / f"step-{step:08d}"
        frames = {given: self._decode(clips[:, 0]) for given, clips in made.items()}
        for given, videos in frames.items():
            self._save_videos(folder, given, videos)
        picture = np.concatenate([_strip(video) for kind in frames.values() for video in kind])
        Image.fromarray(picture).save(folder.with_suffix(".png"))

    def _decode(self, latents_RCTHW: Tensor) -> list[Frames]:
        """By the teacher's VAE, part after part: what is held does not grow with the length."""
        setup = self._setup
        vae = wan.load(setup.teacher, parts=("vae",)).vae.to(setup.world.device)
        stats = LatentStats.of(vae.config)
        raw_RCTHW = stats.unnormalise(latents_RCTHW)
        return [
            np.concatenate([to_frames(part)[0] for part in decode_stream(vae, raw)])
            for raw in raw_RCTHW.split(1)
        ]

    def _save_videos(self, folder: Path, given: bool, videos: Sequence[Frames]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fps = Fraction(self._setup.family.defaults.fps)
        for index, frames in enumerate(videos):
            write_video(folder / f"{KINDS[given]}-{index}.mp4", iter(frames), fps=fps)

    def _videos(self, folder: Path) -> list[tuple[str, str]]:
        out = self._setup.config.out
        words = {
            f"{kind}-{index}": f"from {kind}: {caption}"
            for kind in KINDS.values()
            for index, caption in enumerate(self._captions)
        }
        return [
            (path.relative_to(out).as_posix(), words.get(path.stem, path.stem))
            for path in sorted(folder.glob("*.mp4"), reverse=True)
        ]


def _strip(frames: Frames) -> Any:
    chosen = np.linspace(0, len(frames) - 1, min(SHOWN, len(frames))).round().astype(int)
    return np.concatenate(frames[chosen], axis=1)
