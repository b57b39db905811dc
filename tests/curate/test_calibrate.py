"""Calibration as a person does it: keys through a terminal, requests to the real page, kills."""

import http.client
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pytest
from colibri.core.config import load_toml
from colibri.core.errors import UserError
from colibri.core.shards import REJECTED_SCHEMA, SHARD_SCHEMA, write_json_whole, write_shard
from colibri.curate.calibrate import CalibrateConfig, calibrate
from colibri.curate.calibrate.agreement import (
    Judged,
    agree,
    agree_on_rules,
    curve,
    implied_threshold,
    kappa,
    point,
)
from colibri.curate.calibrate.journal import Journal, Label, Session
from colibri.curate.calibrate.page import LabelServer, frame_uri
from colibri.curate.calibrate.sample import (
    LabelRow,
    draw,
    read_label_rows,
    read_scored,
    stratify,
    weights,
)
from colibri.curate.config import RunConfig
from PIL import Image

COMMAND = (
    "import sys\n"
    "from colibri.core.commands import run_command\n"
    "from colibri.core.config import parse\n"
    "from colibri.curate.calibrate import CalibrateConfig, calibrate\n"
    "def main():\n"
    "    config = parse(CalibrateConfig, sys.argv[1:], prog='c', description='', toml=None)\n"
    "    print(calibrate(config))\n"
    "    return 0\n"
    "sys.exit(run_command(main))\n"
)

MEASURES = ("score", "fluency", "faithfulness", "coverage", "band")
JUDGE = pa.struct([(name, pa.float64()) for name in MEASURES])
"""The column as it is without verdicts by rule."""

HOSTILE = [
    "<script>alert('x')</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</textarea></form><style>body{display:none}</style>",
    "esc \x1b[2J\x1b]0;title\x07 \u202egnorw",
    "{{ row }} {% for x in y %}",
]


def _row(number: int, score: float | None, reason: str | None, text: str) -> dict[str, Any]:
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30 * (number % 8), 60)).save(picture, "JPEG")
    parts = dict.fromkeys(MEASURES[1:], 0.5)
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
        "caption_original": f"The video shows {text}",
        "caption": text,
        "captioner": "colibri-rules/0.1.0",
        "findings": [],
        "judge": None if score is None else {"score": score, **parts},
        "score": score,
        "licence": "cc-by-4.0",
        "split": "train",
        "provenance": "{}",
        "reason": reason,
    }


def _rows(texts: dict[int, str] | None = None) -> list[dict[str, Any]]:
    """60 kept from 0.5 up, 20 below 0.5, 10 near-copies with a score, 5 that were never scored."""
    texts = texts or {}
    fates: list[tuple[float | None, str | None]] = [
        (0.5 + number / 120, None) for number in range(60)
    ]
    fates += [(number / 40, "below_score") for number in range(20)]
    fates += [(0.6 + number / 40, "duplicate_caption") for number in range(10)]
    fates += [(None, "too_short")] * 5
    return [
        _row(number, score, reason, texts.get(number, f"Clip {number} of a dog."))
        for number, (score, reason) in enumerate(fates)
    ]


def _write(out: Path, rows: list[dict[str, Any]], judge: pa.StructType = JUDGE) -> Path:
    for folder, schema, chosen in (
        ("data", SHARD_SCHEMA, [row for row in rows if row["reason"] is None]),
        ("rejected", REJECTED_SCHEMA, [row for row in rows if row["reason"] is not None]),
    ):
        schema = schema.set(schema.get_field_index("judge"), pa.field("judge", judge))
        kept = [{name: row[name] for name in schema.names} for row in chosen]
        write_shard(out / folder / "shard-00000.parquet", kept, schema)
    manifest = {
        "config": {"min_score": 0.5},
        "judge": {"name": "colibri-rules/0.1.0", "is_embedded": True},
    }
    write_json_whole(out / "manifest.json", manifest)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return _write(tmp_path / "out", _rows())


