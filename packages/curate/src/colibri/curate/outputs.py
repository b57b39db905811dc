"""From committed rows to the data set: selection, shards, counts, card, manifest.

Everything here follows from the rows alone, in the order of their ids.
"""

import itertools
import json
import platform
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa

from colibri.core.hashing import hash_json, hash_text
from colibri.core.shards import (
    QUARANTINE_SCHEMA,
    REJECTED_SCHEMA,
    SHARD_SCHEMA,
    ShardFile,
    write_json_whole,
    write_shard,
    write_text_whole,
)
from colibri.curate import stages
from colibri.curate.card import data_card
from colibri.curate.config import RunConfig, recorded_settings
from colibri.curate.ingest import Ingested
from colibri.curate.llm.engines import reproducibility
from colibri.curate.llm.phases import model_of
from colibri.curate.select import Candidate, Selection, select
from colibri.curate.store import WrittenShards

Rows = Callable[[Sequence[str] | None], Iterator[dict[str, Any]]]
"""All finished rows by rising id, with the named columns or all."""


def write_outputs(
    config: RunConfig,
    ingested: Ingested,
    rows: Rows,
    *,
    identity: str,
    state: Path,
    judge_checks: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Select, write shards, card and manifest; the manifest last.

    `identity` names the rows: shards of another identity are written anew.
    """
    selection = select(
        _candidates(config, rows),
        keep=config.keep,
        seed=config.seed,
        group_cap=config.group_cap,
        near_duplicate=config.near_duplicate if config.near_duplicate < 1 else None,
    )
    fate = partial(_fate, config=config, selection=selection)
    counts = _Counts(ingested.by_source)
    identity = hash_json(
        {"settings": recorded_settings(config), "rows": identity} | {"kept": selection.digest()}
    )
    written = WrittenShards(state / "shards.jsonl", selection=identity)

    plans = (
        ("data", SHARD_SCHEMA, _kept_rows),
        ("rejected", REJECTED_SCHEMA, _rejected_rows),
        ("quarantine", QUARANTINE_SCHEMA, _quarantined_rows),
    )
    files: dict[str, list[ShardFile]] = {}
    for name, schema, choose in plans:
        chosen = choose(rows(None), fate, counts, config)
        files[name] = _write_shards(config, name, schema, chosen, written)
    _remove_strays(config.out, files)

    manifest = {
        "format": 1,
        "made_by": versions(),
        "config": recorded_settings(config),
        "inputs": ingested.inputs,
        **engines(config),
        "judge_checks": judge_checks,
        "counts": counts.table(),
        "shards": [_entry(shard) for shard in files["data"]],
        "rejected": [_entry(shard) for shard in files["rejected"]],
        "quarantine": [_entry(shard) for shard in files["quarantine"]],
        "facts": list(ingested.facts),
        "alarms": list(selection.alarms),
    }
    write_text_whole(config.out / "README.md", data_card(manifest))
    write_json_whole(config.out / "manifest.json", manifest)
    return manifest


def _candidates(config: RunConfig, rows: Rows) -> Iterator[Candidate]:
    for row in rows(("source", "group", "caption", "score", "labels", "reason")):
        if row["reason"] is None and row["score"] >= config.min_score:
            labels = json.loads(row["labels"])
            motion = labels.get("motion score")
            yield Candidate(
                id=row["id"],
                source=row["source"],
                group=row["group"],
                caption=row["caption"],
                score=row["score"],
                motion=float(motion) if isinstance(motion, int | float) else None,
                words=len(row["caption"].split()),
                people=count_people(row["caption"]),
            )


def count_people(caption: str) -> int:
    """People named in a caption: 0, 1 or 2 for several; a rough stratum, not a count of heads."""
    from colibri.core.captions.language import tokenize

    singular = {"man", "woman", "boy", "girl", "person", "child", "player", "dancer", "worker"}
    several = {"people", "crowd", "couple", "group", "men", "women", "children", "boys", "girls"}
    words = [token.lower for token in tokenize(caption)]
    if any(word in several for word in words):
        return 2
    return min(2, sum(word in singular for word in words))


def _fate(
    row: Mapping[str, Any], *, config: RunConfig, selection: Selection
) -> tuple[str, str | None]:
    """Where a row goes, and the reason."""
    reason = row["reason"]
    if reason is not None:
        return ("rejected" if reason in stages.REJECTIONS else "quarantine"), reason
    if row["score"] < config.min_score:
        return "rejected", "below_score"
    rejected = selection.reason_of(row["id"])
    return ("data", None) if rejected is None else ("rejected", rejected)


def _kept_rows(
    rows: Iterable[dict[str, Any]], fate: Any, counts: "_Counts", config: RunConfig
) -> Iterator[dict[str, Any]]:
    for row in rows:
        if fate(row)[0] == "data":
            counts.add(row["source"], "kept", None)
            split = split_of(row["group"], config.seed, config.heldout)
            yield row | {"split": split, "provenance": provenance(row, config)}


def _rejected_rows(
    rows: Iterable[dict[str, Any]], fate: Any, counts: "_Counts", config: RunConfig
) -> Iterator[dict[str, Any]]:
    for row in rows:
        where, reason = fate(row)
        if where == "rejected":
            counts.add(row["source"], "rejected", reason)
            yield row | {"reason": reason, "provenance": provenance(row, config)}


def _quarantined_rows(
    rows: Iterable[dict[str, Any]], fate: Any, counts: "_Counts", config: RunConfig
) -> Iterator[dict[str, Any]]:
    for row in rows:
        where, reason = fate(row)
        if where == "quarantine":
            counts.add(row["source"], "quarantined", reason)
            yield row


def split_of(group: str, seed: int, heldout: float) -> str:
    """train or held-out, by source video, so that clips of one video never face each other."""
    position = int(hash_text(str(seed), group)[:13], 16) / 16**13
    return "held-out" if position < heldout else "train"


def _write_shards(
    config: RunConfig,
    name: str,
    schema: pa.Schema,
    rows: Iterator[dict[str, Any]],
    written: WrittenShards,
) -> list[ShardFile]:
    files: list[ShardFile] = []
    for index in itertools.count():
        first = next(rows, None)
        if first is None:
            break
        chunk = itertools.chain([first], itertools.islice(rows, config.shard_rows - 1))
        path = f"{name}/{name if name != 'data' else 'shard'}-{index:05d}.parquet"
        shard = written.get(path)
        if shard is None or not (config.out / path).exists():
            shard = write_shard(config.out / path, (_only(row, schema) for row in chunk), schema)
            written.add(shard)
        else:
            deque(chunk, maxlen=0)  # the rows are counted all the same
        files.append(shard)
    if not files and name == "data":
        # An empty shard still opens, with the right columns.
        files.append(write_shard(config.out / "data" / "shard-00000.parquet", [], schema))
    return files


def _only(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    return {name: row.get(name) for name in schema.names}


def _remove_strays(out: Path, files: dict[str, list[ShardFile]]) -> None:
    """Delete shards of an earlier selection and what a kill left half-written."""
    for name, shards in files.items():
        current = {out / shard.path for shard in shards}
        for path in (out / name).glob("*"):
            if path not in current:
                path.unlink()
        for path in (out / name).glob(".*.part"):
            path.unlink()


class _Counts:
    """In = kept + rejected + quarantined, per source and reason."""

    def __init__(self, by_source: dict[str, int]) -> None:
        self._in = by_source
        self._by: dict[str, Counter[tuple[str, str | None]]] = {
            source: Counter() for source in by_source
        }

    def add(self, source: str, what: str, reason: str | None) -> None:
        self._by[source][(what, reason)] += 1

    def table(self) -> dict[str, Any]:
        by_source: dict[str, Any] = {}
        for source, counter in self._by.items():
            by_source[source] = {
                "in": self._in[source],
                "kept": counter[("kept", None)],
                "rejected": _by_reason(counter, "rejected"),
                "quarantined": _by_reason(counter, "quarantined"),
            }
        totals = {
            "in": sum(self._in.values()),
            "kept": sum(entry["kept"] for entry in by_source.values()),
            "rejected": sum(sum(entry["rejected"].values()) for entry in by_source.values()),
            "quarantined": sum(sum(e["quarantined"].values()) for e in by_source.values()),
        }
        assert totals["in"] == totals["kept"] + totals["rejected"] + totals["quarantined"], totals
        return totals | {"by_source": by_source}


def _by_reason(counter: Counter[tuple[str, str | None]], what: str) -> dict[str, int]:
    return {reason or "": count for (kind, reason), count in counter.items() if kind == what}


def engines(config: RunConfig) -> dict[str, Any]:
    """Who described, rewrote and judged, how far that can be repeated, and the judge's checks."""
    who = {
        "captioner": (config.captioner, config.model, config.llm),
        "judge": (config.judge, config.judge_model, config.judge_llm),
    }
    if config.describer != "rules":
        who["describer"] = (config.describer, config.describer_model, config.describer_llm)
    found: dict[str, Any] = {}
    for role, (kind, name, engine) in who.items():
        model = model_of(kind, name, engine, config)
        found[role] = {
            "name": model.name,
            "is_embedded": kind == "rules",
            "reproducibility": reproducibility(kind, engine),
        }
        if kind != "rules":
            found[role]["model"] = model.record()
    return found


def provenance(row: Mapping[str, Any], config: RunConfig) -> str | None:
    """The row's facts and who wrote and judged its caption, as JSON."""
    if row["provenance"] is None:
        return None
    facts = json.loads(row["provenance"])
    for role, entry in engines(config).items():
        if "model" in entry:
            facts[role] = entry["model"]
    if row["attempts"]:
        facts["attempts"] = json.loads(row["attempts"])
    return json.dumps(facts, sort_keys=True, ensure_ascii=False)


def versions() -> dict[str, str]:
    """Versions of what the shards' bytes depend on."""
    names = ("colibri-core", "colibri-curate", "av", "decord", "numpy", "pillow", "pyarrow", "ray")
    found = {"python": platform.python_version()}
    for name in (*names, "datasketch", "lemminflect"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _entry(shard: ShardFile) -> dict[str, Any]:
    return {"path": shard.path, "sha256": shard.sha256, "rows": shard.rows}
