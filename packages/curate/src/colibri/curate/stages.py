"""What happens to one row on its way: first frame, recaption, rules, judge.

Each stage is a function from a row to what it adds. A row that cannot go on raises RowError, which
becomes its reason, stage and error; later stages leave it alone. Knows nothing of Ray.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import colibri.curate
from colibri.core.captions.rewrite import rewrite
from colibri.core.captions.rules import check, violates
from colibri.core.clip import Clip, Finding, VideoRef
from colibri.core.errors import RowError
from colibri.core.hashing import hash_text
from colibri.curate.frames import FrameConfig, first_frame
from colibri.curate.judge import judge

Row = dict[str, Any]
Stage = Callable[[Row], Row]

log = logging.getLogger(__name__)

EMBEDDED_CAPTIONER = f"colibri-rules/{colibri.curate.__version__}"

REJECTIONS = frozenset({"duplicate_row", "licence", "too_short"})
"""Reasons that are decisions, not damage: such rows are rejected, all others quarantined."""


NO_VIDEO = frozenset({"missing_file", "missing_member", "empty_file"})
"""Troubles that a run on captions alone does not mind."""


def begin(
    clip: Clip, *, key: str, exclude_licence: bool, bearable: frozenset[str] = frozenset()
) -> Row:
    """A clip as the row that the stages fill in; a problem that is `bearable` does not end it."""
    row: Row = {
        "id": clip.id,
        "key": key,
        "source": clip.source,
        "video": clip.ref.video,
        "member": clip.ref.member,
        "start_s": clip.ref.start_s,
        "caption_original": clip.caption,
        "licence": clip.licence,
        "group": clip.group,
        "labels": json.dumps(clip.labels, sort_keys=True, ensure_ascii=False),
    }
    if clip.problem and clip.problem[0] not in bearable:
        row["reason"], row["error"] = clip.problem
        row["stage"] = "ingest"
    elif not (clip.caption or "").strip() and "no_caption" not in bearable:
        row["reason"], row["stage"] = "no_caption", "ingest"
        row["error"] = f"{clip.ref.video!r} has no caption"
    elif exclude_licence:
        row["reason"], row["stage"] = "licence", "ingest"
        row["error"] = f"licence {clip.licence} is excluded by --licence-policy exclude"
    return row


def frame(row: Row, *, root: Path, config: FrameConfig) -> Row:
    """Decode the first frame and count the real ones."""
    provenance = {
        "clip": hash_text(row["source"], row["video"], row["member"] or "", str(row["start_s"])),
        "caption_original": hash_text(row["caption_original"] or ""),
        "labels": json.loads(row["labels"]),
    }
    if config.reader == "none":
        return {"provenance": json.dumps(provenance, sort_keys=True, ensure_ascii=False)}
    ref = VideoRef(video=row["video"], member=row["member"], start_s=row["start_s"])
    shot = first_frame(ref, root, config)
    facts = {"reader": config.reader, "geometry": config.geometry, "notes": shot.notes}
    provenance["frame"] = facts
    return {
        "image": {"bytes": shot.image, "path": f"{row['id']}.{_image_ending(shot.image)}"},
        "width": shot.width,
        "height": shot.height,
        "fps": shot.fps,
        "num_frames": shot.num_frames,
        "provenance": json.dumps(provenance, sort_keys=True, ensure_ascii=False),
    }


def recaption(row: Row) -> Row:
    """Rewrite the caption under the six rules."""
    return {"caption": rewrite(row["caption_original"]), "captioner": EMBEDDED_CAPTIONER}


def apply_rules(row: Row) -> Row:
    """Check the new caption; a clear violation ends the row's way."""
    findings = check(row["caption_original"], row["caption"])
    broken = violates(findings)
    result: Row = {"findings": [asdict(finding) for finding in findings]}
    if broken:
        first = next(found for found in findings if found.rule == broken[0])
        result |= {"reason": "breaks_rules", "stage": "rules"}
        result["error"] = f"{', '.join(broken)}: {first.message}"
    return result


def apply_judge(row: Row) -> Row:
    """Score the new caption."""
    findings = tuple(Finding(**finding) for finding in row["findings"])
    verdict = judge(row["caption_original"], row["caption"], findings)
    return {"judge": asdict(verdict), "score": verdict.score}


def advance(row: Row, stage: Stage, name: str) -> Row:
    """`row` after `stage`, or the row with the reason why it stops here."""
    if row.get("reason"):
        return row
    try:
        return {**row, **stage(row)}
    except RowError as error:
        return {**row, "reason": error.reason, "stage": name, "error": error.message}
    except MemoryError:
        raise
    except Exception as error:
        # One strange row must not end a run of 140,000; it is counted, and its error is kept.
        log.exception("row %s failed in stage %s", row["id"], name)
        return {
            **row,
            "reason": "internal_error",
            "stage": name,
            "error": f"{type(error).__name__}: {error}"[:2000],
        }


def _image_ending(image: bytes) -> str:
    return "png" if image.startswith(b"\x89PNG") else "jpg"
