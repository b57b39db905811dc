"""`infer info`: what a model is and where it would live, without weights."""

from pathlib import Path

import pytest
from colibri.core import wan
from colibri.infer.cli import main


def test_a_familys_name_is_described_and_planned_without_any_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wan, "load", None)  # nothing is read
    monkeypatch.setattr(wan, "find_folder", None)  # nothing is fetched
    flags = ["--device", "cpu", "--dtype", "float32", "--scheme", "int8", "--guidance", "1"]
    assert main(["info", "tiny-t2v", "--vram", "0.01,4", *flags]) == 0
    told = capsys.readouterr().out
    assert "none here; tiny-t2v" in told
    assert "on disk" not in told
    scarce, roomy = told.split("--vram ")[1:]
    assert scarce.startswith("0.01: Memory plan for 10.2 MiB of tensors (int8, float32")
    assert "OVER THE BUDGET" in scarce
    assert "OVER THE BUDGET" not in roomy


def test_a_folder_is_described_with_its_size_on_disk(
    ti2v: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(ti2v)]) == 0
    told = capsys.readouterr().out
    assert f"folder        {ti2v}" in told
    assert "MB on disk" in told
    assert "Memory plan" not in told


def test_what_is_free_of_a_gpu_that_is_not_here_is_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["info", "tiny-t2v", "--vram", "auto", "--device", "cuda:99"]) == 2
    told = capsys.readouterr().err
    assert told == (
        "error: --vram auto: how much memory is free on cuda:99 is not known here; give a number "
        "of GB, such as 8\n"
    )


@pytest.mark.parametrize("asked", ["x", "0"])
def test_a_vram_that_is_no_size_is_one_sentence(
    asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", "tiny-t2v", "--vram", asked]) == 2
    told = capsys.readouterr().err
    assert told == f"error: --vram {asked} is not a number of GB; such as 16, 8, or auto\n"
