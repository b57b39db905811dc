"""`--model OWNER/NAME`: fetched once from a hub, kept at its commit, then used offline."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from colibri.infer.cli import main
from colibri.infer.recipe import read_video
from hub_server import COMMIT, HubServer
from huggingface_hub import constants

SMALL = ["--steps", "1", "--guidance", "1", "--size", "32x32", "--frames", "5", "--prompt", "a cat"]


@pytest.fixture
def hub(t2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    server.files["me/tiny"] = {
        path.relative_to(t2v).as_posix(): path.read_bytes()
        for path in t2v.rglob("*")
        if path.is_file()
    } | {"transformer/diffusion_pytorch_model.bin": b"pickle"}
    with server.standing_in(monkeypatch, tmp_path / "hub", large=10_000):
        yield server


def test_the_first_run_says_the_size_and_the_recipe_pins_the_commit(
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = tmp_path / "cat.mp4"
    assert main(["t2v", "--model", "me/tiny", "--out", str(video), *SMALL]) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith("me/tiny at cccccccccccc: ")
    assert second.startswith("Model: me/tiny at cccccccccccc (")
    recipe, _ = read_video(video)
    assert recipe.model.revision == COMMIT
    assert hub.served["transformer/diffusion_pytorch_model.bin"] == 0

    hub.commit = "d" * 40  # the branch has moved; the recipe's commit is what replay takes
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["replay", str(video)]) == 0
    assert "Identical" in capsys.readouterr().out
    assert main(["t2v", "--model", "me/tiny", "--out", str(video), *SMALL]) == 0
    assert "there already" in capsys.readouterr().out


def test_a_model_that_is_somewhere_else_now_has_revisions_of_its_own(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "cat.mp4"
    assert main(["t2v", "--model", "me/tiny", "--out", str(video), *SMALL]) == 0
    hub.files["you/mirror"] = hub.files.pop("me/tiny")
    hub.commit = "d" * 40
    assert main(["replay", str(video), "--model", "you/mirror"]) == 0
    assert "Model: you/mirror at dddddddddddd (" in capsys.readouterr().out
    assert main(["replay", str(video), "--model", "embedded:tiny-ti2v-3step"]) == 2
    assert "is not the one that the video was made with" in capsys.readouterr().err


def test_offline_without_the_model_is_one_sentence(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["t2v", "--model", "me/tiny", *SMALL]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: me/tiny is not here, or not wholly, and cannot be fetched: HF_H")
    assert said.count("\n") == 1
