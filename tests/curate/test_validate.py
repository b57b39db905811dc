"""`curate validate`: JSON lines in, verdicts and spans out."""

import json
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.curate.validate import validate_file


def _write(path: Path, *entries: object) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_each_line_gets_its_verdict_in_order(tmp_path: Path, workers: int) -> None:
    entries = [
        {"id": n, "original": "A dog runs.", "caption": text}
        for n, text in enumerate(["A dog runs.", "The video shows a dog.", "We love a dog \u2764."])
    ]
    source = _write(tmp_path / "in.jsonl", *entries)
    summary = validate_file(source, tmp_path / "out.jsonl", workers=workers)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in found] == [0, 1, 2]
    assert found[0] == {"id": 0, "violates": [], "findings": []} or found[0]["violates"] == []
    assert found[1]["violates"] == ["R1"]
    assert "R6" in found[2]["violates"]
    assert set(found[1]["findings"][0]) == {
        *("rule", "start", "end", "text", "message", "ambiguous"),
    }
    assert summary.pairs == 3


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl", {"id": 1, "original": "a", "caption": "b"})
    with pytest.raises(UserError, match=r"out\.jsonl cannot be written"):
        validate_file(source, source / "out.jsonl")


@pytest.mark.parametrize(
    "line", ["not json", "[]", '{"id": 1}', '{"id": 1, "original": 2, "caption": "x"}']
)
def test_a_bad_line_is_named_and_the_old_output_stays(tmp_path: Path, line: str) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 1, "original": "a", "caption": "b"}\n' + line + "\n")
    target = tmp_path / "out.jsonl"
    target.write_text("old")
    with pytest.raises(UserError, match=r"in\.jsonl, line 2"):
        validate_file(source, target)
    assert target.read_text() == "old"
