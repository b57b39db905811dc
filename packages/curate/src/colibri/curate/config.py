"""What `curate run` can be told. Every default stands here and nowhere else."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

import colibri.curate
from colibri.core.config import Names, to_table
from colibri.curate.frames import FrameConfig
from colibri.curate.sources.base import SourceConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Captioned clips in, training shards out."""

    sources: Names = ("magicmotion", "openvid", "humanvid")
    """Which data sets to read: magicmotion, openvid, humanvid, or module:attribute of your own."""
    data_root: Path | None = None
    """Folder that holds the data sets as they are published. Without it: the embedded sample."""
    out: Path = Path("out/curate")
    """Folder for shards, quarantine, manifest and report. The same folder resumes a run."""
    captioner: Literal["rules"] = "rules"
    """Who rewrites captions. rules: the small embedded engine."""
    judge: Literal["rules"] = "rules"
    """Who scores captions. rules: the small embedded judge."""
    keep: int | None = None
    """How many rows to keep, chosen evenly over strata. Without it: all that pass."""
    min_score: float = 0.5
    """Rows that the judge scores lower, in [0, 1], are rejected."""
    seed: int = 0
    """Decides ties in the selection and the held-out split."""
    heldout: float = 0.02
    """Share of source videos, in [0, 1], whose rows are marked split=heldout."""
    group_cap: int | None = None
    """Most rows kept from one source video. Without it: no cap."""
    near_duplicate: float = 0.8
    """Captions this similar (Jaccard over word shingles, MinHash) count as one. 1 turns it off."""
    licence_policy: Literal["warn", "exclude"] = "warn"
    """What to do with sources whose licence does not clearly allow training."""
    frame: FrameConfig = field(default_factory=FrameConfig)
    magicmotion: SourceConfig = field(default_factory=SourceConfig)
    openvid: SourceConfig = field(default_factory=SourceConfig)
    humanvid: SourceConfig = field(default_factory=SourceConfig)
    shard_rows: int = 1000
    """Rows in one output shard."""
    batch_rows: int = 32
    """Rows a worker does before it commits them; at most this many are done again after a kill."""
    ray_address: str | None = None
    """A running Ray cluster. Without it: Ray on this machine for the time of the run."""
    cpus: int | None = None
    """Cores for a local Ray. Without it: all."""
    plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print what would be done and stop."""
    report: bool = True
    """Write report/index.html at the end."""


def row_settings(config: RunConfig) -> dict[str, object]:
    """The settings on which one row's frame, caption and verdict depend."""
    table = to_table(config)
    return {name: table[name] for name in ("captioner", "judge", "frame")} | {
        "version": colibri.curate.__version__
    }


def recorded_settings(config: RunConfig) -> dict[str, object]:
    """The settings that the manifest names: what decides the shards, no paths of this machine."""
    table = to_table(config)
    for machine in ("data_root", "out", "ray_address", "cpus", "batch_rows", "plan", "report"):
        del table[machine]
    for source in ("magicmotion", "openvid", "humanvid"):
        captions = table[source].get("captions")
        if captions:
            table[source]["captions"] = Path(captions).name
    return table
