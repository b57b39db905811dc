"""`vae train`: a light decoder learns what a frozen Wan VAE decodes.

A step is a pure function of the weights, the seed and its number, and a checkpoint holds all state:
a run that was killed goes on to the same bits (on a CPU with equal threads and processes). Clips
come from `clips.py`, the terms from `losses.py`.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.hashing import hash_file
from colibri.core.progress import Progress
from colibri.core.shards import write_json_whole, write_text_whole, write_whole
from colibri.core.wan.decoder import LatentStats, hash_vae_folder, to_frames
from colibri.core.wan.family import codec_of
from colibri.vae import forms
from colibri.vae.adapter import LightVAE, check_teacher
from colibri.vae.clips import Frames, Sampler, centre_clip, open_source, refusal_log
from colibri.vae.config import TrainConfig
from colibri.vae.light import LightConfig, LightDecoder, flops, light_config, parameter_count
from colibri.vae.load import WEIGHTS, load_decoder, load_teacher, teacher_folder
from colibri.vae.losses import BLOCKS, Student, Target, losses, posterior_kl, weighted
from colibri.vae.lpips import Lpips
from colibri.vae.tiny import tiny_teacher
from colibri.vae.wan import WanCore

log = logging.getLogger(__name__)

FREE = (
    *("out", "plan", "stop_after", "save_every", "log_every", "preview_every", "device"),
    *("teacher", "data_root", "lpips_weights"),
)
"""Settings that may change between a run and its continuation: the teacher may move, its hash may
not."""

KEEP = 2
"""Checkpoints that stay on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What a run left."""

    folder: Path | None
    """The decoder; None where it was stopped before the end."""
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
    accelerator = Accelerator(cpu=config.device == "cpu")
    folder = teacher_folder(config.teacher)
    vae = load_teacher(folder).to(accelerator.device)
    teacher = WanCore(vae.double() if config.precision == "fp64" else vae)
    vae_hash = hash_vae_folder(folder)
    _check_crop(config, teacher)
    lpips = None
    if config.losses.lpips:
        if config.lpips_weights is None:
            log.warning("LPIPS is off: there are no --lpips-weights")
        else:
            lpips = Lpips.load(config.lpips_weights).to(accelerator.device)
    run = _Run(config, accelerator, teacher, lpips, vae_hash)
    if accelerator.is_main_process:
        _claim(config, vae_hash)
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
        decoder = _new_decoder(config, teacher, vae_hash)
        blocks = [teacher.vae.decoder.mid_block, *teacher.vae.decoder.up_blocks][:BLOCKS]
        widths = [_width(block) for block in blocks] if config.losses.features else []
        self.plain = Student(decoder, widths).to(accelerator.device, teacher.vae.dtype)
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
        config.out.mkdir(parents=True, exist_ok=True)
        self.sampler = Sampler(
            open_source(config.clips, config.data_root, "train"),
            frames=config.frames,
            crop=config.crop,
            seed=config.seed,
            refused=refusal_log(config.out / "refused.jsonl"),
        )

    def go(self, after_step: Callable[[int], None] | None) -> Trained:
        """The loop."""
        config, main = self.config, self.accelerator.is_main_process
        progress = Progress("train", config.steps, log=config.out / "progress.jsonl")
        progress.add(self.step)
        last = min(config.steps, config.stop_after or config.steps)
        for step, batches in self._batches(self.step, last):
            facts = self._optimise(step, batches)
            self.step = step + 1
            saving = self.step % config.save_every == 0 or self.step == last
            if main:
                if self.step % config.log_every == 0 or saving:
                    self._record(facts)
                if config.preview_every and self.step % config.preview_every == 0:
                    self._preview()
                if saving:
                    self._save()
                progress.add(1, facts={name: round(value, 4) for name, value in facts.items()})
            if after_step:
                after_step(self.step)
        if main:
            progress.close()
        if self.step < config.steps or not main:
            return Trained(folder=None, step=self.step, sha256=None)
        return self._export()

    def _batches(self, first: int, last: int) -> Iterator[tuple[int, list[Tensor]]]:
        """For each step its clips (B, 3, F, H, W) in [-1, 1]; the next ones are read meanwhile."""
        config, rank = self.config, self.accelerator.process_index
        world = self.accelerator.num_processes

        def ask(step: int) -> list[list[Future[Frames]]]:
            # Numbered over processes and passes, so that a step's clips do not depend on how they
            # are shared out.
            return [
                [
                    pool.submit(
                        self.sampler.draw, step, (turn * world + rank) * config.batch + index
                    )
                    for index in range(config.batch)
                ]
                for turn in range(config.accumulate)
            ]

        with ThreadPoolExecutor(max_workers=4) as pool:
            coming = ask(first) if first < last else []
            for step in range(first, last):
                now = coming
                coming = ask(step + 1) if step + 1 < last else []
                yield step, [_tensor([part.result() for part in turn]) for turn in now]

    def _optimise(self, step: int, batches: list[Tensor]) -> dict[str, float]:
        """One step of the optimiser; mean of every term."""
        config, accelerator = self.config, self.accelerator
        rate = learning_rate(config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums: dict[str, Tensor] = {}
        self.student.train()
        for index, clip in enumerate(batches):
            final = index == len(batches) - 1
            with nullcontext() if final else accelerator.no_sync(self.student):
                latents, target = self._target(clip.to(accelerator.device, self.teacher.vae.dtype))
                with self._autocast():
                    video, projected = self.student(latents)
                terms = losses(video, projected, target, config.losses, self.lpips)
                total = weighted(terms, config.losses)
                accelerator.backward(total / len(batches))
            for name, value in (terms | {"loss": total}).items():
                sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu() / len(batches)
        accelerator.clip_grad_norm_(self.student.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
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

    @torch.no_grad()
    def _target(self, clip: Tensor) -> tuple[Tensor, Target]:
        """Raw latents of a clip, and what the student's answer is compared with."""
        with self._autocast():
            posterior = self.teacher.vae.encode(clip).latent_dist
            latents = posterior.mode()
            features = self.teacher.features(latents, BLOCKS) if self.config.losses.features else []
            whole = self.teacher(latents) if self.config.losses.teacher_output else None
        kl = posterior_kl(posterior.mean, posterior.logvar)
        return latents, Target(clip=clip, features=features, teacher_video=whole, kl=kl)

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
        self.step = state["step"]
        if self.accelerator.is_main_process:
            _cut_log(self.config.out / "metrics.jsonl", self.step)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "student": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
        }
        folder = self.config.out / "checkpoints"
        path = folder / f"step-{self.step:08d}.pt"
        write_whole(path, lambda temporary: torch.save(state, temporary))
        for old in checkpoints(self.config.out)[:-KEEP]:
            old.unlink()

    def _record(self, facts: dict[str, float]) -> None:
        with (self.config.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step} | facts) + "\n")

    @torch.no_grad()
    def _preview(self) -> None:
        """Clip, teacher and averaged light decoder, one above the other."""
        source = open_source(self.config.clips, self.config.data_root, "held-out")
        frames = source.read(0, self.config.frames, 0.0)
        clip = _tensor([centre_clip(frames, self.config.crop)])
        clip = clip.to(self.accelerator.device, self.teacher.vae.dtype)
        latents = self.teacher.vae.encode(clip).latent_dist.mode()
        averaged = LightDecoder(self.plain.decoder.config).to(clip.device, clip.dtype)
        averaged.load_state_dict(self.ema)
        rows = [clip, self.teacher(latents), averaged(latents)]
        picks = np.linspace(0, clip.shape[2] - 1, 5).round().astype(int)
        strips = [np.concatenate(list(to_frames(row)[0][picks]), axis=1) for row in rows]
        picture = Image.fromarray(np.concatenate(strips, axis=0))
        path = self.config.out / "previews" / f"step-{self.step:08d}.png"
        write_whole(path, lambda temporary: picture.save(temporary, format="PNG"))

    def _export(self) -> Trained:
        assert self.config.teacher is not None
        about = {"id": self.config.teacher, "revision": "", "hash": self.vae_hash}
        folder = self.config.out / "decoder"
        sha256 = write_decoder(
            folder,
            self.plain.decoder.config,
            self.ema,
            stats=LatentStats.of(self.teacher.vae.config),
            teacher=about,
            training={"step": self.step, "seed": self.config.seed, "averaged": True},
        )
        return Trained(folder=folder, step=self.step, sha256=sha256)