def _person(out: Path, says: Callable[[LabelRow, float], str], **settings: Any) -> dict[str, Any]:
    """Label the whole sample as `says` does, then run the command without a terminal."""
    config = CalibrateConfig(out=out, **settings)
    scored = read_scored(out)
    scores = {row.id: row.score for row in scored}
    ids = draw(stratify(scored), rows=config.rows, seed=config.seed)
    rows = read_label_rows(out, ids)
    session = Session([rows[row_id] for row_id in ids], Journal(_labels(out)))
    while (row := session.next_row()) is not None:
        answer, *rules = says(row, scores[row.id]).split()
        session.answer(row.id, answer, rules)
    calibrate(config)
    figures: dict[str, Any] = json.loads((out / "calibration.json").read_text())
    return figures


def _labels(out: Path) -> Path:
    return out / "calibration.labels.jsonl"


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _labels(out).read_text().splitlines()]


# ---- sample ----


def test_the_same_seed_draws_the_same_rows_and_another_does_not(out: Path) -> None:
    strata = stratify(read_scored(out))
    assert draw(strata, rows=30, seed=0) == draw(dict(reversed(strata.items())), rows=30, seed=0)
    assert set(draw(strata, rows=30, seed=0)) != set(draw(strata, rows=30, seed=1))


def test_more_rows_of_one_seed_keep_the_rows_drawn_before(out: Path) -> None:
    strata = stratify(read_scored(out))
    assert set(draw(strata, rows=20, seed=3)) < set(draw(strata, rows=50, seed=3))


def test_every_stratum_is_drawn_from_and_unscored_rows_are_not(out: Path) -> None:
    strata = stratify(read_scored(out))
    assert len(strata) == 90
    drawn = draw(strata, rows=45, seed=0)
    assert len(drawn) == len(set(drawn)) == 45
    assert {strata[row_id] for row_id in drawn} == set(strata.values())
    assert {fate for fate, _ in strata.values()} == {"kept", "below_score", "rejected"}
    assert {decile for _, decile in strata.values()} == set(range(10))
    assert len(draw(strata, rows=1000, seed=0)) == 90


def test_the_order_tells_nothing_of_the_score(out: Path) -> None:
    scored = read_scored(out)
    order = draw(stratify(scored), rows=90, seed=0)
    scores = {row.id: row.score for row in scored}
    assert abs(np.corrcoef(range(90), [scores[row_id] for row_id in order])[0, 1]) < 0.3


def test_weights_add_up_to_the_rows_they_stand_for(out: Path) -> None:
    strata = stratify(read_scored(out))
    drawn = draw(strata, rows=40, seed=0)
    by_fate: Counter[str] = Counter()
    for row_id, weight in weights(strata, drawn).items():
        by_fate[strata[row_id][0]] += weight  # type: ignore[assignment]
    assert {fate: round(total, 9) for fate, total in by_fate.items()} == {
        "kept": 60,
        "below_score": 20,
        "rejected": 10,
    }


# ---- figures ----


def _judged(both: int, judge_only: int, person_only: int, neither: int) -> list[Judged]:
    return (
        [Judged(score=0.9, good=True)] * both
        + [Judged(score=0.9, good=False)] * judge_only
        + [Judged(score=0.1, good=True)] * person_only
        + [Judged(score=0.1, good=False)] * neither
    )


def test_kappa_has_the_value_computed_by_hand() -> None:
    # p_o = 35/50 = 0.7; p_e = 0.6 * 0.5 + 0.4 * 0.5 = 0.5; kappa = 0.2 / 0.5
    found = agree(_judged(20, 10, 5, 15), threshold=0.5)
    assert found.raw == 0.7
    assert found.kappa == pytest.approx(0.4)
    assert found.rows == {"both_good": 20, "judge_only": 10, "person_only": 5, "both_bad": 15}
    # the analytic interval, with s.e. = sqrt(p_o (1 - p_o) / n) / (1 - p_e) = 0.1296
    assert found.interval == pytest.approx((0.146, 0.654), abs=0.04)


