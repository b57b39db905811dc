"""What a pipeline starts from."""

import json
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.curate.sources.base import LICENCES
from colibri.umbrella.inputs import InputsConfig, write_inputs
from colibri.umbrella.world import World


def test_without_a_model_it_is_the_embedded_teacher(tmp_path: Path) -> None:
    found = json.loads(write_inputs(InputsConfig(out=tmp_path / "inputs.json")).read_text("utf-8"))
    assert found["model"]["source"] == "embedded:tiny-ti2v"
    assert {"transformer", "vae", "text_encoder"} <= found["model"].keys()
    assert "infer" in found["packages"]


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no \.json file"):
        write_inputs(InputsConfig(out=tmp_path / "inputs.toml"))


def test_training_on_the_small_world_is_clearly_allowed() -> None:
    assert not LICENCES[World.licence].flagged
