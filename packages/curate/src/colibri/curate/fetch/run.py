"""`curate fetch`: tables first, then the videos of the chosen rows, each where its reader looks.

Nothing here depends on what an earlier, interrupted command did, but for fetch.json's commit: what
is on disk is looked at and checked.
"""

import logging
import os
import shutil
from pathlib import Path

from colibri.core.errors import UserError
from colibri.curate.fetch.config import FetchConfig, check, source_settings
from colibri.curate.fetch.get import get
from colibri.curate.fetch.layouts import hub_layout
from colibri.curate.fetch.prepare import Job, prepare, summary
from colibri.curate.fetch.report import FetchReport
from colibri.curate.fetch.web import Web

_log = logging.getLogger(__name__)


def fetch(config: FetchConfig, *, web: Web | None = None) -> FetchReport:
    """Fetch, or with `plan` only say what would be fetched. Goes on where it was stopped.

    Reads HF_ENDPOINT and HF_TOKEN from the environment unless `web` is given. Raises UserError;
    rows that cannot be had are counted in the report instead.
    """
    check(config)
    names = tuple(dict.fromkeys(config.sources))
    layouts = {name: hub_layout(name, source_settings(config, name)) for name in names}
    web = web or _web_from_environment()
    try:
        jobs = [prepare(web, config, name, layout) for name, layout in layouts.items()]
        if config.ids is not None:
            _check_ids(config.ids, jobs)
        reports = [summary(config, job) for job in jobs]
        if config.plan:
            return FetchReport(to=config.to, planned=True, sources=tuple(reports))
        _check_room(config.to, sum(report.bytes_to_fetch for report in reports))
        return FetchReport(
            to=config.to,
            planned=False,
            sources=tuple(
                get(web, config, job, report) for job, report in zip(jobs, reports, strict=True)
            ),
        )
    finally:
        web.close()


def _web_from_environment() -> Web:
    from huggingface_hub import constants

    return Web(constants.ENDPOINT, os.environ.get("HF_TOKEN"))


def _check_ids(path: Path, jobs: list[Job]) -> None:
    unknown = set.intersection(*(job.choice.unknown for job in jobs))
    if not any(job.choice.located for job in jobs):
        hint = "write one row id or video name of the tables a line"
        raise UserError(f"--ids {path} names no row that can be fetched", hint=hint)
    if unknown:
        _log.warning("--ids %s: %d lines name no row, %r first", path, len(unknown), min(unknown))


def _check_room(folder: Path, bytes_to_fetch: int) -> None:
    free = shutil.disk_usage(folder).free
    if bytes_to_fetch > free:
        raise UserError(
            f"{bytes_to_fetch / 1e9:,.1f} GB are to be fetched and {folder} has room for "
            f"{free / 1e9:,.1f} GB",
            hint="choose fewer with --rows, or another disk with --to",
        )
