"""Data set repositories on the Hugging Face hub: their commit, their files, and their URLs."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from colibri.core.errors import UserError
from colibri.curate.fetch.web import HttpRefused, Web


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """One file at one commit. `url` answers with its bytes."""

    path: str
    url: str
    size_bytes: int
    sha256: str | None
    """Of large files (git LFS)."""
    blob_id: str | None
    """Git's SHA-1 of files that are not large."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A data set repository at one commit."""

    name: str
    commit: str
    files: Mapping[str, HubFile]
    """By path."""


def open_repository(web: Web, name: str, revision: str) -> Repository:
    """The files of a repository at a branch, tag or commit. UserError when it cannot be read."""
    commit = _commit(web, name, revision)
    files: dict[str, HubFile] = {}
    page: str | None = f"{_api(web, name)}/tree/{commit}?recursive=1"
    while page:
        entries, page = web.json(page)
        if not isinstance(entries, list):
            raise UserError(f"{web.endpoint} does not list the files of {name}")
        for entry in entries:
            if isinstance(entry, dict) and entry.get("type") == "file":
                file = _file(web, name, commit, entry)
                files[file.path] = file
    return Repository(name=name, commit=commit, files=files)


def _commit(web: Web, name: str, revision: str) -> str:
    try:
        found, _ = web.json(f"{_api(web, name)}/revision/{quote(revision, safe='')}")
    except HttpRefused as error:
        if error.status != 404:
            raise
        raise HttpRefused(
            404,
            f"{web.endpoint} has no data set {name} with a revision {revision}",
            hint="check --revision, and HF_ENDPOINT if it is set",
        ) from None
    commit = found.get("sha") if isinstance(found, dict) else None
    if not isinstance(commit, str) or not commit:
        raise UserError(f"{web.endpoint} does not tell the commit of {name} at {revision}")
    return commit


def _file(web: Web, name: str, commit: str, entry: dict[str, object]) -> HubFile:
    path, size, lfs = entry.get("path"), entry.get("size"), entry.get("lfs")
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    if isinstance(lfs, dict):
        size = lfs.get("size", size)
    if not isinstance(path, str) or not isinstance(size, int):
        raise UserError(f"{web.endpoint} lists a file of {name} without a path or a size")
    return HubFile(
        path=path,
        url=f"{web.endpoint}/datasets/{name}/resolve/{commit}/{quote(path)}",
        size_bytes=size,
        sha256=sha256 if isinstance(sha256, str) else None,
        blob_id=None if isinstance(lfs, dict) else str(entry.get("oid") or "") or None,
    )


def _api(web: Web, name: str) -> str:
    return f"{web.endpoint}/api/datasets/{name}"
