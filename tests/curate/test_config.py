"""What `curate run` refuses before it works, and reasons that its reader can look up."""

import re
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.curate.cli import main
from colibri.curate.config import RunConfig
from colibri.curate.plan import PlanConfig

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"shard_rows": 0}, "--shard-rows"),
        ({"batch_rows": 0}, "--batch-rows"),
        ({"keep": -1}, "--keep"),
        ({"group_cap": 0}, "--group-cap"),
        ({"cpus": 0}, "--cpus"),
        ({"min_score": 1.5}, "--min-score"),
        ({"heldout": float("nan")}, "--heldout"),
        ({"judge_check": -0.1}, "--judge-check"),
        ({"near_duplicate": 2.0}, "--near-duplicate"),
        ({"calibrate": -1}, "--calibrate"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(settings: dict[str, float], flag: str) -> None:
    kind = PlanConfig if "calibrate" in settings else RunConfig
    with pytest.raises(UserError, match=f"{flag} has to be"):
        kind(**settings)  # type: ignore[arg-type]


def test_a_plan_is_as_strict_as_a_run() -> None:
    with pytest.raises(UserError, match="--shard-rows has to be"):
        PlanConfig(shard_rows=0)


def test_an_out_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.write_text("")
    assert main(["run", "--out", str(out)]) == 2
    assert f"nothing can be written to {out}" in capsys.readouterr().err


def test_the_formats_page_names_every_reason_and_no_other() -> None:
    packages = ROOT / "packages"
    curate = packages / "curate/src/colibri/curate"
    files = [
        *(path for path in curate.rglob("*.py") if path.parent.name != "export"),
        *(packages / "core/src/colibri/core").rglob("*.py"),
    ]
    given = (
        r'(?:RowError\(\s*|problem=\(|"reason": '
        r'|return "rejected", |\["reason"\][^=\n]*= )"([a-z_]+)"'
        r'|^REASONS = \(None, "(\w+)", "(\w+)", "(\w+)"\)'
    )
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    reasons = {name for found in re.findall(given, code, re.MULTILINE) for name in found if name}
    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    section = page.split("## Reasons")[1].split("For every source")[0]
    assert set(re.findall(r"`([a-z_]+)`", section)) == reasons
