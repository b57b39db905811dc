"""Files of the teacher's guided paths: noise in, clip out, with the states at the student's levels.

The paths are those of the core's Euler sampler on a grid that has the student's levels in it: the
labels' shift and the inputs' are one. Stopped at any moment, the same command goes on to the same
bytes.
"""

# B batch  K levels and the end  C channels  T latent frames  H W latent rows, columns

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape
from colibri.core.hashing import hash_file, hash_json, hash_text
from colibri.core.latents import check_safetensors, write_latents
from colibri.core.schedule import FlowSchedule
from colibri.core.shards import chunked, write_json_whole, write_text_whole
from colibri.core.wan.sampler import Predict, Step, draw_noise, euler, guided
from colibri.core.wan.transformer import velocity
from colibri.distill.config import TrainConfig
from colibri.distill.encodings import written_as
from colibri.distill.objectives.base import generator_of
from colibri.distill.objectives.regress import path_levels
from colibri.distill.parallel import World
from colibri.distill.short_text import ShortText

if TYPE_CHECKING:
    from colibri.distill.data import Encoded

log = logging.getLogger(__name__)

FORMAT = "colibri-pairs/1"
MANIFEST = "manifest.json"
KINDS = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """A finished folder of paths."""

    folder: Path
    hash: str
    """Of everything that decided the paths."""
    shard_of: dict[str, str]
    """The file of each row."""
    made: int = 0
    """Files written now; the others were found."""


def pairs_folder(config: TrainConfig) -> Path:
    """Where the run's paths are, or will be."""
    return config.pairs.folder or config.out / "pairs"


def make_pairs(
    config: TrainConfig,
    encoded: "Encoded",
    *,
    teacher: Path,
    shape: LatentShape,
    world: World,
    on_hash: Callable[[str], object] | None = None,
    on_shard: Callable[[int, int], object] | None = None,
) -> Pairs:
    """Sample the paths of the first `config.pairs.rows` rows that are not there yet.

    `on_hash(hash of all paths)` may refuse before any is made. Files are split over the processes;
    `on_shard(files done, files of them found)` hears each. A row's path depends on its prompt, the
    seed and the teacher alone. UserError for more rows than are encoded.
    """
    settings = config.pairs
    if settings.rows < 1:
        raise UserError("there are no rows to make paths of", hint="pass --pairs.rows N")
    if settings.rows > len(encoded.rows):
        raise UserError(
            f"--pairs.rows {settings.rows}, but {encoded.folder} has {len(encoded.rows)} rows"
        )
    rows = encoded.rows[: settings.rows]
    keys = _row_keys(encoded, rows)
    folder = pairs_folder(config)
    recipe = _recipe(config, encoded, teacher, shape)
    paths_hash = hash_json([recipe, keys])
    if on_hash:
        on_hash(paths_hash)
    family, _ = wan.describe(teacher)
    network: _Network | None = None
    shards = list(enumerate(chunked(rows, settings.shard_rows)))
    made = 0
    for done, (index, names) in enumerate(shards[world.rank :: world.size], start=1):
        path = folder / f"{index:05d}.safetensors"
        wanted = recipe | {"keys": {row: keys[row] for row in names}}
        about = written_as(path)
        if about is None or about.get("recipe") != wanted:
            if network is None:
                network = _Network.of(config, teacher, world)
            paths: dict[str, Tensor] = {}
            for some in chunked(names, settings.batch):
                paths |= _paths(config, encoded, network, some, world)
            vae_hash = encoded.manifest.vae_hash
            write_latents(path, paths, codec=family.codec, vae_hash=vae_hash, recipe=wanted)
            made += 1
        if on_shard:
            on_shard(done, done - made)
    world.wait()
    shard_of = {row: f"{index:05d}.safetensors" for index, names in shards for row in names}
    found = Pairs(
        folder=folder,
        hash=paths_hash,
        shard_of=shard_of,
        made=made,
    )
    if world.leads:
        about = {"format": FORMAT, "hash": found.hash, "recipe": recipe, "rows": shard_of}
        write_json_whole(folder / MANIFEST, about)
        write_text_whole(folder / ".gitignore", "*\n")
    return found


