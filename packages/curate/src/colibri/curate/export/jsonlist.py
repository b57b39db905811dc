"""A JSON list on disk, written as its items come."""

import json
from collections.abc import Iterable
from pathlib import Path

from colibri.core.shards import write_whole


def write_json_list(path: Path, items: Iterable[dict[str, object]]) -> None:
    """One item a line. ASCII, since trainers open it in whatever encoding their machine has."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="ascii", newline="\n") as file:
            before = "["
            for item in items:
                file.write(f"{before}\n{json.dumps(item)}")
                before = ","
            file.write("\n]\n" if before == "," else "[]\n")

    write_whole(path, write)
