"""A push to the Hugging Face hub: shards, card with licence, in one commit.

Shards go up as they are; one that holds a refused row goes up without it. The address is
HF_ENDPOINT and the token HF_TOKEN of the environment, nothing else; the token is written nowhere.
"""

import io
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from colibri.core.errors import RowError, UserError
from colibri.core.shards import read_rows, write_shard, write_text_whole
from colibri.curate.card import data_card
from colibri.curate.export.base import ExportConfig, check_text
from colibri.curate.sources.base import LICENCES

HUB_LICENCES = {"apache-2.0", "cc-by-4.0"}
"""Our licence names that the hub knows by the same name; the others are `other` there."""

Refuse = Callable[[dict[str, Any], RowError], None]


def push(
    config: ExportConfig, shards: list[Path], manifest: dict[str, Any], refuse: Refuse
) -> tuple[set[str], int, int, str]:
    """Check every row and push what is left.

    Returns the names that belong in DIR, rows of the asked split, rows of the other, the address.
    `refuse` is told each row that is not taken. UserError when the hub does not answer or says no.
    """
    repo, endpoint, token = _address(config)
    licences: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    files: dict[str, Path] = {}
    rows = other = 0
    for shard in shards:
        kept = []
        total = 0
        for row in read_rows(shard, ["id", "source", "video", "member", "caption", "image",
                                     "licence", "split"]):  # fmt: skip
            total += 1
            if config.split not in (None, "all", row["split"]):
                other += 1
                continue
            rows += 1
            try:
                _check(row, public=config.public)
            except RowError as error:
                refused[error.reason] += 1
                refuse(row, error)
                continue
            kept.append(row["id"])
            licences[row["licence"] or "unknown"] += 1
        name = f"data/{shard.name}"
        if len(kept) == total:
            files[name] = shard
        elif kept:
            wanted = set(kept)
            write_shard(
                config.to / name,
                (row for row in read_rows(shard) if row["id"] in wanted),
                pq.read_schema(shard),
            )
            files[name] = config.to / name
    if not files:
        raise UserError("no row is left to push", hint=f"look into {config.to}/refused.jsonl")
    card = config.to / "README.md"
    write_text_whole(card, hub_card(manifest, licences, refused, other))
    local = {"README.md"} | {n for n, path in files.items() if path == config.to / n}
    address = _commit(repo, endpoint, token, files | {"README.md": card}, private=not config.public)
    return local, rows, other, address


def hub_card(
    manifest: dict[str, Any], licences: Counter[str], refused: Counter[str], other: int
) -> str:
    """The run's card with the licences of the rows that are pushed, for people and for the hub."""
    known = sorted({name if name in HUB_LICENCES else "other" for name in licences})
    fields = ["license:", *(f"- {name}" for name in known)]
    if "other" in known:
        others = sorted(name for name in licences if name not in HUB_LICENCES)
        fields.append(f"license_name: {json.dumps(', '.join(others))}")
    card = data_card(manifest).replace("---\n", "---\n" + "\n".join(fields) + "\n", 1)
    lines = ["", "## Rows in this repository", "", "| licence | rows |", "|---|---|"]
    for name, count in sorted(licences.items()):
        title = LICENCES[name].name if name in LICENCES else name
        lines.append(f"| {title} | {count:,} |")
    lines.append("")
    lines.append("First frames and captions only; the videos stay with their sources.")
    if refused:
        reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(refused.items()))
        lines.append(f"Refused by the check before the push: {reasons}.")
    if other:
        lines.append(f"Rows of the other split that were left out: {other:,}.")
    return card + "\n".join(lines) + "\n"


def _check(row: dict[str, Any], *, public: bool) -> None:
    """RowError: bad_id, no_caption, bad_text, bad_image, licence."""
    check_text(row["id"], row["caption"])
    try:
        Image.open(io.BytesIO((row["image"] or {}).get("bytes") or b"")).verify()
    except (OSError, SyntaxError, ValueError) as error:
        raise RowError("bad_image", f"the first frame cannot be opened: {error}") from None
    licence = LICENCES.get(row["licence"] or "")
    if public and (licence is None or licence.flagged):
        raise RowError(
            "licence", f"licence {row['licence']} does not clearly allow it to be made public"
        )


def _address(config: ExportConfig) -> tuple[str, str, str]:
    if not config.repo or config.repo.count("/") != 1:
        raise UserError("--format hub needs a repository", hint="pass --repo OWNER/NAME")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise UserError(
            "HF_TOKEN is not set",
            hint="put a token that may write into the environment; it is read from nowhere else",
        )
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return config.repo, endpoint.rstrip("/"), token


def _commit(repo: str, endpoint: str, token: str, files: dict[str, Path], *, private: bool) -> str:
    """One commit that makes the repository's data be `files`; its address."""
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationCopy,
        CommitOperationDelete,
        HfApi,
    )
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    api = HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.repo_info(repo, repo_type="dataset").private:
            raise UserError(f"{repo} is public", hint="pass --public, or choose another --repo")
        stale = [
            name
            for name in api.list_repo_files(repo, repo_type="dataset")
            if name.startswith("data/") and name.endswith(".parquet") and name not in files
        ]
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationAdd(name, path) for name, path in sorted(files.items())),
            *(CommitOperationDelete(name) for name in sorted(stale)),
        ]
        api.create_commit(
            repo, operations, repo_type="dataset", commit_message="Curated clips by colibri"
        )
    except HFValidationError as error:
        raise UserError(f"{repo!r} is no repository name: {_first_line(error, token)}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = "check HF_TOKEN and its rights" if status in (401, 403, 404) else "try again later"
        message = f"{endpoint} answers {status}: {_first_line(error, token)}"
        raise UserError(message, hint=hint) from None
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        message = f"the push to {endpoint} failed: {_first_line(error, token)}"
        raise UserError(message, hint="run the same command again") from None
    return f"{endpoint}/datasets/{repo}"


def _first_line(error: BaseException, token: str) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].replace(token, "HF_TOKEN")[:300]