def write_decoder(
    folder: Path,
    config: LightConfig,
    weights: dict[str, Tensor],
    *,
    stats: LatentStats,
    teacher: dict[str, str],
    training: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> str:
    """A decoder folder, whole or not at all; SHA-256 of its weights file."""
    vae = LightVAE.of(config, stats, teacher=teacher, training=training)
    vae.decoder.load_state_dict(weights)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    vae.decoder.to(dtype)
    vae.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return hash_file(folder / WEIGHTS)


def checkpoints(out: Path) -> list[Path]:
    """Oldest first."""
    return sorted((out / "checkpoints").glob("step-*.pt"))


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine from `lr` to a tenth of it at the last step."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))


def plan(config: TrainConfig) -> str:
    """What a run would cost, in words."""
    config = with_teacher(config)
    assert config.teacher is not None
    table = json.loads((teacher_folder(config.teacher) / "config.json").read_text("utf-8"))
    light = light_config(config.size, table, causal=config.causal)
    height, width = config.crop
    shape = LatentShape.of(
        VideoShape(frames=config.frames, height=height, width=width), light.codec
    )
    count = parameter_count(light)
    clips = config.batch * config.accumulate
    work = 3 * flops(light, shape) * clips
    lines = [
        f"decoder     {config.size}, {'causal' if light.causal else 'non-causal'}, "
        f"{count / 1e6:.2f} M parameters",
        f"clip        {config.frames} frames of {width}x{height}, latents {shape.frames}x"
        f"{shape.height}x{shape.width}",
        f"a step      {clips} clips a device, {work / 1e12:.2f} TFLOP in the light decoder, "
        "forward and backward",
        f"weights     {count * 20 / 1e9:.2f} GB with gradients, AdamW and average, without heads",
        f"run         {config.steps:,} steps, {config.steps * clips:,} clips a device",
    ]
    return "\n".join(lines)


# ---- beginning ----


def with_teacher(config: TrainConfig) -> TrainConfig:
    """`config` with the tiny Wan VAE where it names no teacher."""
    return config if config.teacher else replace(config, teacher=str(tiny_teacher()))


def _new_decoder(config: TrainConfig, teacher: WanCore, vae_hash: str) -> LightDecoder:
    if config.init is None:
        table = dict(teacher.vae.config)
        return LightDecoder(light_config(config.size, table, causal=config.causal))
    start = load_decoder(config.init)
    if not isinstance(start.core, LightDecoder):
        raise UserError(f"--init {config.init} is not one of our light decoders")
    check_teacher(start.teacher, vae_hash, f"--teacher {config.teacher}")
    if start.core.config.causal != config.causal:
        kind = "causal" if start.core.config.causal else "non-causal"
        raise UserError(f"--init {config.init} is {kind}", hint="set --causal to match")
    return start.core.requires_grad_(True).train()


def _width(block: Any) -> int:
    """Output channels of a teacher's block."""
    return int(block.resnets[-1].conv2.weight.shape[0]) if block.resnets else 0


def _check_crop(config: TrainConfig, teacher: WanCore) -> None:
    height, width = config.crop
    LatentShape.of(
        VideoShape(frames=config.frames, height=height, width=width), codec_of(teacher.vae.config)
    )


def _claim(config: TrainConfig, vae_hash: str) -> None:
    """Note the settings in `out`, or check that a run there has the same ones."""
    path = config.out / "run.json"
    table = {key: value for key, value in to_table(config).items() if key not in FREE}
    table = json.loads(json.dumps(table)) | {"teacher_hash": vae_hash}
    if not path.exists():
        write_json_whole(path, table)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(key for key in table if before.get(key) != table[key])
    if changed:
        key = changed[0]
        raise UserError(
            f"{config.out} holds a run with another {key} ({before.get(key)!r}, now "
            f"{table[key]!r})",
            hint="choose another --out, or the same settings to go on",
        )


def _tensor(clips: list[Frames]) -> Tensor:
    """uint8 (F, H, W, 3) each -> (B, 3, F, H, W) in [-1, 1]."""
    unit = torch.from_numpy(np.stack(clips)).float() / 127.5 - 1
    return unit.permute(0, 4, 1, 2, 3).contiguous()


def _cut_log(path: Path, step: int) -> None:
    """Forget what was noted after the checkpoint: those steps run again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line and json.loads(line)["step"] <= step]
        write_text_whole(path, "".join(f"{line}\n" for line in kept))
