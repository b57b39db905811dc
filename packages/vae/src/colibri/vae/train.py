"""`vae train`: a light decoder learns what a frozen Wan VAE decodes.

A step is a pure function of the weights, the seed and its number, and a checkpoint holds all state:
a run that was killed goes on to the same bits (on a CPU with equal threads and processes). Clips
come from `batches.py`, the terms from `losses.py`.
"""

import copy
import json
import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from colibri.core.errors import RowError, UserError
from colibri.core.progress import Progress
from colibri.core.shards import write_whole
from colibri.core.wan.decoder import LatentStats, hash_vae_folder, to_frames
from colibri.vae import forms
from colibri.vae.batches import Batch, Examples, to_tensor
from colibri.vae.clips import DRAWS, Frames, centre_clip, open_source
from colibri.vae.config import TrainConfig
from colibri.vae.gan import PatchJudge, decoder_loss, judge_loss
from colibri.vae.initial import upsampler_of
from colibri.vae.light import LightDecoder
from colibri.vae.load import load_teacher, teacher_folder
from colibri.vae.losses import BLOCKS, Student, Target, losses, posterior_kl, weighted
from colibri.vae.lpips import Lpips
from colibri.vae.setup import claim_folder, clip_shape, new_decoder, start_accelerator, with_teacher
from colibri.vae.wan import WanCore
from colibri.vae.written import checkpoints, cut_log, save_checkpoint, write_decoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a run left."""

    folder: Path | None
    """The decoder; None where it was stopped before the end, or another process wrote it."""
    step: int
    sha256: str | None
    """Of the decoder's weights file."""


def train(config: TrainConfig, *, after_step: Callable[[int], None] | None = None) -> Trained:
    """Train, or go on where a run in `config.out` was stopped. UserError for other settings there.

    `after_step` is called with the number of steps done, after the checkpoint of that step.
    """
    config = with_teacher(config)
    assert config.teacher is not None
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = start_accelerator(config)
    folder = teacher_folder(config.teacher)
    vae = load_teacher(folder).to(accelerator.device)
    teacher = WanCore(vae.double() if config.precision == "fp64" else vae)
    vae_hash = hash_vae_folder(folder)
    clip_shape(config, teacher)
    lpips = None
    if config.losses.lpips:
        if config.lpips_weights is None:
            log.warning("LPIPS is off: there are no --lpips-weights")
        else:
            lpips = Lpips.load(config.lpips_weights).to(accelerator.device, teacher.vae.dtype)
    run = _Run(config, accelerator, teacher, lpips, vae_hash)
    if accelerator.is_main_process:
        claim_folder(config, vae_hash)
    accelerator.wait_for_everyone()
    run.resume()
    return run.go(after_step)


