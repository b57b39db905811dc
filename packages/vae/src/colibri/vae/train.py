"""`vae train`: a light decoder learns what a frozen Wan VAE decodes.

A step is a pure function of the weights, the seed and its number, and a checkpoint holds all state:
a run that was killed goes on to the same bits (on a CPU with equal threads and processes). Clips
come from `clips.py`, the terms from `losses.py`.
"""

import copy
import importlib.util
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
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
from colibri.vae.bench import counted_flops
from colibri.vae.clips import Frames, Sampler, centre_clip, open_source, refusal_log
from colibri.vae.config import TrainConfig
from colibri.vae.encode import Drawn, LatentCache, MadeLatents
from colibri.vae.gan import PatchJudge, decoder_loss, judge_loss
from colibri.vae.initial import from_teacher
from colibri.vae.light import LightDecoder, flops, light_config, parameter_count
from colibri.vae.load import WEIGHTS, load_decoder, load_teacher, teacher_folder
from colibri.vae.losses import BLOCKS, Student, Target, losses, posterior_kl, weighted
from colibri.vae.lpips import Lpips
from colibri.vae.taehv import PreviewDecoder, save
from colibri.vae.tiny import tiny_teacher
from colibri.vae.wan import WanCore

log = logging.getLogger(__name__)

FREE = (
    *("out", "plan", "stop_after", "save_every", "log_every", "preview_every", "device"),
    *("teacher", "data_root", "lpips_weights", "tracker"),
)
"""Settings that may change between a run and its continuation: the teacher may move, its hash may
not."""

KEEP = 2
"""Checkpoints that stay on disk."""

TEACHER = Path("teacher")
"""The word for --init that stands for the teacher's channels."""


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
    accelerator = _accelerator(config)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """What one pass starts from; latents are un-normalised."""

    clip: Tensor | None = None
    """(B, 3, F, H, W) in [-1, 1]; None where a video model made the latents."""
    latents: Tensor | None = None
    """(B, C, T, H, W); None: the teacher has to encode."""
    kl: Tensor | None = None


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
        source = open_source(config.clips, config.data_root, "train")
        refused = refusal_log(config.out / "refused.jsonl")
        self.sampler = Sampler(
            source, frames=config.frames, crop=config.crop, seed=config.seed, refused=refused
        )
        stats = LatentStats.of(teacher.vae.config)
        self.cache = self.made = None
        if config.latents:
            self.cache = LatentCache(
                *(config.latents, source, stats),
                codec=teacher.codec,
                vae_hash=vae_hash,
                frames=config.frames,
                crop=config.crop,
                seed=config.seed,
                refused=refused,
            )
        if config.made:
            self.made = MadeLatents(
                *(config.made, stats),
                codec=teacher.codec,
                vae_hash=vae_hash,
                shape=_check_crop(config, teacher),
                seed=config.seed,
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
                    self.accelerator.log(facts, step=self.step)
                if config.preview_every and self.step % config.preview_every == 0:
                    self._preview()
                if saving:
                    self._save()
                progress.add(1, facts={name: round(value, 4) for name, value in facts.items()})
            if after_step:
                after_step(self.step)
        if main:
            progress.close()
        self.accelerator.end_training()
        if self.step < config.steps or not main:
            return Trained(folder=None, step=self.step, sha256=None)
        return self._export()

    def _batches(self, first: int, last: int) -> Iterator[tuple[int, list[_Batch]]]:
        """For each step its batches; the next ones are read meanwhile."""
        config, rank = self.config, self.accelerator.process_index
        world = self.accelerator.num_processes

        def ask(step: int) -> list[list[Future[Frames | Drawn | Tensor]]]:
            # Numbered over processes and passes, so that a step's clips do not depend on how they
            # are shared out.
            draw = self._drawer(step)
            return [
                [
                    pool.submit(draw, step, (turn * world + rank) * config.batch + index)
                    for index in range(config.batch)
                ]
                for turn in range(config.accumulate)
            ]

        with ThreadPoolExecutor(max_workers=4) as pool:
            coming = ask(first) if first < last else []
            for step in range(first, last):
                now = coming
                coming = ask(step + 1) if step + 1 < last else []
                yield step, [_batch([part.result() for part in turn]) for turn in now]

    def _drawer(self, step: int) -> Callable[[int, int], Any]:
        """Where the examples of a step come from; all of them from one place, so that it does not
        matter how they are batched."""
        if self.made is not None:
            rng = np.random.default_rng([self.config.seed, step, 0, 1])
            if rng.random() < self.config.made_share:
                return self.made.draw
        return self.sampler.draw if self.cache is None else self.cache.draw

    def _optimise(self, step: int, batches: list[_Batch]) -> dict[str, float]:
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
    def _target(self, batch: _Batch) -> tuple[Tensor, Target]:
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
            _cut_log(self.config.out / "metrics.jsonl", self.step)

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
        averaged = copy.deepcopy(self.plain.decoder)
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
            self.plain.decoder,
            self.ema,
            stats=LatentStats.of(self.teacher.vae.config),
            teacher=about,
            training={"step": self.step, "seed": self.config.seed, "averaged": True},
        )
        return Trained(folder=folder, step=self.step, sha256=sha256)