def test_kappa_of_perfect_and_of_opposite_answers() -> None:
    assert kappa(np.array([[5.0, 0, 0, 5], [0, 5, 5, 0], [25, 25, 25, 25]])) == pytest.approx(
        [1.0, -1.0, 0.0]
    )
    perfect = agree(_judged(5, 0, 0, 5), threshold=0.5)
    assert perfect.note is not None
    assert "interval of kappa says little" in perfect.note


def test_the_interval_is_the_same_every_time() -> None:
    first = agree(_judged(20, 10, 5, 15), threshold=0.5)
    assert first == agree(_judged(20, 10, 5, 15), threshold=0.5)


def test_a_weight_counts_like_that_many_rows() -> None:
    weighted = [replace(row, weight=5.0) for row in _judged(4, 2, 1, 3)]
    assert (
        agree(weighted, threshold=0.5).kappa == agree(_judged(20, 10, 5, 15), threshold=0.5).kappa
    )
    mixed = [
        Judged(score=0.9, good=True, weight=20.0),
        Judged(score=0.9, good=False, weight=10.0),
        Judged(score=0.1, good=True, weight=5.0),
        Judged(score=0.1, good=False, weight=15.0),
    ]
    assert agree(mixed, threshold=0.5).kappa == pytest.approx(0.4)
    assert point(mixed, [0.9, 0.1], threshold=0.9).precision == pytest.approx(2 / 3, abs=1e-6)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ((5, 5, 0, 0), "judge passes every"),
        ((0, 0, 5, 5), "judge fails every"),
        ((5, 0, 5, 0), "every labelled row good"),
        ((0, 5, 0, 5), "every labelled row bad"),
    ],
)
def test_one_kind_of_answer_leaves_kappa_undefined_and_says_so(
    cells: tuple[int, int, int, int], words: str
) -> None:
    found = agree(_judged(*cells), threshold=0.5)
    assert found.kappa is None
    assert found.interval is None
    assert found.note is not None
    assert "undefined" in found.note
    assert words in found.note


def test_the_curve_and_its_threshold_by_hand() -> None:
    answers = [(0.2, False), (0.4, True), (0.6, False), (0.8, True), (0.9, True)]
    judged = [Judged(score=score, good=good) for score, good in answers]
    points = curve(judged, [0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0])
    assert [p.threshold for p in points] == [0.2, 0.4, 0.6, 0.8, 0.9]
    assert [p.precision for p in points] == pytest.approx([3 / 5, 3 / 4, 2 / 3, 1, 1], abs=1e-6)
    assert [p.recall for p in points] == pytest.approx([1, 1, 2 / 3, 2 / 3, 1 / 3], abs=1e-6)
    assert [p.passes for p in points] == [7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8]
    chosen = implied_threshold(points, 0.75)
    assert chosen is not None
    assert chosen.threshold == 0.4
    above = implied_threshold(points, 0.8)
    assert above is not None
    assert above.threshold == 0.8
    # Wilson for 2 of 2: [1 / (1 + z^2 / 2), 1]
    assert above.interval == pytest.approx((0.342380, 1.0), abs=1e-6)


def test_no_threshold_where_none_reaches_the_target() -> None:
    points = curve([Judged(score=s, good=s < 0.5) for s in (0.3, 0.6, 0.9)], [0.3, 0.6, 0.9])
    assert implied_threshold(points, 0.95) is None


def test_rules_are_compared_where_both_spoke() -> None:
    found = agree_on_rules(
        [
            ({"R1"}, {"R1": "broken", "R4": "ok"}),
            (set(), {"R1": "ok", "R4": "broken"}),
            ({"R4"}, {"R1": "unsure", "R4": "broken"}),
            (set(), {"R1": "broken", "R4": "ok"}),
        ]
    )
    assert [(r.rule, r.rows, r.person, r.judge, r.both) for r in found] == [
        ("R1", 3, 1, 2, 1),
        ("R4", 4, 1, 2, 1),
    ]
    assert found[1].raw == 0.75
    assert found[1].kappa == pytest.approx(0.5)  # p_o 3/4, p_e 1/8 + 3/8