class _Run:
    """One training: weights, optimiser, average, and the step they stand at."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        teacher: WanCore,
        lpips: Lpips | None,
        vae_hash: str,
    ) -> None:
        self.config, self.accelerator = config, accelerator
        self.teacher, self.lpips, self.vae_hash = teacher, lpips, vae_hash
        self.step = 0
        torch.manual_seed(config.seed)
        decoder = new_decoder(config, teacher, vae_hash)
        blocks = [teacher.vae.decoder.mid_block, *teacher.vae.decoder.up_blocks][:BLOCKS]
        widths = [_width(block) for block in blocks] if _distils(config) else []
        if config.losses.features and not widths:
            log.warning("feature distillation is off: a 2d decoder has other grids")
        self.plain = Student(decoder, widths).to(accelerator.device, teacher.vae.dtype)
        if isinstance(decoder, LightDecoder):
            forms.apply(decoder, forms.usual(decoder, accelerator.device.type))
        self.ema = {
            name: value.detach().clone() for name, value in self.plain.decoder.state_dict().items()
        }
        optimizer = torch.optim.AdamW(
            self.plain.parameters(),
            lr=config.lr,
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
        )
        self.student, self.optimizer = accelerator.prepare(self.plain, optimizer)
        self.plain_judge: PatchJudge | None = None
        if config.losses.gan:
            self.plain_judge = PatchJudge().to(accelerator.device, teacher.vae.dtype)
            against = torch.optim.AdamW(
                self.plain_judge.parameters(), lr=config.lr, betas=(0.5, 0.95), weight_decay=0.0
            )
            self.judge, self.judge_optimizer = accelerator.prepare(self.plain_judge, against)
        config.out.mkdir(parents=True, exist_ok=True)
        self.examples = Examples(config, teacher, vae_hash)

    def go(self, after_step: Callable[[int], None] | None) -> Trained:
        """The loop."""
        config, main = self.config, self.accelerator.is_main_process
        progress = Progress("train", config.steps, log=config.out / "progress.jsonl")
        progress.add(self.step)
        told = 0  # refused clips that the progress has counted
        last = min(config.steps, config.stop_after or config.steps)
        for step, batches in self.examples.steps(
            self.step,
            last,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        ):
            facts = self._optimise(step, batches)
            self.step = step + 1
            saving = self.step % config.save_every == 0 or self.step == last
            if main:
                if self.step % config.log_every == 0 or saving:
                    self._record(facts)
                    self.accelerator.log(facts, step=self.step)
                if saving:
                    self._save()
                if config.preview_every and self.step % config.preview_every == 0:
                    self._preview()
                refused = len(self.examples.refused.reasons)
                progress.add(
                    1,
                    refused=refused - told,
                    facts={name: round(value, 4) for name, value in facts.items()},
                )
                told = refused
            if after_step:
                after_step(self.step)
        if main:
            progress.close()
        self.accelerator.end_training()
        if self.step < config.steps or not main:
            return Trained(folder=None, step=self.step, sha256=None)
        return self._export()

    def _optimise(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """One step of the optimiser; mean of every term."""
        config, accelerator = self.config, self.accelerator
        rate = learning_rate(config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums: dict[str, Tensor] = {}
        judged = None
        if self.plain_judge is not None and step >= config.gan_from:
            judged = partial(decoder_loss, self.plain_judge)
            for group in self.judge_optimizer.param_groups:
                group["lr"] = rate
        self.student.train()
        for index, batch in enumerate(batches):
            final = index == len(batches) - 1
            with nullcontext() if final else accelerator.no_sync(self.student):
                latents, target = self._target(batch)
                with self._autocast():
                    video, projected = self.student(latents)
                terms = losses(video, projected, target, config.losses, self.lpips, judged)
                total = weighted(terms, config.losses)
                accelerator.backward(total / len(batches))
            if judged is not None:
                with nullcontext() if final else accelerator.no_sync(self.judge):
                    theirs = self._judge(target.clip, video.detach())
                    accelerator.backward(theirs / len(batches))
                terms["judge"] = theirs
            for name, value in (terms | {"loss": total}).items():
                sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu() / len(batches)
        accelerator.clip_grad_norm_(self.student.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if judged is not None:
            self.judge_optimizer.step()
            self.judge_optimizer.zero_grad(set_to_none=True)
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in self.plain.decoder.state_dict().items():
                self.ema[name].lerp_(value, 1 - decay)
        facts = {name: float(value) for name, value in sums.items()}
        if not math.isfinite(facts["loss"]):
            raise UserError(
                f"the loss is {facts['loss']} at step {step}",
                hint="lower --lr, or start again from an older checkpoint",
            )
        return facts

    def _judge(self, clip: Tensor, video: Tensor) -> Tensor:
        """The judge's loss: one call for both, as DistributedDataParallel wants it."""
        both = self.judge(torch.cat([clip.to(video.dtype), video]).to(clip.dtype))
        return judge_loss(*both.chunk(2))

    @torch.no_grad()
    def _target(self, batch: Batch) -> tuple[Tensor, Target]:
        """Raw latents of a batch, and what the student's answer is compared with."""
        config, kl = self.config, self._here(batch.kl)
        latents, clip = self._here(batch.latents), self._here(batch.clip)
        with self._autocast():
            if latents is None:
                assert clip is not None
                posterior = self.teacher.vae.encode(clip).latent_dist
                latents = posterior.mode()
                kl = posterior_kl(posterior.mean, posterior.logvar)
            features = self.teacher.features(latents, BLOCKS) if _distils(config) else []
            whole = None
            if config.losses.teacher_output or clip is None:
                whole = self.teacher(latents)
        if clip is None:
            assert whole is not None
            clip = whole.to(latents.dtype).clamp(-1, 1)
        return latents, Target(clip=clip, features=features, teacher_video=whole, kl=kl)

    def _here(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return tensor.to(self.accelerator.device, self.teacher.vae.dtype)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.accelerator.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        )

    # ---- what is written ----

    def resume(self) -> None:
        """Take up the newest checkpoint, where there is one."""
        found = checkpoints(self.config.out)
        if not found:
            return
        state = torch.load(found[-1], map_location=self.accelerator.device, weights_only=True)
        self.plain.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = state["ema"]
        if self.plain_judge is not None:
            self.plain_judge.load_state_dict(state["judge"])
            self.judge_optimizer.load_state_dict(state["judge_optimizer"])
        self.step = state["step"]
        if self.accelerator.is_main_process:
            cut_log(self.config.out / "metrics.jsonl", self.step)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "student": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
        }
        if self.plain_judge is not None:
            state["judge"] = self.plain_judge.state_dict()
            state["judge_optimizer"] = self.judge_optimizer.state_dict()
        save_checkpoint(self.config.out, state)

    def _record(self, facts: dict[str, float]) -> None:
        with (self.config.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step} | facts) + "\n")

    @torch.no_grad()
    def _preview(self) -> None:
        """Clip, teacher and averaged light decoder, one above the other."""
        frames = self._held_out()
        if frames is None:
            return
        clip = to_tensor([centre_clip(frames, self.config.crop)])
        clip = clip.to(self.accelerator.device, self.teacher.vae.dtype)
        latents = self.teacher.vae.encode(clip).latent_dist.mode()
        averaged = copy.deepcopy(self.plain.decoder)
        averaged.load_state_dict(self.ema)
        rows = [clip, self.teacher(latents), averaged(latents)]
        picks = np.linspace(0, clip.shape[2] - 1, 5).round().astype(int)
        strips = [np.concatenate(list(to_frames(row)[0][picks]), axis=1) for row in rows]
        picture = Image.fromarray(np.concatenate(strips, axis=0))
        path = self.config.out / "previews" / f"step-{self.step:08d}.png"
        write_whole(path, lambda temporary: picture.save(temporary, format="PNG"))

    def _held_out(self) -> Frames | None:
        """The first held-out clip that can be used; None, and a line about it, without one."""
        source = open_source(self.config.clips, self.config.data_root, "held-out")
        tried = min(len(source), DRAWS)
        for index in range(tried):
            try:
                return source.read(index, self.config.frames, 0.0)
            except RowError as error:
                self.examples.refused(source.name(index), error)
        log.warning("no picture: none of %d held-out clips can be used", tried)
        return None

    def _export(self) -> Trained:
        assert self.config.teacher is not None
        about = {"id": self.config.teacher, "revision": "", "hash": self.vae_hash}
        folder = self.config.out / "decoder"
        sha256 = write_decoder(
            folder,
            self.plain.decoder,
            self.ema,
            stats=LatentStats.of(self.teacher.vae.config),
            teacher=about,
            training={"step": self.step, "seed": self.config.seed, "averaged": True},
        )
        return Trained(folder=folder, step=self.step, sha256=sha256)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine from `lr` to a tenth of it at the last step."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))


def _distils(config: TrainConfig) -> bool:
    """Features of the teacher are compared."""
    return bool(config.losses.features) and config.kind == "light"


def _width(block: Any) -> int:
    """Output channels of a teacher's block."""
    upsampler = upsampler_of(block)
    last = block.resnets[-1].conv2 if upsampler is None else upsampler.resample[1]
    return int(last.out_channels)
