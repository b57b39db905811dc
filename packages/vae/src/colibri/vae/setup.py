"""How a training begins: its teacher, its decoder, its processes, its claim on a folder."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.shards import write_json_whole
from colibri.core.wan.decoder import LatentStats
from colibri.core.wan.family import codec_of
from colibri.vae.adapter import check_teacher
from colibri.vae.config import TrainConfig
from colibri.vae.initial import from_teacher
from colibri.vae.light import LightDecoder, light_config
from colibri.vae.load import EMBEDDED, load_decoder
from colibri.vae.taehv import PreviewDecoder
from colibri.vae.wan import WanCore

FREE = (
    *("out", "plan", "stop_after", "save_every", "log_every", "preview_every", "device"),
    *("teacher", "data_root", "lpips_weights", "tracker"),
)
"""Settings that may change between a run and its continuation: the teacher may move, its hash may
not."""

TEACHER = Path("teacher")
"""The word for --init that stands for the teacher's channels."""


def with_teacher(config: TrainConfig) -> TrainConfig:
    """`config` with the tiny Wan VAE where it names no teacher."""
    return config if config.teacher else replace(config, teacher=EMBEDDED)


def new_decoder(
    config: TrainConfig, teacher: WanCore, vae_hash: str
) -> LightDecoder | PreviewDecoder:
    """What is trained, before its first step. UserError where --init does not fit the rest."""
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
    start, named = read_start(config)
    check_teacher(named, vae_hash, f"--teacher {config.teacher}")
    return start.requires_grad_(True).train()


def read_start(config: TrainConfig) -> tuple[LightDecoder | PreviewDecoder, Mapping[str, str]]:
    """The decoder of --init DIR and the teacher that it names. UserError where it is not of the
    kind that is trained."""
    assert config.init is not None
    start = load_decoder(config.init)
    if config.kind == "2d":
        if not isinstance(start.core, PreviewDecoder):
            raise UserError(f"--init {config.init} is no 2d decoder", hint="leave out --kind 2d")
        return start.core, start.teacher
    if not isinstance(start.core, LightDecoder):
        raise UserError(f"--init {config.init} is not one of our light decoders")
    if start.core.config.causal != config.causal:
        kind = "causal" if start.core.config.causal else "non-causal"
        raise UserError(f"--init {config.init} is {kind}", hint="set --causal to match")
    return start.core, start.teacher


def start_accelerator(config: TrainConfig) -> Accelerator:
    """Processes and tracker. UserError for a tracker that is not installed."""
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


def clip_shape(config: TrainConfig, teacher: WanCore) -> LatentShape:
    """Latents of a clip; UserError where the crop or length does not fit the codec."""
    height, width = config.crop
    return LatentShape.of(
        VideoShape(frames=config.frames, height=height, width=width), codec_of(teacher.vae.config)
    )


def claim_folder(config: TrainConfig, vae_hash: str) -> None:
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
