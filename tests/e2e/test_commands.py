"""The console commands as a stranger meets them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("curate", "vae", "distill", "infer")


def _call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_bare_command_shows_its_usage_and_loads_no_torch(room: str) -> None:
    bare = _call(f"colibri.{room}")
    assert bare.returncode == 2
    assert f"usage: {room} COMMAND" in bare.stdout + bare.stderr
    program = (
        f"import sys; from colibri.{room}.cli import main; main(['--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    helped = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False
    )
    assert helped.returncode == 0, helped.stderr


def test_help_names_every_command_and_loads_neither_torch_nor_ray() -> None:
    program = (
        "import sys; from colibri.curate.cli import main; main(['--help']); "
        "sys.exit(bool({'torch', 'ray', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False
    )
    assert result.returncode == 0, result.stderr
    for command in ("run", "retry", "report", "doctor", "validate", "sample"):
        assert f"  {command} " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run", "--data-root", "/nowhere"), "--data-root /nowhere is not a folder"),
        (("run", "--config", "missing.toml"), "there is no config file missing.toml"),
        (("fly",), "no command 'fly'"),
        (("report", "."), ""),
        (("retry", ".", "--reason", "x"), "not the output of curate run"),
        (("validate", "no.jsonl", "--out", "o.jsonl"), "no.jsonl"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    result = _call("colibri.curate", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_source_is_named_with_the_known_ones(tmp_path: Path) -> None:
    result = _call(
        *("colibri.curate", "run", "--sources", "openvidd", "--data-root", str(tmp_path)),
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert "openvid" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_umbrella_passes_its_arguments_on() -> None:
    result = _call("colibri.umbrella", "curate", "--help")
    assert result.returncode == 0
    assert "usage: curate COMMAND" in result.stdout
