"""Files that appear whole or not at all; the same rows are the same bytes."""

from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.core.geometry import Codec, LatentShape, VideoShape, parse_size
from colibri.core.shards import QUARANTINE_SCHEMA, read_rows, write_shard, write_whole


def _row(number: int) -> dict[str, object]:
    return dict.fromkeys(QUARANTINE_SCHEMA.names) | {"id": f"{number:03d}", "reason": "x"}


def test_same_rows_give_same_bytes(tmp_path: Path) -> None:
    rows = [_row(number) for number in range(300)]
    one = write_shard(tmp_path / "a" / "s.parquet", rows, QUARANTINE_SCHEMA)
    two = write_shard(tmp_path / "b" / "s.parquet", rows, QUARANTINE_SCHEMA)
    assert one.sha256 == two.sha256
    assert [row["id"] for row in read_rows(tmp_path / "a" / "s.parquet")] == [
        row["id"] for row in rows
    ]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_token_counts_are_derived() -> None:
    wan22 = Codec(time=4, space=16, channels=48)
    wan21 = Codec(time=4, space=8, channels=16)
    long = LatentShape.of(VideoShape(frames=121, height=704, width=1280), wan22)
    assert (long.frames, long.height, long.width) == (31, 44, 80)
    assert long.tokens((1, 2, 2)) == 27_280
    short = LatentShape.of(VideoShape(frames=81, height=480, width=832), wan21)
    assert short.tokens((1, 2, 2)) == 32_760


def test_sizes_that_do_not_fit_are_refused_with_the_mend() -> None:
    wan22 = Codec(time=4, space=16, channels=48)
    with pytest.raises(UserError, match="use 117 or 121"):
        LatentShape.of(VideoShape(frames=120, height=704, width=1280), wan22)
    with pytest.raises(UserError, match="height 700 is not a multiple of 16"):
        LatentShape.of(VideoShape(frames=121, height=700, width=1280), wan22)
    assert parse_size("1280x704") == (704, 1280)
    with pytest.raises(UserError, match="1280x704"):
        parse_size("big")