def known_hash(config: TrainConfig) -> str | None:
    """The hash of the run's paths, where they are finished."""
    path = pairs_folder(config) / MANIFEST
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(about.get("hash")) if isinstance(about, dict) else None


def grid(config: TrainConfig) -> tuple[FlowSchedule, list[int]]:
    """The teacher's levels, from 1 to 0 with the student's among them, and where those stand."""
    sigmas, places = path_levels(config.schedule.build().sigmas, config.regress.steps)
    return FlowSchedule.explicit(sigmas, shift=config.schedule.shift), places


@torch.no_grad()
def _paths(
    config: TrainConfig,
    encoded: "Encoded",
    network: "_Network",
    rows: Sequence[str],
    world: World,
) -> dict[str, Tensor]:
    """(K, C, T, H, W) of each row: the states at the student's levels, then the end."""
    batch = encoded.batch(tuple(rows), given=(False,) * len(rows), device=world.device)
    schedule, places = grid(config)
    weight = config.guidance.standard(config.guidance.real)
    generators = [generator_of(config.seed, "path", row) for row in rows]
    states = [draw_noise(batch.size, generators, device=world.device)]

    def keep(step: Step) -> None:
        states.append(step.x_BCTHW)

    end = euler(
        guided(
            _predict(network, batch.text_BLD),
            _predict(network, batch.null_BLD) if weight != 1 else None,
            weight,
        ),
        states[0],
        schedule,
        on_step=keep,
    )
    kept = torch.stack([*(states[place] for place in places), end], dim=1)
    kept = kept.to(KINDS[config.pairs.store]).cpu()
    return {row: kept[index].clone() for index, row in enumerate(rows)}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Network:
    """The teacher's transformer, with its prompts' padding counted as one token where asked."""

    transformer: Any
    short: ShortText | None

    @classmethod
    def of(cls, config: TrainConfig, teacher: Path, world: World) -> "_Network":
        dtype: wan.DType = "bfloat16" if config.precision == "bf16" else "float32"
        model = wan.load(teacher, parts=("transformer",), dtype=dtype, device=str(world.device))
        short = ShortText(model.transformer) if config.short_text else None
        return cls(transformer=model.transformer, short=short)


def _predict(network: _Network, text_BLD: Tensor) -> Predict:
    def ask(x_BCTHW: Tensor, sigma: float, timestep: float) -> Tensor:
        short = network.short.of(text_BLD) if network.short else nullcontext(text_BLD)
        with short as words_BLD:
            return velocity(network.transformer, x_BCTHW, sigma, words_BLD, timestep=timestep)

    return ask


def _recipe(
    config: TrainConfig, encoded: "Encoded", teacher: Path, shape: LatentShape
) -> dict[str, Any]:
    schedule, places = grid(config)
    return {
        "teacher": hash_transformer(teacher),
        "precision": config.precision,
        "short_text": config.short_text,
        "negative": hash_text(encoded.manifest.text_hash, encoded.manifest.negative_prompt),
        "schedule": schedule.to_json(),
        "levels": places,
        "guidance": config.guidance.standard(config.guidance.real),
        "seed": config.seed,
        "store": config.pairs.store,
        "shape": [shape.channels, shape.frames, shape.height, shape.width],
    }


def hash_transformer(folder: Path) -> str:
    """SHA-256 over the files of a model's transformer."""
    files = wan.part_files(folder, "transformer")
    return hash_text(*(f"{path.name} {hash_file(path)}" for path in files))


def _row_keys(encoded: "Encoded", rows: Sequence[str]) -> dict[str, str]:
    """Hash of what each row's prompt is, and of what encoded it."""
    wanted = set(rows)
    keys: dict[str, str] = {}
    for shard in encoded.manifest.shards:
        if not wanted.intersection(shard.rows):
            continue
        path = encoded.folder / "text" / shard.name
        about = written_as(path)
        if about is None:
            check_safetensors(path)
            raise UserError(f"{path} does not say what it holds", hint="run distill encode again")
        keys |= {
            row: hash_text(str(about["encoder"]), str(about["keys"][row]))
            for row in shard.rows
            if row in wanted
        }
    return keys
