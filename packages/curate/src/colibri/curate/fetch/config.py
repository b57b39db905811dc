"""What `curate fetch` can be told. Every default stands here and nowhere else."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from colibri.core.config import Names
from colibri.core.errors import UserError
from colibri.curate.sources.base import SourceConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchConfig:
    """Which rows of which data sets to get, and where to put them."""

    sources: Names = ("magicmotion", "openvid", "humanvid")
    """Data sets to fetch: magicmotion, openvid, humanvid."""
    to: Path = Path("out/data")
    """Folder for the data sets; `curate run --data-root` reads it. The same folder resumes."""
    rows: int | None = None
    """Rows of each data set to fetch, drawn by --seed; a smaller number draws a part of a larger
    one. Without it: all."""
    ids: Path | None = None
    """File with one row id or video name a line; those rows are fetched instead of a draw."""
    seed: int = 0
    """Decides which rows are drawn."""
    whole: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Fetch the archives that hold the rows as they are, all their parts, not single members."""
    plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Fetch the tables only, print how many rows and bytes would be fetched, and stop."""
    revision: Names = ()
    """Branch, tag or commit of the hub repository; for several data sets openvid=REV,... Without
    it: the commit in fetch.json, or else the newest, which is written there."""
    connections: int = 4
    """Files fetched at the same time from the hub."""
    accept_pexels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """HumanVid's clips lie at Pexels, whose terms forbid bulk downloads for training: fetch them
    all the same, because you have the right to. Without it their URLs are only listed."""
    url_hosts: Names = ("videos.pexels.com",)
    """Hosts that HumanVid's URL lists may name; others are refused."""
    url_interval_s: float = 1.0
    """Least time between the starts of two downloads from HumanVid's URLs, in seconds."""
    magicmotion: SourceConfig = field(default_factory=SourceConfig)
    openvid: SourceConfig = field(default_factory=SourceConfig)
    humanvid: SourceConfig = field(default_factory=SourceConfig)


def check(config: FetchConfig) -> None:
    """UserError for settings that contradict each other or mean nothing."""
    if not config.sources:
        raise UserError("--sources names no data set", hint="pass --sources magicmotion,openvid")
    if config.rows is not None and config.ids is not None:
        raise UserError("--rows and --ids both choose rows", hint="pass one of them")
    if config.rows is not None and config.rows < 1:
        raise UserError(f"--rows {config.rows} fetches nothing", hint="pass 1 or more")
    if config.connections < 1:
        raise UserError("--connections has to be at least 1")
    if not config.url_interval_s >= 0:
        raise UserError("--url-interval-s has to be 0 or more")


def source_settings(config: FetchConfig, name: str) -> SourceConfig:
    """The settings of one source. UserError for sources that are not on the hub."""
    known = {
        "magicmotion": config.magicmotion,
        "openvid": config.openvid,
        "humanvid": config.humanvid,
    }
    if name not in known:
        raise UserError(f"{name} cannot be fetched", hint=f"fetch knows {', '.join(known)}")
    return known[name]


def asked_revision(config: FetchConfig, name: str) -> str | None:
    """The revision that --revision names for one source."""
    found = None
    for entry in config.revision:
        source, equals, revision = entry.rpartition("=")
        if equals and source not in config.sources:
            raise UserError(
                f"--revision {entry} names a source that is not fetched",
                hint="write REV, or SOURCE=REV with a source of --sources",
            )
        if source in ("", name):
            found = revision
    return found
