"""Before the videos: the tables, the choice of rows, and where each row's video lies."""

import logging
from dataclasses import dataclass
from pathlib import Path

from colibri.core.archive import resolve_inside
from colibri.core.errors import RowError, UserError
from colibri.curate.fetch.config import FetchConfig, asked_revision, source_settings
from colibri.curate.fetch.hub import HubFile, Repository, open_repository
from colibri.curate.fetch.layouts import HubLayout, matching, target_folder, urls_by_name
from colibri.curate.fetch.megabytes import Megabytes
from colibri.curate.fetch.record import recorded_commit, write_commit
from colibri.curate.fetch.remote_zip import RemoteZip, group_parts
from colibri.curate.fetch.report import SourceFetch
from colibri.curate.fetch.rows import (
    Choice,
    Finder,
    Located,
    draw,
    locate,
    named,
    needed_archives,
    wanted_rows,
)
from colibri.curate.fetch.transfer import fetch_file, is_member, is_whole
from colibri.curate.fetch.web import Web
from colibri.curate.sources import get_source
from colibri.curate.sources.openvid import read_map

_log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Job:
    """One data set: the rows that were chosen, and where their videos come from and go."""

    name: str
    layout: HubLayout
    folder: Path
    repository: Repository | None
    choice: Choice
    whole: list[HubFile]
    """Parts of archives to fetch as they are."""


def prepare(web: Web, config: FetchConfig, name: str, layout: HubLayout) -> Job:
    """Fetch the tables, choose rows, and find each one's member in the archives' directories.

    UserError when the repository, its tables or its archives cannot be read.
    """
    settings = source_settings(config, name)
    folder = target_folder(config.to, name, settings)
    on_disk = name == "humanvid" and folder.is_dir() and any(folder.glob(layout.marker))
    repository = None if on_disk else _open_pinned(web, config, name, layout)
    if repository:
        _get_tables(web, repository, layout, folder, name)
        write_commit(config.to, name, repository)
    source = get_source(name)
    found = source.find(config.to, settings)
    if found is None:
        raise UserError(f"{repository and repository.name} holds no tables of {name}")
    choice = Choice()
    captioned = name != "humanvid" or settings.captions is not None
    rows = wanted_rows(
        source.clips(found, settings),
        need_caption=captioned and config.ids is None,
        choice=choice,
    )
    if config.ids is not None:
        order = named(rows, config.ids, choice=choice)
    else:
        order = draw(rows, config.seed)
    archives = _archives(web, repository, layout)
    if config.whole and config.rows is None and config.ids is None and archives:
        parts = [part for archive in archives for part in archive.parts]
        return Job(
            name=name,
            layout=layout,
            folder=folder,
            repository=repository,
            choice=choice,
            whole=parts,
        )
    lists = [path for path in found.tables if path.match(layout.marker)]
    locate(
        order,
        config.rows,
        data_root=config.to,
        folder=folder,
        loose=layout.loose,
        finder=Finder(archives, read_map(folder)) if layout.archives else None,
        urls={} if layout.archives else urls_by_name(lists, config.url_hosts),
        choice=choice,
    )
    needed = needed_archives(choice.located) if config.whole else ()
    return Job(
        name=name,
        layout=layout,
        folder=folder,
        repository=repository,
        choice=choice,
        whole=[part for archive in needed for part in archive.parts],
    )


def _open_pinned(web: Web, config: FetchConfig, name: str, layout: HubLayout) -> Repository:
    revision = asked_revision(config, name)
    if revision is None:
        revision = recorded_commit(config.to, name, layout.repository)
    return open_repository(web, layout.repository, revision or "main")


def _get_tables(
    web: Web, repository: Repository, layout: HubLayout, folder: Path, name: str
) -> None:
    paths = matching(repository.files, layout.tables)
    if not paths:
        hint = f"leave {name} out of --sources"
        if name == "humanvid":
            hint = (
                "HumanVid's URL lists are on Google Drive: get them by the links in "
                f"github.com/zhenzhiwang/HumanVid and put them into {folder}, or " + hint
            )
        raise UserError(f"{repository.name} holds no {' or '.join(layout.tables)}", hint=hint)
    for path in paths:
        file, target = repository.files[path], inside(folder, path)
        if not target.exists():
            with Megabytes(f"fetch {target.name}", file.size_bytes) as megabytes:
                fetch_file(web, file, target, progress=megabytes)
        elif not is_whole(target, file):
            _log.warning(
                "%s differs from %s at %s and is kept; remove it to fetch it again",
                target,
                repository.name,
                repository.commit[:12],
            )


def _archives(web: Web, repository: Repository | None, layout: HubLayout) -> list[RemoteZip]:
    if repository is None:
        return []
    paths = matching(repository.files, layout.archives)
    return [RemoteZip(web, parts) for parts in group_parts(repository.files[p] for p in paths)]


def summary(config: FetchConfig, job: Job) -> SourceFetch:
    """What there is and what is missing, by sizes; CRC-32s are left to the transfer."""
    rows = rows_to_fetch(job)
    parts = [part for part in job.whole if not _has_size(job.folder, part)]
    listed_only = job.name == "humanvid" and not config.accept_pexels
    size = sum(part.size_bytes for part in parts)
    if not config.whole:
        size += sum(_span_bytes(row) for row in rows)
    urls = tuple(row.url for row in rows if row.url)
    return SourceFetch(
        name=job.name,
        folder=job.folder,
        repository=job.repository.name if job.repository else None,
        revision=job.repository.commit if job.repository else None,
        rows=job.choice.rows,
        chosen=len(job.choice.located),
        present=len(job.choice.located) - len(rows),
        to_fetch=0 if listed_only else len(rows),
        parts=len(parts),
        bytes_to_fetch=size,
        urls=urls,
        listed_only=listed_only,
        refused=dict(job.choice.refused),
    )


def rows_to_fetch(job: Job) -> list[Located]:
    """Rows whose file is not there or has another size than it should."""
    rows = []
    for row in job.choice.located:
        if row.entry is not None:
            if not is_member(row.target, row.entry, deep=False):
                rows.append(row)
        elif row.url is not None and not row.target.exists():
            rows.append(row)
    return rows


def _span_bytes(row: Located) -> int:
    if row.archive is None or row.entry is None:
        return 0
    start, end = row.archive.span(row.entry)
    return end - start


def _has_size(folder: Path, part: HubFile) -> bool:
    path = inside(folder, part.path)
    return path.is_file() and path.stat().st_size == part.size_bytes


def inside(folder: Path, path: str) -> Path:
    """Place of a repository's file on disk. UserError when its path leaves the folder."""
    try:
        return resolve_inside(folder, path)
    except RowError as error:
        raise UserError(f"the hub lists a file that cannot be placed: {error.message}") from None
