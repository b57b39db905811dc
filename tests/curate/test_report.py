"""The report: whole, self-contained, and harmless whatever a caption holds."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.core.shards import (
    QUARANTINE_SCHEMA,
    REJECTED_SCHEMA,
    SHARD_SCHEMA,
    write_json_whole,
    write_shard,
)
from colibri.curate.report import write_report
from colibri.curate.report.page import diff, shown
from PIL import Image

HOSTILE = [
    "<script>alert('x')</script><img src=x onerror=alert(1)>",
    "</p></article><style>body{display:none}</style>",
    '"><svg onload=alert(1)>',
    'javascript:alert(1) =HYPERLINK("http://127.0.0.1") \x07\x1b[31m\u202egnorw',
    "{{ manifest }} {% for x in y %}",
    "word " * 4000,
]


def _row(number: int, text: str) -> dict[str, object]:
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30 * (number % 8), 60)).save(picture, "JPEG")
    finding = {"rule": "R4", "start": 0, "end": 3, "text": text[:3], "message": "m",
               "ambiguous": number % 2 == 0}  # fmt: skip
    return {
        "id": f"{number:024x}",
        "source": "openvid",
        "video": f"a/{number}.mp4",
        "member": None,
        "start_s": None,
        "image": {"bytes": picture.getvalue(), "path": "x.jpg"},
        "width": 64,
        "height": 48,
        "fps": 25.0,
        "num_frames": 125,
        "caption_original": "The video shows " + text,
        "caption": text,
        "captioner": "colibri-rules/0.1.0",
        "findings": [finding],
        "judge": dict.fromkeys(("score", "fluency", "faithfulness", "coverage", "band"), 0.5),
        "score": 0.5,
        "licence": "cc-by-4.0",
        "split": "train",
        "provenance": "{}",
        "reason": "below_score",
        "stage": "judge",
        "error": text[:50],
    }


EMBEDDED = {
    "name": "colibri-rules/0.1.0",
    "is_embedded": True,
    "reproducibility": "deterministic",
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    rows = [_row(number, text) for number, text in enumerate(HOSTILE)]
    for folder, schema in (
        ("data", SHARD_SCHEMA),
        ("rejected", REJECTED_SCHEMA),
        ("quarantine", QUARANTINE_SCHEMA),
    ):
        chosen = [{name: row.get(name) for name in schema.names} for row in rows]
        write_shard(tmp_path / folder / "shard-00000.parquet", chosen, schema)
    counts = {"in": 18, "kept": 6, "rejected": 6, "quarantined": 6}
    by_source = {"openvid": {"in": 18, "kept": 6, "rejected": {"below_score": 6},
                             "quarantined": {"breaks_rules": 6}}}  # fmt: skip
    write_json_whole(
        tmp_path / "manifest.json",
        {
            "format": 1,
            "made_by": {"python": "3"},
            "config": {"note": HOSTILE[0], "min_score": 0.5},
            "inputs": {"openvid": {HOSTILE[2]: "0" * 64}},
            "captioner": EMBEDDED,
            "judge": EMBEDDED,
            "judge_checks": {
                "anchors": {
                    "known": 12,
                    "right": 11,
                    "missed": [{"caption": HOSTILE[1], "broken": "R4", "said": HOSTILE[0]}],
                },
                "order_swap": {"rows": 4, "same_decision": 1.0, "same_rules": 0.5, "kappa": None},
            },
            "counts": {**counts, "by_source": by_source},
            "facts": [HOSTILE[1]],
            "alarms": [HOSTILE[0]],
        },
    )
    return tmp_path


def test_hostile_text_stays_text(out: Path) -> None:
    page = write_report(out).read_text(encoding="utf-8")
    assert page.count("<style>") == 1
    assert "<script" not in page
    assert "<svg onload" not in page
    assert not re.search(r"<[^>]*\sonerror=", page)
    assert "\x07" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;" in page
    assert "{{ manifest }}" in re.sub(r"</?(?:ins|del)>", "", page)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_the_page_reaches_out_to_nothing(out: Path) -> None:
    page = write_report(out).read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert len(page) < 400_000


def test_the_embedded_engine_is_named_as_what_it_is(out: Path) -> None:
    page = write_report(out).read_text(encoding="utf-8")
    assert "small embedded rule engine" in page
    assert "deterministic" in page
    assert re.search(r"known answers</td><td>11 of\s+12 right", page)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json"):
        write_report(tmp_path)


def test_a_diff_marks_words_that_went_and_came() -> None:
    before, after = diff("The video shows a dog", "A dog")
    assert str(before) == "<del>The video shows a</del> dog"
    assert str(after) == "<ins>A</ins> dog"


def test_long_and_unprintable_text_is_cut_and_shown() -> None:
    assert shown("a\x00b") == "a\u2423b"
    assert len(shown("x" * 5000)) < 1300


@pytest.mark.slow
def test_a_real_browser_draws_the_page(out: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed and could not be")
    page = write_report(out)
    picture = tmp_path / "page.png"
    subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--window-size=1240,2400", f"--screenshot={picture}", page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with Image.open(picture) as drawn:
        colours = drawn.convert("RGB").resize((124, 240)).getcolors(30_000)
    assert colours is not None
    assert len(colours) > 100