def write_decoder(
    folder: Path,
    decoder: LightDecoder | PreviewDecoder,
    weights: dict[str, Tensor],
    *,
    stats: LatentStats,
    teacher: dict[str, str],
    training: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> str:
    """A folder of a decoder in the form of `decoder`, whole or not at all; SHA-256 of its weights
    file."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if isinstance(decoder, PreviewDecoder):
        part.mkdir(parents=True)
        preview = copy.deepcopy(decoder)
        preview.load_state_dict(weights)
        save(part, preview.to(dtype), teacher=teacher, training=training)
    else:
        vae = LightVAE.of(decoder.config, stats, teacher=teacher, training=training)
        vae.decoder.load_state_dict(weights)
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
    height, width = config.crop
    codec = codec_of(table)
    shape = LatentShape.of(VideoShape(frames=config.frames, height=height, width=width), codec)
    clips = config.batch * config.accumulate
    if config.kind == "2d":
        with torch.device("meta"):
            preview = PreviewDecoder.sized(config.size, codec, LatentStats.of(table))
        count = sum(parameter.numel() for parameter in preview.parameters())
        forward = counted_flops(preview, shape)
        form = "2d"
    else:
        light = light_config(config.size, table, causal=config.causal)
        count, forward = parameter_count(light), flops(light, shape)
        form = "causal" if light.causal else "non-causal"
    work = 3 * forward * clips
    lines = [
        f"decoder     {config.size}, {form}, {count / 1e6:.2f} M parameters",
        f"clip        {config.frames} frames of {width}x{height}, latents {shape.frames}x"
        f"{shape.height}x{shape.width}",
        f"a step      {clips} clips a device, {work / 1e12:.2f} TFLOP in the decoder, "
        "forward and backward",
        f"weights     {count * 20 / 1e9:.2f} GB with gradients, AdamW and average, without heads",
        f"run         {config.steps:,} steps, {config.steps * clips:,} clips a device",
    ]
    return "\n".join(lines)


# ---- beginning ----


def with_teacher(config: TrainConfig) -> TrainConfig:
    """`config` with the tiny Wan VAE where it names no teacher."""
    return config if config.teacher else replace(config, teacher=str(tiny_teacher()))


def _new_decoder(
    config: TrainConfig, teacher: WanCore, vae_hash: str
) -> LightDecoder | PreviewDecoder:
    stats = LatentStats.of(teacher.vae.config)
    if config.init is None or config.init == TEACHER:
        if config.kind == "2d":
            if config.init:
                raise UserError("a 2d decoder cannot start from the teacher's channels")
            return PreviewDecoder.sized(config.size, teacher.codec, stats)
        table = dict(teacher.vae.config)
        decoder = LightDecoder(light_config(config.size, table, causal=config.causal))
        if config.init:
            from_teacher(decoder, teacher.vae)
        return decoder
    start = load_decoder(config.init)
    check_teacher(start.teacher, vae_hash, f"--teacher {config.teacher}")
    if config.kind == "2d":
        if not isinstance(start.core, PreviewDecoder):
            raise UserError(f"--init {config.init} is no 2d decoder", hint="leave out --kind 2d")
        return start.core.requires_grad_(True).train()
    if not isinstance(start.core, LightDecoder):
        raise UserError(f"--init {config.init} is not one of our light decoders")
    if start.core.config.causal != config.causal:
        kind = "causal" if start.core.config.causal else "non-causal"
        raise UserError(f"--init {config.init} is {kind}", hint="set --causal to match")
    return start.core.requires_grad_(True).train()


def _distils(config: TrainConfig) -> bool:
    """Features of the teacher are compared."""
    return bool(config.losses.features) and config.kind == "light"


def _accelerator(config: TrainConfig) -> Accelerator:
    cpu = config.device == "cpu"
    if config.tracker == "none":
        return Accelerator(cpu=cpu)
    if importlib.util.find_spec(config.tracker) is None:
        raise UserError(
            f"--tracker {config.tracker} needs a package that is not installed",
            hint=f"pip install {config.tracker}",
        )
    accelerator = Accelerator(cpu=cpu, log_with=config.tracker, project_dir=config.out)
    accelerator.init_trackers("vae")
    return accelerator


def _width(block: Any) -> int:
    """Output channels of a teacher's block."""
    return int(block.resnets[-1].conv2.weight.shape[0]) if block.resnets else 0


def _check_crop(config: TrainConfig, teacher: WanCore) -> LatentShape:
    """Latents of a clip; UserError where the crop or length does not fit the codec."""
    height, width = config.crop
    return LatentShape.of(
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


def _batch(parts: list[Frames | Drawn | Tensor]) -> _Batch:
    """Examples of one place together."""
    if all(isinstance(part, Tensor) for part in parts):
        return _Batch(latents=torch.stack([part for part in parts if isinstance(part, Tensor)]))
    drawn = [part for part in parts if isinstance(part, Drawn)]
    if drawn:
        return _Batch(
            clip=_tensor([part.frames for part in drawn]),
            latents=torch.stack([part.latents for part in drawn]),
            kl=torch.tensor([part.kl for part in drawn]).mean(),
        )
    return _Batch(clip=_tensor([part for part in parts if isinstance(part, np.ndarray)]))


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
