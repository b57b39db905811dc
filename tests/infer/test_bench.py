"""The stages of a video in figures."""

import json
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.infer import models
from colibri.infer.bench import INCLUDES, Meter, bench, text
from colibri.infer.config import BenchConfig


def quiet(_: str) -> None:
    return


def test_every_stage_is_measured_cold_and_warm(ti2v: Path, tmp_path: Path) -> None:
    config = BenchConfig(
        model=str(ti2v),
        steps=2,
        frames=5,
        device="cpu",
        guidance=1.0,
        repeats=2,
        json=tmp_path / "bench.json",
    )
    table = bench(config, say=quiet)
    assert json.loads(config.json.read_text()) == table
    assert list(table["stages"]) == list(INCLUDES)
    for name, stage in table["stages"].items():
        loads = name.startswith("load")
        assert len(stage["all_s"]) == (1 if loads else 3)
        assert (stage["warm_s"] is None) == loads
        assert stage["peak_bytes"] > 10_000_000
    step, denoise = (table["stages"][name]["warm_s"] for name in ("step", "denoise"))
    assert 0 < step < denoise
    warm = [table["stages"][name]["warm_s"] for name in ("text", "denoise", "decode", "write")]
    assert table["total_warm_s"] == pytest.approx(sum(warm))
    assert table["versions"]["torch"]
    said = text(table)
    assert "resident, the process" in said
    assert "  step  " in said
    with pytest.raises(UserError, match="at least 1"):
        bench(BenchConfig(repeats=0), say=quiet)


def test_a_plan_is_made_and_kept_with_the_figures(ti2v: Path, tmp_path: Path) -> None:
    config = BenchConfig(
        model=str(ti2v), steps=1, frames=5, size=(32, 32), device="cpu", guidance=1.0, repeats=1,
        vram="2", json=tmp_path / "bench.json",
    )  # fmt: skip
    told: list[str] = []
    table = bench(config, say=told.append)
    assert any(line.startswith("Memory plan for 2.00 GiB") for line in told)
    assert table["plan"]["budget_bytes"] == 2 << 30


def test_figures_that_could_not_be_written_are_not_measured(
    ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "load", None)  # nothing is loaded
    with pytest.raises(UserError, match="nothing can be written to /proc/nothing"):
        bench(BenchConfig(model=str(ti2v), json=Path("/proc/nothing/b.json")), say=quiet)
    with pytest.raises(UserError, match="is a folder; give a file"):
        bench(BenchConfig(model=str(ti2v), json=tmp_path), say=quiet)


def test_warm_is_the_median_without_the_first() -> None:
    ticks = iter([0.0, 9.0, 10.0, 11.0, 20.0, 25.0, 30.0, 32.0])
    meter = Meter("cpu", clock=lambda: next(ticks))
    for _ in range(4):
        with meter.stage("text"):
            pass
    assert meter.stages["text"].times_s == [9.0, 1.0, 5.0, 2.0]
    assert meter.stages["text"].warm_s == 2.0
