"""Where each data set lies on the hub, and where its files go on disk.

Repositories and layouts after the data cards of quanhaol/MagicData, nkp37/OpenVid-1M and
zhenzhiwang/HumanVid; on disk the folders in which the readers of `curate.sources` look.
"""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from colibri.core.errors import UserError
from colibri.curate.sources.base import SourceConfig, find_root

_HD_PART = re.compile(r"OpenVidHD/OpenVidHD_part_?(?P<number>\d+)(?:\.zip|_)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubLayout:
    """One data set. Patterns are of paths inside its repository; `*` crosses no slash."""

    repository: str
    folder: str
    """Folder below the data root, unless the data set is already there under another name."""
    marker: str
    """What the reader recognises that folder by."""
    tables: tuple[str, ...]
    archives: tuple[str, ...]
    loose: str
    """Folder for single videos, below the data set's own."""


_HD = ("OpenVidHD/OpenVidHD_part_*",)
_ONE_M = ("OpenVid_part*",)
_HD_TABLES = ("data/train/OpenVidHD.csv", "OpenVidHD/OpenVidHD.json")
_ONE_M_TABLES = ("data/train/OpenVid-1M.csv",)


def hub_layout(name: str, settings: SourceConfig) -> HubLayout:
    """The layout of magicmotion, openvid or humanvid."""
    if name == "magicmotion":
        return HubLayout(
            repository="quanhaol/MagicData",
            folder="MagicData",
            marker="MagicData.csv",
            tables=("MagicData.csv",),
            archives=("*[vV]ideo*",),
            loose="videos",
        )
    if name == "openvid":
        subset = settings.subset or "hd"
        if subset not in ("hd", "1m", "both"):
            raise UserError(f"--openvid.subset {subset} is unknown", hint="use hd, 1m or both")
        return HubLayout(
            repository="nkp37/OpenVid-1M",
            folder="OpenVid-1M",
            marker="data/train/OpenVid*.csv",
            tables=(_HD_TABLES if subset != "1m" else ()) + (_ONE_M_TABLES * (subset != "hd")),
            archives=(_HD if subset != "1m" else ()) + (_ONE_M * (subset != "hd")),
            loose="video",
        )
    assert name == "humanvid"
    return HubLayout(
        repository="zhenzhiwang/HumanVid",
        folder="HumanVid",
        marker="pexels-*-urls*.txt",
        tables=("pexels-*-urls*.txt",),
        archives=(),
        loose="videos",
    )


def matching(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Paths that fit one of the patterns, sorted."""
    patterns = tuple(patterns)
    return sorted(
        path
        for path in paths
        if any(
            path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
            for pattern in patterns
        )
    )


def target_folder(data_root: Path, name: str, settings: SourceConfig) -> Path:
    """Folder of a data set below `data_root`: where it is already, or where it will be."""
    layout = hub_layout(name, settings)
    if settings.root is not None:
        folder = data_root / settings.root
        if not folder.resolve().is_relative_to(data_root.resolve()):
            raise UserError(f"--{name}.root {settings.root} leads out of {data_root}")
        return folder
    found = find_root(data_root, settings, name, layout.marker) if data_root.is_dir() else None
    return found or data_root / layout.folder


def part_number(archive: str) -> int | None:
    """The number that OpenVidHD.json knows an archive of OpenVid-HD by; None for other archives."""
    match = _HD_PART.match(archive)
    return int(match["number"]) if match else None


def urls_by_name(lists: Iterable[Path], hosts: Iterable[str]) -> dict[str, str]:
    """File name -> its URL in HumanVid's lists. UserError for a URL on a host not in `hosts`."""
    found: dict[str, str] = {}
    allowed = set(hosts)
    for path in lists:
        for number, line in enumerate(
            path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1
        ):
            try:
                url = urlsplit(line.strip())
                host = url.hostname
            except ValueError:  # brackets that are no IPv6 address
                continue
            if url.scheme not in ("http", "https") or not host:
                continue
            if host not in allowed:
                raise UserError(
                    f"{path.name}, line {number} names the host {host}",
                    hint="if you trust it, pass it in --url-hosts",
                )
            found.setdefault(url.path.rsplit("/", 1)[-1], line.strip())
    return found
