"""Embedded models: a student is put together with its teacher's parts."""

import json
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.testbed import embedded


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher of two parts and a student of one."""
    index = {
        "_class_name": "WanPipeline",
        "boundary_ratio": None,
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    for name, parts in (("tiny-ti2v", ("transformer", "vae")), ("student", ("transformer",))):
        for part in parts:
            (tmp_path / "data" / name / part).mkdir(parents=True)
            (tmp_path / "data" / name / part / "w").write_text(f"{name} {part}")
        (tmp_path / "data" / name / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setattr(embedded, "DATA", tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


def test_a_whole_model_is_used_where_it_lies(data: Path) -> None:
    assert embedded.embedded_model("tiny-ti2v") == data / "tiny-ti2v"


def test_a_student_has_its_own_parts_and_its_teachers(data: Path) -> None:
    folder = embedded.embedded_model("student")
    assert folder.name == "student"
    assert (folder / "transformer" / "w").read_text() == "student transformer"
    assert (folder / "vae" / "w").read_text() == "tiny-ti2v vae"
    assert embedded.embedded_model("student") == folder


def test_a_new_teacher_makes_a_new_folder(data: Path) -> None:
    old = embedded.embedded_model("student")
    (data / "tiny-ti2v" / "vae" / "w").write_text("another vae")
    new = embedded.embedded_model("student")
    assert new != old
    assert (new / "vae" / "w").read_text() == "another vae"


def test_a_decoder_is_used_where_it_lies(data: Path) -> None:
    (data / "light").mkdir()
    (data / "light" / "config.json").write_text("{}")
    assert embedded.embedded_model("embedded:light") == data / "light"


def test_an_unknown_name_is_told_with_those_that_are_there(data: Path) -> None:
    with pytest.raises(UserError, match="no embedded model 'x'") as caught:
        embedded.embedded_model("x")
    assert "student, tiny-ti2v" in str(caught.value.hint)