# ---- the whole command ----


def test_the_threshold_is_where_the_person_draws_the_line(out: Path) -> None:
    figures = _person(
        out, lambda row, score: "good" if score >= 0.7 else "bad", target_precision=1.0
    )
    assert figures["scored_rows"] == 90
    assert figures["represented"] == 1
    assert figures["threshold"]["threshold"] == 0.7
    assert figures["threshold"]["precision"] == figures["threshold"]["recall"] == 1
    assert 0 < figures["agreement"]["kappa"] < 1
    assert load_toml(RunConfig, out / "calibration.toml").min_score == 0.7
    # all rows are labelled, so that the figures are plain counts
    good = sum(row.score >= 0.7 for row in read_scored(out))
    assert figures["labels"]["good"] == good
    assert figures["at_min_score"]["precision"] == pytest.approx(good / 70, abs=1e-6)


def test_a_sample_estimates_what_all_rows_would_say(out: Path) -> None:
    figures = _person(out, lambda row, score: "good" if score >= 0.7 else "bad", rows=60)
    good = sum(row.score >= 0.7 for row in read_scored(out))
    assert figures["at_min_score"]["precision"] == pytest.approx(good / 70, abs=0.05)
    assert figures["at_min_score"]["passes"] == pytest.approx(70 / 90, abs=1e-6)


def test_the_figures_are_the_same_bytes_on_a_second_run(out: Path) -> None:
    _person(out, lambda row, score: "good" if score >= 0.7 else "bad R4")
    first = (out / "calibration.json").read_bytes()
    calibrate(CalibrateConfig(out=out))
    assert (out / "calibration.json").read_bytes() == first
    assert str(out).encode() not in first


def test_without_a_threshold_no_older_config_stays(out: Path) -> None:
    (out / "calibration.toml").write_text("min_score = 0.1\n")
    figures = _person(out, lambda row, score: "bad")
    assert figures["threshold"] is None
    assert figures["agreement"]["kappa"] is None
    assert not (out / "calibration.toml").exists()
    text = calibrate(CalibrateConfig(out=out))
    assert "No threshold has a precision of 0.95" in text
    assert "Kappa is undefined: the person calls every labelled row bad." in text


def test_rules_that_a_model_judged_are_compared(tmp_path: Path) -> None:
    entry = pa.struct([(name, pa.string()) for name in ("rule", "verdict", "evidence")])
    judge = pa.struct([*JUDGE, pa.field("rules", pa.list_(entry))])
    rows = _rows()
    for row in rows:
        if row["judge"]:
            verdict = "broken" if row["score"] < 0.5 else "ok"
            row["judge"]["rules"] = [{"rule": "R4", "verdict": verdict, "evidence": "a dog"}]
    out = _write(tmp_path, rows, judge)
    figures = _person(out, lambda row, score: "good" if score >= 0.6 else "bad R4 R1")
    (rule,) = figures["rules"]
    assert (rule["rule"], rule["rows"], rule["judge"], rule["person"]) == ("R4", 90, 20, 32)
    assert rule["raw"] == pytest.approx(78 / 90, abs=1e-6)
    assert "R4" in calibrate(CalibrateConfig(out=out))


def test_named_rules_without_verdicts_by_rule_are_said_to_be_of_no_use(out: Path) -> None:
    figures = _person(out, lambda row, score: "good" if score >= 0.6 else "bad R4")
    assert figures["rules"] == []
    assert any("no verdict by rule" in note for note in figures["notes"])


