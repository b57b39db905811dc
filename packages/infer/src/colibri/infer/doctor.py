"""`infer doctor`: what is here, what is slow or broken, its mend, and a profile of the device."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colibri.core import wan
from colibri.core.config import to_table
from colibri.infer import device_profile, models
from colibri.infer.config import DoctorConfig
from colibri.infer.decode import Say
from colibri.infer.device_profile import Profile, choose
from colibri.infer.facts import Facts, Finding, facts_here, findings

FORMAT = "colibri-doctor/1"
LARGE = wan.FAMILIES["wan2.2-ti2v-5b"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found out."""

    facts: Facts
    findings: tuple[Finding, ...]
    profile: Profile
    saved: Path | None


def doctor(config: DoctorConfig, *, say: Say = log.info) -> Report:
    """Look, time, judge, and save the profile that generation uses.

    UserError for a device that is not there, and a cache that cannot be written.
    """
    from colibri.infer.trials import run_trials

    machine = models.choose_machine(config.device)
    facts = facts_here(machine.device)
    say(f"Timing convolution, attention and matrix products on {facts.device}.")
    trials = tuple(run_trials(machine.device))
    profile = Profile(device=facts.device, torch=facts.torch, trials=trials, chosen=choose(trials))
    saved = device_profile.save(profile) if config.save else None
    needed = sum(one.bytes for one in wan.measure(LARGE, dtype="bfloat16").values())
    return Report(
        facts=facts, findings=findings(facts, trials, needed), profile=profile, saved=saved
    )


def to_json(report: Report) -> dict[str, Any]:
    """JSON-ready, for other programs."""
    table = to_table(report) | {"saved": None if report.saved is None else str(report.saved)}
    return {"format": FORMAT} | table


def text(report: Report) -> str:
    """The report for people."""
    facts, chosen = report.facts, report.profile.chosen
    runtime = f" for {facts.platform.upper()} {facts.runtime}" if facts.runtime else ""
    packages = ", ".join(f"{name} {version}" for name, version in facts.packages.items())
    rows = [
        ("device", f"{facts.device} ({facts.arch})"),
        ("memory", f"{facts.free_bytes / 1e9:.1f} GB free of {facts.memory_bytes / 1e9:.1f}")
        if facts.platform in ("cuda", "rocm")
        else ("memory", f"{facts.host_bytes / 1e9:.1f} GB free on the host"),
        ("PyTorch", facts.torch + runtime),
        ("driver", facts.driver or "not told by the kernel"),
        ("packages", packages or "none of those that speed a GPU up"),
        ("weights", f"{facts.weights_folder}, {facts.disk_bytes / 1e9:.1f} GB free"),
    ]
    rows += [("variable", f"{name}={value}") for name, value in facts.variables.items()]
    lines = [f"{name:<10}{value}" for name, value in rows]
    lines += ["", f"{'timed':<13}{'way':<20}{'dtype':<14}{'ms':>9}{'TFLOP/s':>9}{'error':>9}"]
    for one in report.profile.trials:
        figures = f"  {one.said[:60]}"
        if one.seconds is not None:
            error = "wrong" if one.error is None else f"{one.error:.0e}"
            figures = f"{one.seconds * 1e3:>9.2f}{one.tflops or 0:>9.3g}{error:>9}"
        lines.append(f"{one.kind:<13}{one.way:<20}{one.dtype:<14}{figures}")
    lines += [
        "",
        f"Chosen: convolution {chosen.convolution}, attention {chosen.attention}, half precision "
        f"{chosen.dtype or 'none'}; faster quantised: {chosen.scheme or 'nothing'}.",
    ]
    if report.saved is not None:
        lines.append(
            f"{report.saved}: used from now on, convolution and attention, where no flag says "
            "otherwise."
        )
    if not report.findings:
        lines.append("Nothing is broken, nothing known to be slow.")
    for finding in report.findings:
        lines += ["", f"{finding.level}: {finding.found}.", f"  mend: {finding.mend}."]
    return "\n".join(lines)
