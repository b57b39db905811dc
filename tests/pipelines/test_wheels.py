"""The wheels install into an empty environment and run there."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from colibri.testbed.embedded import DATA, TEACHER

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "testbed", "vae", "infer")
"""What `pip install colibri-infer` brings along."""


def _call(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheels_run_in_an_empty_environment(tmp_path: Path) -> None:
    for package in PACKAGES:
        build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path)
        _call(*build, ROOT / "packages" / package, cwd=tmp_path)
    wheels = sorted(tmp_path.glob("*.whl"))
    assert len(wheels) == len(PACKAGES)
    for wheel in wheels:
        names = zipfile.ZipFile(wheel).namelist()
        assert "colibri/__init__.py" not in names
        assert any(name.endswith("/py.typed") for name in names)

    environment = tmp_path / "empty"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    into = Path(
        _call(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip()
    )
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    _call(*pip, "--no-index", *wheels, cwd=tmp_path)
    # torch and the like are taken from here; our own packages, which are editable here, are not
    (into / "heavy.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    found = _call(python, "-c", "import colibri.infer; print(colibri.infer.__file__)", cwd=tmp_path)
    assert found.startswith(str(into))
    infer = environment / "bin" / "infer"
    assert "usage: infer COMMAND" in _call(infer, "--help", cwd=tmp_path)
    if not (DATA / TEACHER / "model_index.json").is_file():
        return
    prompt = "a red circle moves left over a blue background"
    _call(infer, "t2v", "--prompt", prompt, "--steps", "2", "--out", "videos", cwd=tmp_path)
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 1
