"""What `curate run` can be told. Every default stands here and nowhere else."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

import colibri.curate
from colibri.core.config import Names, to_table
from colibri.core.errors import UserError
from colibri.curate.frames import FrameConfig
from colibri.curate.llm.engines import Engine, EngineConfig
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
    captioner: Engine = "rules"
    """Who rewrites captions. rules: the small embedded engine; the others: a language model, in
    vLLM on this machine or cluster, behind a chat endpoint, or in transformers."""
    model: str = "Qwen/Qwen2.5-14B-Instruct"
    """The language model that rewrites captions: a hub id or a folder."""
    judge: Engine = "rules"
    """Who scores captions. rules: the small embedded judge; the others: a language model."""
    judge_model: str = "Qwen/Qwen2.5-72B-Instruct"
    """The language model that judges."""
    second_judge: Engine = "rules"
    """Another model that judges the checked sample as well. rules: none."""
    second_judge_model: str = "mistralai/Mistral-Small-3.2-24B-Instruct-2506"
    """The second judge, best of another family than the first."""
    describer: Engine = "rules"
    """Who describes clips that have no caption, from their first frame, as a vision-language model.
    rules: nobody; such rows go to quarantine."""
    describer_model: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """The vision-language model."""
    llm: EngineConfig = field(default_factory=EngineConfig)
    judge_llm: EngineConfig = field(default_factory=lambda: EngineConfig(max_tokens=640))
    second_judge_llm: EngineConfig = field(default_factory=lambda: EngineConfig(max_tokens=640))
    describer_llm: EngineConfig = field(default_factory=EngineConfig)
    judge_check: float = 0.02
    """Share of rows, in [0, 1], that a model judges again with the captions in the other order."""
    request_cache: Path | None = None
    """Answers of language models by request. Without it: OUT/state/requests.sqlite."""
    from_cache: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start no model: every answer has to be in the request cache."""
    stop_after: Literal["frames", "describe", "recaption"] | None = None
    """End after this phase; the same command without it goes on. For phases on other machines."""
    keep: int | None = None
    """How many rows to keep, chosen evenly over strata. Without it: all that pass."""
    min_score: float = 0.5
    """Rows that the judge scores lower, in [0, 1], are rejected."""
    seed: int = 0
    """Decides ties in the selection, the held-out split and the checked sample, and goes into every
    request to a language model: another seed asks all of them anew."""
    heldout: float = 0.02
    """Share of source videos, in [0, 1], whose rows are marked held-out."""
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

    def __post_init__(self) -> None:
        counts = {
            "--keep": self.keep,
            "--group-cap": self.group_cap,
            "--shard-rows": self.shard_rows,
            "--batch-rows": self.batch_rows,
            "--cpus": self.cpus,
        }
        for flag, count in counts.items():
            if count is not None and count < 1:
                raise UserError(f"{flag} has to be at least 1, not {count}")
        shares = {
            "--judge-check": self.judge_check,
            "--min-score": self.min_score,
            "--heldout": self.heldout,
            "--near-duplicate": self.near_duplicate,
        }
        for flag, share in shares.items():
            if not 0 <= share <= 1:
                raise UserError(f"{flag} has to be in [0, 1], not {share}")


def row_settings(config: RunConfig) -> dict[str, object]:
    """The settings on which one row's frame, caption and verdict depend."""
    table = to_table(config)
    fused = {name: table[name] for name in FUSED[: fused_stages(config)]}
    return fused | {
        "frame": table["frame"],
        "missing": config.describer != "rules",
        "version": colibri.curate.__version__,
    }


FUSED = ("captioner", "judge")


def fused_stages(config: RunConfig) -> int:
    """How many of recaption and judge are done in the pass that reads the frames.

    The embedded engines are; a language model, and whatever comes after it, has a phase of its own.
    """
    if config.describer != "rules" or config.captioner != "rules":
        return 0
    return 1 if config.judge != "rules" else 2


MACHINE = (
    *("data_root", "out", "ray_address", "cpus", "batch_rows", "plan", "report"),
    *("request_cache", "from_cache", "stop_after"),
)
"""Settings of this machine and call; no shard depends on them."""

MACHINE_OF_ENGINE = (
    *("endpoint", "in_flight", "timeout_s", "give_up_s", "through", "replicas", "tensor_parallel"),
    *("gpu_memory_utilization", "eager", "batch_size"),
)


def recorded_settings(config: RunConfig) -> dict[str, object]:
    """The settings that the manifest names: what decides the shards, no paths of this machine."""
    table = to_table(config)
    for machine in MACHINE:
        del table[machine]
    for engine in ("llm", "judge_llm", "second_judge_llm", "describer_llm"):
        for machine in MACHINE_OF_ENGINE:
            del table[engine][machine]
    for source in ("magicmotion", "openvid", "humanvid"):
        captions = table[source].get("captions")
        if captions:
            table[source]["captions"] = Path(captions).name
    return table
