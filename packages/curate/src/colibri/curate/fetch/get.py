"""The videos themselves: many transfers at once, with progress, and a list of those that failed."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from colibri.core.errors import RowError
from colibri.core.progress import Progress
from colibri.curate.fetch.config import FetchConfig
from colibri.curate.fetch.hub import HubFile
from colibri.curate.fetch.megabytes import Megabytes
from colibri.curate.fetch.partial import clear
from colibri.curate.fetch.prepare import Job, inside, rows_to_fetch
from colibri.curate.fetch.report import SourceFetch
from colibri.curate.fetch.rows import Located
from colibri.curate.fetch.transfer import fetch_file, fetch_member, fetch_url, is_member, is_whole
from colibri.curate.fetch.web import Web

URL_LIST = "clips-to-download.txt"
"""HumanVid's URLs of the chosen rows, where fetching them was not asked for."""


def get(web: Web, config: FetchConfig, job: Job, report: SourceFetch) -> SourceFetch:
    """Fetch what `report` says is missing, and check what is there. Returns it with the failures.

    Raises UserError for what stops all rows; a row that cannot be had is a failure.
    """
    if job.whole:
        _get_whole(web, config, job)
    elif job.layout.archives:
        failed = _get_members(web, config, job)
        return report.after(failed)
    elif report.listed_only:
        path = job.folder / URL_LIST
        path.write_text("".join(f"{url}\n" for url in report.urls), encoding="utf-8")
    else:
        return report.after(_get_urls(web, config, job))
    return report


def _get_members(web: Web, config: FetchConfig, job: Job) -> dict[str, str]:
    rows = [row for row in job.choice.located if row.entry is not None]
    progress = Progress(f"fetch {job.name}", len(rows))

    def fetch_one(row: Located) -> None:
        assert row.archive is not None
        assert row.entry is not None
        if is_member(row.target, row.entry):
            clear(row.target)
        else:
            fetch_member(row.archive, row.entry, row.target)

    try:
        return _all(web, rows, fetch_one, config.connections, progress)
    finally:
        progress.close()


def _get_urls(web: Web, config: FetchConfig, job: Job) -> dict[str, str]:
    rows = rows_to_fetch(job)
    progress = Progress(f"fetch {job.name}", len(rows))
    begun = -config.url_interval_s

    def fetch_one(row: Located) -> None:
        nonlocal begun
        assert row.url is not None
        time.sleep(max(0.0, begun + config.url_interval_s - time.monotonic()))
        begun = time.monotonic()
        fetch_url(web, row.url, row.target)

    try:
        return _all(web, rows, fetch_one, 1, progress)
    finally:
        progress.close()


def _get_whole(web: Web, config: FetchConfig, job: Job) -> None:
    megabytes = Megabytes(f"fetch {job.name}", sum(part.size_bytes for part in job.whole))

    def fetch_one(part: HubFile) -> None:
        target = inside(job.folder, part.path)
        if is_whole(target, part):
            megabytes(part.size_bytes)
        else:
            fetch_file(web, part, target, progress=megabytes)

    with megabytes:
        _all(web, job.whole, fetch_one, config.connections, None)


def _all(
    web: Web,
    items: Iterable[Any],
    action: Callable[[Any], None],
    connections: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Do `action` on every item; rows that refuse are named with their reason, others stop all."""
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(connections) as pool:
        futures = {pool.submit(action, item): item for item in items}
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                    refused = 0
                except RowError as error:
                    failed[futures[future].target.name] = error.message
                    refused = 1
                if progress:
                    progress.add(refused=refused)
        except BaseException:
            web.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed
