"""Models of the Hugging Face hub, in its cache: what is needed of them, its size said first.

Large files are fetched here, because huggingface_hub 2.4 begins a file that was broken off again;
small ones, links and branches are its own.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from colibri.core.errors import UserError, first_line
from colibri.core.hashing import hash_file

log = logging.getLogger(__name__)

LARGE_BYTES = 50_000_000
"""Files from this size on are continued where they were broken off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Which files of a repository make a model, as patterns."""

    mark: str
    """A file that tells this layout."""
    files: tuple[str, ...]
    unused: tuple[str, ...] = ()
    """Of those: second copies of the weights, and formats that nothing here reads."""


def fetch(
    repo: str,
    layouts: tuple[Layout, ...],
    *,
    revision: str | None = None,
    say: Callable[[str], object] = log.info,
) -> Path:
    """The folder of a model at one commit, fetched as far as it is not there.

    Of the `layouts` the first whose mark is there counts, else the last. UserError in one sentence
    where the hub refuses or cannot be reached, for a full disk, and for bytes that are not those of
    the hub's hash.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    broken: tuple[type[BaseException], ...] = (OSError, RuntimeError, ValueError, HFValidationError)
    broken += HfHubHTTPError.__mro__[1:2]  # a lost connection: of httpx2, or of httpx before 2.0
    if constants.HF_HUB_OFFLINE:
        return _kept(repo, layouts, revision, "HF_HUB_OFFLINE is set")
    try:
        listed = HfApi().model_info(repo, revision=revision, files_metadata=True)
    except broken as error:
        if refused := _refusal(repo, revision, error):
            raise refused from None
        return _kept(repo, layouts, revision, f"the hub cannot be reached ({first_line(error)})")
    folder = _storage(repo)
    commit, siblings = str(listed.sha), listed.siblings or []
    names = {one.rfilename for one in siblings}
    layout = next((one for one in layouts if one.mark in names), layouts[-1])
    files = [_file(folder, one) for one in siblings if _wanted(one.rfilename, layout)]
    if not files:
        raise UserError(
            f"{repo}{_at(revision)} holds nothing of what is looked for",
            hint=f"that is {', '.join(filter(None, layout.files[:3]))}, ...",
        )
    snapshot = folder / "snapshots" / commit
    missing = [one for one in files if not (snapshot / one.name).exists()]
    if not missing:
        return snapshot
    left = sum(one.left_bytes for one in missing)
    if left:
        whole = sum(one.size_bytes for one in files)
        say(
            f"{repo} at {commit[:12]}: {len(files)} files, {_gigabytes(whole)}; "
            f"{_gigabytes(left)} to fetch into {folder}"
        )
        _check_room(folder, left, repo)
    try:
        for one in missing:
            if one.sha256 and one.size_bytes >= LARGE_BYTES and not one.blob.exists():
                _fetch_large(repo, commit, one)
        return Path(snapshot_download(repo, revision=revision, **_patterns(layout)))
    except broken as error:
        raise UserError(
            f"fetching {repo} was broken off: {first_line(error)}",
            hint="the same command goes on from here",
        ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """One file of a commit, and where the hub's cache keeps it."""

    name: str
    size_bytes: int
    sha256: str | None
    """Of files in LFS or Xet."""
    blob: Path

    @property
    def part(self) -> Path:
        """What is there of a file that was broken off."""
        return self.blob.with_name(f"{self.blob.name}.colibri.incomplete")

    @property
    def left_bytes(self) -> int:
        if self.blob.exists():
            return 0
        with contextlib.suppress(OSError):
            return max(0, self.size_bytes - self.part.stat().st_size)
        return self.size_bytes


def _file(folder: Path, listed: Any) -> _File:
    sha256 = listed.lfs.sha256 if listed.lfs else None
    return _File(
        name=listed.rfilename,
        size_bytes=listed.size or 0,
        sha256=sha256,
        blob=folder / "blobs" / (sha256 or listed.blob_id),
    )


def _wanted(name: str, layout: Layout) -> bool:
    from huggingface_hub.utils import filter_repo_objects

    return bool(list(filter_repo_objects([name], **_patterns(layout))))


def _patterns(layout: Layout) -> dict[str, Any]:
    return {"allow_patterns": list(layout.files), "ignore_patterns": list(layout.unused)}


def _storage(repo: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=repo, repo_type="model")
    return Path(constants.HF_HUB_CACHE).expanduser().resolve() / name


def _fetch_large(repo: str, commit: str, file: _File) -> None:
    """One file into the cache's blobs, from where it was broken off, held against its hash."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    file.blob.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(f"{file.part}.lock"):
        if file.blob.exists():  # another process was here first
            return
        url = hf_hub_url(repo, file.name, revision=commit)
        place = get_hf_file_metadata(url).location
        headers = build_hf_headers()
        if urlsplit(place).netloc != urlsplit(url).netloc:
            headers.pop("authorization", None)  # the token is for the hub alone
        with file.part.open("ab") as part:
            if part.tell() > file.size_bytes:
                part.truncate(0)
            http_get(
                place,
                part,
                resume_size=part.tell(),
                headers=headers,
                expected_size=file.size_bytes,
                displayed_filename=file.name,
            )
            part.flush()
            os.fsync(part.fileno())
        if hash_file(file.part) != file.sha256:
            file.part.unlink()
            raise UserError(
                f"{file.name} of {repo} came with other bytes than the hub's hash promises",
                hint="run the same command again",
            )
        file.part.chmod(0o644)
        os.replace(file.part, file.blob)
    Path(f"{file.part}.lock").unlink(missing_ok=True)


def _kept(repo: str, layouts: tuple[Layout, ...], revision: str | None, why: str) -> Path:
    """The folder of a model that was fetched before."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        for layout in layouts:
            folder = Path(
                snapshot_download(
                    repo, revision=revision, local_files_only=True, **_patterns(layout)
                )
            )
            if (folder / layout.mark).is_file():
                break
        return folder
    except (OSError, ValueError, HFValidationError):
        raise UserError(
            f"{repo}{_at(revision)} is not here, or not wholly, and cannot be fetched: {why}",
            hint=f"its place is {_storage(repo)}",
        ) from None


def _refusal(repo: str, revision: str | None, error: BaseException) -> UserError | None:
    """None where the hub has not refused, only not answered."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return UserError(
            f"{repo} is open to those alone who accept its terms",
            hint="accept them on its page, then set HF_TOKEN to your token",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(
            f"{repo} is no folder here and cannot be fetched: the hub has no such model",
            hint="it may be misspelt, or private: then set HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{repo} has no revision {revision!r}", hint="check --revision")
    if isinstance(error, errors.HFValidationError):
        return UserError(f"{repo} is no folder here and no hub id: {first_line(error)}")
    return None


def _check_room(folder: Path, needed_bytes: int, repo: str) -> None:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise UserError(
            f"{repo} needs {_gigabytes(needed_bytes)} more, and {folder.parent} has "
            f"{_gigabytes(free)} free",
            hint="set HF_HOME to a folder with more room",
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _at(revision: str | None) -> str:
    return f" at revision {revision}" if revision else ""
