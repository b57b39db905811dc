"""`curate calibrate`: sample, let a person label, tell how far the judge can be trusted."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole, write_text_whole
from colibri.curate.calibrate.figures import Calibration, as_text, measure
from colibri.curate.calibrate.journal import Journal, Session
from colibri.curate.calibrate.sample import draw, read_label_rows, read_scored, stratify


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateConfig:
    """What `curate calibrate` can be told."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Output folder of a finished curate run."""
    rows: int = 200
    """Rows to label, spread evenly over score deciles and fates."""
    seed: int = 0
    """Decides which rows, and their order."""
    labels: Path | None = None
    """Labels file, read and appended to. Without it: OUT/calibration.labels.jsonl."""
    page: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Label on a local page in a browser."""
    terminal: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Label in the terminal; the default where there is one."""
    port: int = 0
    """Port of the page on 127.0.0.1. 0 takes a free one."""
    target_precision: float = 0.95
    """Precision, in (0, 1], that the implied threshold has to reach."""


def calibrate(config: CalibrateConfig) -> str:
    """Label, write OUT/calibration.json and .toml, and return the text to print.

    With neither `page` nor `terminal` and no terminal on standard input: figures from the labels
    that are there. UserError for an unfinished run or where nothing is labelled.
    """
    _check(config)
    manifest = _manifest(config.out)
    scored = read_scored(config.out)
    if not scored:
        raise UserError(f"{config.out} holds no row with a score", hint="finish `curate run` first")
    strata = stratify(scored)
    sample = draw(strata, rows=config.rows, seed=config.seed)
    journal = Journal(config.labels or config.out / "calibration.labels.jsonl")
    answered = {row_id for row_id, _ in journal.labels}
    rows = read_label_rows(config.out, {*sample, *answered})
    _label(config, Session([rows[row_id] for row_id in sample], journal))
    calibration = measure(
        journal,
        scored=scored,
        sample=sample,
        rows=rows,
        judge=manifest["judge"]["name"],
        min_score=float(manifest["config"]["min_score"]),
        target_precision=config.target_precision,
        seed=config.seed,
    )
    write_json_whole(config.out / "calibration.json", {"format": 1, **to_table(calibration)})
    _write_toml(config.out / "calibration.toml", calibration)
    return as_text(calibration, config.out)


def _check(config: CalibrateConfig) -> None:
    if config.rows < 1:
        raise UserError(f"--rows has to be at least 1, found {config.rows}")
    if not 0 < config.target_precision <= 1:
        raise UserError(f"--target-precision lies in (0, 1], found {config.target_precision}")
    if not 0 <= config.port <= 65535:
        raise UserError(f"--port lies between 0 and 65535, found {config.port}")
    if config.page and config.terminal:
        raise UserError("--page and --terminal exclude each other", hint="choose one")


def _manifest(out: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{out} holds no manifest.json", hint="finish `curate run` first") from None
    assert isinstance(manifest, dict)
    return manifest


def _label(config: CalibrateConfig, session: Session) -> None:
    if config.page:
        from colibri.curate.calibrate.page import label_on_page

        label_on_page(session, port=config.port, announce=_announce)
    elif config.terminal or (sys.stdin.isatty() and sys.stdout.isatty()):
        from colibri.curate.calibrate.label import label_in_terminal

        label_in_terminal(session)


def _announce(url: str) -> None:
    print(f"Label at {url}", flush=True)
    print("The page only answers on this machine. Finish there, or press Ctrl-C here.", flush=True)


def _write_toml(path: Path, calibration: Calibration) -> None:
    """`min_score` for `curate run --config`; without a threshold no file, an older one goes."""
    reached = calibration.threshold
    if reached is None:
        path.unlink(missing_ok=True)
        return
    assert reached.interval is not None
    low, high = reached.interval
    write_text_whole(
        path,
        f"# From curate calibrate: precision {reached.precision:.3f}, 95 % interval {low:.3f} to "
        f"{high:.3f}.\nmin_score = {reached.threshold!r}\n",
    )
