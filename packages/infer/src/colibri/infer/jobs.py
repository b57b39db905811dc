"""Which videos are wanted: prompts, negative prompts, images and seeds. Knows no model."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.infer.config import I2vConfig, RenderConfig

MOST_SEEDS = 2**63


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One video to make."""

    prompt: str
    negative_prompt: str | None
    seed: int
    image: Path | None


def job_of(
    prompt: str,
    seed: int,
    *,
    negative_prompt: str | None = None,
    image: Path | None = None,
    where: str = "--prompt",
) -> Job:
    """One wanted video. UserError in one sentence, beginning with `where`, for bad input."""
    return Job(
        prompt=_text(prompt, where),
        negative_prompt=_negative(negative_prompt, where),
        seed=_seed(seed, where),
        image=image,
    )


def jobs_of(config: RenderConfig) -> tuple[Job, ...]:
    """Every wanted video, in order. UserError in one sentence, with the line in a prompts file."""
    if config.num_videos < 1:
        raise UserError("--num-videos has to be at least 1")
    if (config.prompt is None) == (config.prompts_file is None):
        raise UserError("one of --prompt and --prompts-file is needed")
    image = config.image if isinstance(config, I2vConfig) else None
    single: dict[str, Any] = {"prompt": config.prompt, "image": image}
    entries = (
        [("--prompt", single)]
        if config.prompts_file is None
        else list(_read(config.prompts_file, image))
    )
    jobs: dict[Job, None] = {}
    for where, entry in entries:
        first = _seed(entry.get("seed", config.seed), where)
        for index in range(config.num_videos):
            own = entry.get("negative_prompt")
            job = job_of(
                entry["prompt"],
                first + index,
                negative_prompt=config.negative_prompt if own is None else own,
                image=entry.get("image"),
                where=where,
            )
            if isinstance(config, I2vConfig) and job.image is None:
                raise UserError(
                    f"{where} has no image",
                    hint="pass --image FILE" + (", or image in .jsonl" if entries[1:] else ""),
                )
            jobs[job] = None
    return tuple(jobs)


def _read(path: Path, image: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, entry) of each prompt in a file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no prompts file {path}") from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].count(b"\n")
        raise UserError(f"{path}, line {before + 1}: not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    found = False
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        where = f"{path}, line {number}"
        if not line:
            continue
        if path.suffix.lower() in (".jsonl", ".json"):
            found = True
            yield where, {"image": image} | _entry(line, where, path.parent)
        elif not line.startswith("#"):
            found = True
            yield where, {"prompt": line, "image": image}
    if not found:
        raise UserError(f"{path} holds no prompt")


def _entry(line: str, where: str, folder: Path) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        raise UserError(f"{where}: not a JSON object") from None
    if not isinstance(entry, dict):
        raise UserError(f"{where}: not a JSON object")
    known = ("prompt", "negative_prompt", "seed", "image")
    if strange := sorted(set(entry) - set(known)):
        raise UserError(f"{where}: unknown key {strange[0]!r}", hint=f"known: {', '.join(known)}")
    if "prompt" not in entry:
        raise UserError(f"{where}: there is no prompt")
    if "image" in entry:
        entry["image"] = folder / _text(entry["image"], where, what="image")
    return entry


def _text(value: object, where: str, *, what: str = "prompt") -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: the {what} is not a text")
    if not value.strip():
        raise UserError(f"{where}: the {what} is empty")
    return _valid(value, where)


def _negative(value: object, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise UserError(f"{where}: the negative prompt is not a text")
    return _valid(value, where)


def _valid(text: str, where: str) -> str:
    """Text that can be written as UTF-8: a shell may pass bytes that are none."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{where}: the text is not valid Unicode") from None
    return text.strip()


def _seed(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_SEEDS:
        raise UserError(f"{where}: a seed is a whole number from 0 to 2^63 - 1, found {value!r}")
    return value