def test_a_label_of_a_changed_caption_is_ignored_and_counted(tmp_path: Path) -> None:
    out = _write(tmp_path, _rows())
    before = _person(out, lambda row, score: "good" if score >= 0.7 else "bad")
    _write(out, _rows({3: "Another caption.", 4: "And one more."}))
    text = calibrate(CalibrateConfig(out=out))
    after = json.loads((out / "calibration.json").read_text())
    assert after["labels"]["changed"] == after["labels"]["unanswered"] == 2
    assert after["labels"]["bad"] == before["labels"]["bad"] - 2
    assert "2: the caption changed since" in text
    _write(out, _rows())
    calibrate(CalibrateConfig(out=out))
    assert json.loads((out / "calibration.json").read_text()) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows": 0}, "--rows"),
        ({"target_precision": 0.0}, "--target-precision"),
        ({"target_precision": 1.5}, "--target-precision"),
        ({"port": 70_000}, "--port"),
        ({"page": True, "terminal": True}, "exclude each other"),
        ({"terminal": True}, "needs a terminal"),
        ({}, "no row is labelled"),
    ],
)
def test_wrong_input_is_one_sentence(out: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        calibrate(CalibrateConfig(out=out, **settings))
    assert not (out / "calibration.json").exists()


def test_a_folder_without_a_run_or_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest\.json"):
        calibrate(CalibrateConfig(out=tmp_path))
    _write(tmp_path, [row for row in _rows() if row["score"] is None])
    with pytest.raises(UserError, match="no row with a score"):
        calibrate(CalibrateConfig(out=tmp_path))


# ---- the labels file ----


def _label(number: int, answer: Any = "good") -> Label:
    return Label(id=f"{number:024x}", label=answer, rules=(), caption_hash="h")


def test_a_line_that_a_crash_cut_costs_no_other_label(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    Journal(path).add(_label(1))
    with path.open("ab") as file:
        file.write(b'{"id": "000", "lab')
    Journal(path).add(_label(2))
    journal = Journal(path)
    assert list(journal.labels.values()) == [_label(1), _label(2)]
    assert journal.unreadable == 1


def test_a_last_line_without_its_end_counts_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    Journal(path).add(_label(1))
    path.write_bytes(path.read_bytes().rstrip())
    Journal(path).add(_label(2))
    assert len(Journal(path).labels) == 2
    assert Journal(path).unreadable == 0


def test_lines_of_any_other_kind_are_counted_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    whole = {"id": "1", "label": "good", "rules": [], "caption_hash": "h"}
    wrong = [
        *(whole | change for change in ({"label": "fine"}, {"rules": ["R9"]}, {"id": 3})),
        *(whole | {"rules": None}, {"id": "1"}, [1], "good", None),
    ]
    path.write_bytes(b"\n".join(json.dumps(line).encode() for line in wrong) + b"\n\xff\xfe\n")
    journal = Journal(path)
    assert not journal.labels
    assert journal.unreadable == len(wrong) + 1


def test_a_later_answer_wins_and_an_answer_can_be_taken_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "labels.jsonl")
    rows = [
        LabelRow(id=str(n), original="o", caption=f"c{n}", frame=None, rule_verdicts={})
        for n in range(3)
    ]
    session = Session(rows, journal)
    session.answer("0", "good")
    session.answer("1", "bad", ["R4", "R1", "R4"])
    session.answer("0", "skip", ["R1"])
    assert [(label.id, label.label, label.rules) for label in journal.labels.values()] == [
        ("1", "bad", ("R1", "R4")),
        ("0", "skip", ()),
    ]
    again = Session(rows, Journal(journal.path))
    assert again.undo()
    assert again.next_row() is rows[0]
    assert again.undo()
    assert not again.undo()
    assert not Journal(journal.path).labels
    assert len(journal.path.read_text().splitlines()) == 5


def test_a_file_that_takes_no_labels_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read labels"):
        Journal(tmp_path)
    journal = Journal(tmp_path / "labels.jsonl")
    (tmp_path / "labels.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        journal.add(_label(1))


# ---- the terminal ----


class Terminal:
    """The command behind a pseudo-terminal, with somebody at the keys."""

    def __init__(self, out: Path, *flags: str) -> None:
        self.seen = ""
        pid, self.handle = pty.fork()
        if pid == 0:
            os.environ["COLUMNS"], os.environ["TERM"] = "90", "xterm"
            os.execv(sys.executable, [sys.executable, "-c", COMMAND, str(out), *flags])
        self.pid = pid

    def wait_for(self, text: str, timeout_s: float = 180) -> str:
        """What came until `text` did; it is then behind us."""
        deadline_s = time.monotonic() + timeout_s
        while text not in self.seen:
            ready, _, _ = select.select([self.handle], [], [], 0.2)
            assert time.monotonic() < deadline_s, f"no {text!r} in {self.seen[-2000:]!r}"
            if ready:
                self.seen += os.read(self.handle, 65536).decode()
        before, self.seen = self.seen.split(text, 1)
        return before

    def press(self, keys: str) -> None:
        os.write(self.handle, keys.encode())

    def end(self) -> int:
        """Exit status; what is left of the output goes to `seen`."""
        while True:
            try:
                piece = os.read(self.handle, 65536)
            except OSError:
                break
            if not piece:
                break
            self.seen += piece.decode()
        os.close(self.handle)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.slow
def test_keys_in_a_terminal_become_labels_and_a_kill_loses_none(tmp_path: Path) -> None:
    out = _write(tmp_path, _rows(dict.fromkeys(range(90), HOSTILE[3])))
    terminal = Terminal(out, "--rows", "12")
    screen = terminal.wait_for("1 of 12") + terminal.wait_for("save and quit")
    assert "\x1b]0;" not in screen
    assert "\u202e" not in screen
    assert "below_score" not in screen
    assert "score" not in screen
    terminal.press("\x1b[B\x1b[A")  # arrows answer nothing, though B is in one
    terminal.press("g")
    terminal.wait_for("2 of 12")
    terminal.press("41")
    terminal.wait_for("broken: R1")
    terminal.press("b")
    terminal.wait_for("3 of 12")
    terminal.press("s")
    terminal.wait_for("4 of 12")
    terminal.press("g")
    terminal.wait_for("5 of 12")
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.end()
    assert [(line["label"], line["rules"]) for line in _lines(out)] == [
        ("good", []),
        ("bad", ["R1", "R4"]),
        ("skip", []),
        ("good", []),
    ]

    terminal = Terminal(out, "--rows", "12")
    terminal.wait_for("5 of 12")
    terminal.press("u")
    terminal.wait_for("4 of 12")
    terminal.press("b")
    terminal.wait_for("5 of 12")
    terminal.press("ggggg")
    terminal.wait_for("10 of 12")
    terminal.press("q")
    assert terminal.end() == 0
    assert "6 good, 2 bad, 1 skipped, 3 not answered" in terminal.seen
    order = draw(stratify(read_scored(out)), rows=12, seed=0)
    assert [line["id"] for line in _lines(out)[:4]] == order[:4]
    assert _lines(out)[4] == _lines(out)[3] | {"label": None}


@pytest.mark.slow
def test_a_terminal_that_hangs_up_leaves_the_labels(out: Path) -> None:
    terminal = Terminal(out, "--rows", "6", "--terminal")
    terminal.wait_for("1 of 6")
    terminal.press("gg")
    terminal.wait_for("3 of 6")
    os.close(terminal.handle)
    os.waitpid(terminal.pid, 0)
    assert [line["label"] for line in _lines(out)] == ["good", "good"]


# ---- the page ----


class Page:
    """The command with --page, and a browser's requests to it."""

    def __init__(self, out: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(out), "--page", *flags],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        self.address = urlsplit(self.url)

    def ask(
        self, method: str = "GET", path: str | None = None, **extra: Any
    ) -> tuple[int, dict[str, str], str]:
        assert self.address.port is not None
        connection = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=120)
        connection.request(method, self.address.path if path is None else path, **extra)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text

    def say(self, answer: str, row_id: str = "", rules: tuple[str, ...] = ()) -> int:
        form = urlencode([("id", row_id), ("answer", answer), *(("rule", rule) for rule in rules)])
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", body=form, headers=headers)[0]

    def shown_id(self) -> str:
        found = re.search(r'name="id" value="([0-9a-f-]+)"', self.ask()[2])
        assert found is not None
        return found[1]

    def end(self) -> tuple[int, str]:
        text, _ = self.process.communicate(timeout=180)
        return self.process.returncode, text


@pytest.fixture
def pages() -> Iterator[Callable[..., Page]]:
    opened: list[Page] = []

    def open_page(*arguments: Any) -> Page:
        opened.append(Page(*arguments))
        return opened[-1]

    yield open_page
    for page in opened:
        if page.process.poll() is None:
            page.process.kill()
            page.process.communicate()


@pytest.mark.slow
def test_requests_to_the_page_become_labels_and_a_kill_loses_none(
    out: Path, pages: Callable[..., Page]
) -> None:
    page = pages(out, "--rows", "12")
    order = draw(stratify(read_scored(out)), rows=12, seed=0)
    assert page.shown_id() == order[0]
    assert page.say("good", order[0]) == 303
    assert page.say("good", order[0]) == 303  # a second click
    assert page.say("bad", order[1], ("R4", "R1")) == 303
    assert page.shown_id() == order[2]
    page.process.kill()
    page.process.communicate()
    assert [(line["id"], line["label"], line["rules"]) for line in _lines(out)] == [
        (order[0], "good", []),
        (order[1], "bad", ["R1", "R4"]),
    ]

    page = pages(out, "--rows", "12")
    assert page.shown_id() == order[2]
    assert page.say("undo") == 303
    assert page.shown_id() == order[1]
    for row_id in order[1:]:
        assert page.say("good", row_id) == 303
    assert "All rows are answered" in page.ask()[2]
    assert page.say("finish") == 200
    status, text = page.end()
    assert status == 0
    assert "12 good, 0 bad" in text
    assert (out / "calibration.toml").exists()


@pytest.mark.slow
def test_the_page_answers_nobody_without_its_token(out: Path, pages: Callable[..., Page]) -> None:
    page = pages(out, "--rows", "3")
    row_id = page.shown_id()
    assert page.address.hostname == "127.0.0.1"
    assert len(page.address.path) > 30
    assert page.ask(path="/")[0] == 404
    assert page.ask(path="/favicon.ico")[0] == 404
    assert page.ask(path=page.address.path + "../../etc/passwd")[0] == 404
    assert page.ask("POST", "/", body=f"id={row_id}&answer=good")[0] == 404
    assert page.ask(headers={"Host": "evil.example"})[0] == 404
    assert page.ask("POST", body="x" * 20_000)[0] == 400
    assert page.say("good", "no such row") == 400
    assert page.say("splendid", row_id) == 400
    assert page.say("bad", row_id, ("R9",)) == 400
    assert not _labels(out).exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_page_with_figures(out: Path, pages: Callable[..., Page]) -> None:
    page = pages(out, "--rows", "3")
    assert page.say("good", page.shown_id()) == 303
    page.process.send_signal(signal.SIGINT)
    status, text = page.end()
    assert status == 0
    assert "1 good, 0 bad, 0 skipped, 2 not answered" in text


@pytest.mark.slow
def test_a_taken_port_is_one_sentence(out: Path, pages: Callable[..., Page]) -> None:
    port = pages(out).address.port
    with pytest.raises(UserError, match=f"cannot listen on port {port}"):
        calibrate(CalibrateConfig(out=out, page=True, port=int(port or 0)))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_and_the_verdict_stays_hidden(text: str) -> None:
    row = LabelRow(
        id="0" * 24, original=f"old {text}", caption=text, frame=b"\xff\xd8 no picture",
        rule_verdicts={"R4": "broken"},
    )  # fmt: skip
    server = LabelServer(Session([row], Journal(Path("/nonexistent/labels"))), port=0)
    try:
        page = server.render("nonce")
    finally:
        server.server_close()
    assert page.count("<script") == page.count("<style") == page.count("<form") == 1
    assert "<svg" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "broken" not in page.lower().replace("broken rules, if you like", "")
    assert "score" not in page
    assert not re.findall(r'(?:src|href|action)="(?!data:)', page)
    words = unescape(re.sub(r"</?(?:ins|del)>", "", page))
    assert text.split("\x1b")[0] in words


def test_long_captions_are_drawn_in_time() -> None:
    row = LabelRow(id="0", original="word and " * 4000, caption="word or " * 4000, frame=None,
                   rule_verdicts={})  # fmt: skip
    server = LabelServer(Session([row], Journal(Path("/nonexistent/labels"))), port=0)
    try:
        start_s = time.monotonic()
        server.render("nonce")
        assert time.monotonic() - start_s < 10
    finally:
        server.server_close()


def test_a_frame_is_drawn_again_or_left_out() -> None:
    picture = io.BytesIO()
    Image.new("RGB", (2000, 1000), (200, 30, 60)).save(picture, "PNG")
    assert frame_uri(picture.getvalue()).startswith("data:image/jpeg;base64,")
    assert frame_uri(b"\x89PNG\r\n\x1a\n nothing") == ""
    assert frame_uri(picture.getvalue()[:200]) == ""
    assert frame_uri(None) == ""


@pytest.mark.slow
def test_a_real_browser_draws_the_page(
    out: Path, tmp_path: Path, pages: Callable[..., Page]
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed and could not be")
    page = pages(out, "--rows", "12")
    picture = tmp_path / "page.png"
    subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
            *("--window-size=1240,900", f"--screenshot={picture}", page.url),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    with Image.open(picture) as drawn:
        colours = drawn.convert("RGB").resize((124, 90)).getcolors(30_000)
    assert colours is not None
    assert len(colours) > 50
    _, headers, _ = page.ask()
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


class Browser:
    """Chromium, told over its debugging pipe (file descriptors 3 and 4) what to do."""

    def __init__(self, chromium: str, profile: Path) -> None:
        (from_us, self.out), (self.back, to_us) = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                 "--disable-background-networking", "--remote-debugging-pipe"]  # fmt: skip
        line = f'exec "$@" 3<&{from_us} 4>&{to_us}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, "bash", chromium, *flags, f"--user-data-dir={profile}"],
            pass_fds=(from_us, to_us),
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self.number, self.left = 0, b""

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.left:
                piece = os.read(self.back, 1 << 20)
                assert piece, "the browser ended"
                self.left += piece
            text, self.left = self.left.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> str:
        target = self.call("Target.createTarget", url=url)["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        session: str = attached["sessionId"]
        return session

    def evaluate(self, session: str, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", session, expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def press(self, session: str, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", session, type=kind, key=key, text=key)

    def wait_until(self, session: str, expression: str) -> None:
        deadline_s = time.monotonic() + 120
        while not self.evaluate(session, expression):
            assert time.monotonic() < deadline_s, expression
            time.sleep(0.05)


@pytest.mark.slow
def test_keys_in_a_real_browser_become_labels(tmp_path: Path, pages: Callable[..., Page]) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed and could not be")
    out = _write(tmp_path / "out", _rows(dict.fromkeys(range(90), HOSTILE[0])))
    page = pages(out, "--rows", "4")
    browser = Browser(chromium, tmp_path / "profile")
    try:
        tab = browser.open(page.url)
        done = (  # a page that is not whole does not hear its keys yet
            "document.readyState === 'complete' && "
            "document.querySelector('header span')?.textContent.startsWith('{} of 4')"
        )
        browser.wait_until(tab, done.format(0))
        assert "<script>alert" in browser.evaluate(tab, "document.body.innerText")
        for number, keys in enumerate(("g", "d14b", "s"), start=1):
            for key in keys:
                browser.press(tab, key)
            browser.wait_until(tab, done.format(number))
        browser.press(tab, "u")
        browser.wait_until(tab, done.format(2))
        browser.press(tab, "q")
        browser.wait_until(tab, "document.body.innerText.includes('Every answer is saved')")
    finally:
        browser.process.kill()
        browser.process.wait()
    assert page.end()[0] == 0
    assert [(line["label"], line["rules"]) for line in _lines(out)] == [
        ("good", []),
        ("bad", ["R1", "R4"]),
        ("skip", []),
        (None, []),
    ]
