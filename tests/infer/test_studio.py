"""What stands behind the page of `infer serve`: one render after the other, and how far each is."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.infer.config import ServeConfig, T2vConfig
from colibri.infer.generate import generate
from colibri.infer.studio import Asked, Progress, Studio
from PIL import Image


def settings(model: Path, out: Path) -> ServeConfig:
    return ServeConfig(
        model=str(model), out=out, device="cpu", size=(32, 48), frames=5, steps=3, guidance=1.0
    )


@pytest.fixture
def studio(ti2v: Path, tmp_path: Path) -> Iterator[Studio]:
    opened = Studio(settings(ti2v, tmp_path / "out"))
    yield opened
    opened.close()


ASKED = Asked(prompt="a red circle moves left", seed=4, steps=2, image=None)


def test_a_request_tells_each_step_and_writes_what_the_command_writes(
    studio: Studio, ti2v: Path
) -> None:
    told = list(studio.render(ASKED))
    assert [one.text for one in told[:-1]] == [
        "Waiting for the render before",
        "Loading the model and reading the prompt",
        "Denoising: step 0 of 2",
        "Denoising: step 1 of 2",
        "Denoising: step 2 of 2",
        "Decoding the video",
    ]
    assert [one.share for one in told] == sorted(one.share for one in told)
    video = told[-1].video
    assert video is not None
    out = studio.config.out
    assert {path.suffix for path in out.iterdir()} == {".mp4", ".json"}
    (same,) = generate(
        T2vConfig(
            prompt=ASKED.prompt, seed=4, steps=2, model=str(ti2v), out=out, device="cpu",
            size=(32, 48), frames=5, guidance=1.0,
        ),
        say=str,
    )  # fmt: skip
    assert (same.video, same.new) == (video, False)
    again = list(studio.render(ASKED))[-1]
    assert again.text == f"Done: it was there already, {video}"
    assert [past.video for past in studio.history()] == [video]


def test_two_requests_never_render_at_the_same_time(studio: Studio) -> None:
    heard: list[tuple[int, Progress]] = []

    def listen(seed: int) -> None:
        heard.extend((seed, one) for one in studio.render(replace(ASKED, seed=seed)))

    running: list[int] = []
    most: list[int] = []
    inner = studio._render

    def counted(request: object) -> object:
        running.append(1)
        most.append(len(running))
        try:
            return inner(request)  # type: ignore[arg-type]
        finally:
            running.pop()

    studio._render = counted  # type: ignore[method-assign,assignment]
    threads = [threading.Thread(target=listen, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    assert sorted(seed for seed, one in heard if one.video) == [0, 1, 2]


def test_the_weights_stay_loaded_from_one_request_to_the_next(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colibri.infer import models

    loads: list[tuple[str, ...]] = []
    inner = models.load

    def counted(source: models.Source, machine: models.Machine, *parts: str) -> object:
        loads.append(parts)
        return inner(source, machine, *parts)

    monkeypatch.setattr(models, "load", counted)
    for seed in (0, 1):
        assert list(studio.render(replace(ASKED, seed=seed)))[-1].video
    list(studio.render(replace(ASKED, prompt="a blue square")))
    text = ("tokenizer", "text_encoder")
    assert loads == [text, ("transformer", "vae"), text]


def test_stopping_ends_a_render_at_its_next_step_and_leaves_nothing(studio: Studio) -> None:
    assert not studio.stop("me")
    told = studio.render(replace(ASKED, who="me", steps=200))
    while next(told).preview is None:
        pass
    assert studio.stop("me")
    assert list(told)[-1].text == "Stopped"
    assert not list(studio.config.out.iterdir())
    assert list(studio.render(ASKED))[-1].video


def test_what_is_wrong_is_one_sentence_and_the_next_request_works(
    studio: Studio, tmp_path: Path
) -> None:
    text = tmp_path / "no.png"
    text.write_text("no image")
    for asked, said in (
        (replace(ASKED, prompt=" "), "the prompt is empty"),
        (replace(ASKED, steps=0), "--steps 0 is not a positive number"),
        (replace(ASKED, image=text), "is not an image that can be read"),
    ):
        with pytest.raises(UserError, match=said):
            list(studio.render(asked))
    image = tmp_path / "first.png"
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(image)
    made = list(studio.render(replace(ASKED, image=image)))[-1].video
    assert made is not None
    assert studio.history()[0].recipe.image is not None


def test_an_error_of_the_program_is_one_sentence_too(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ\nat line 3")

    monkeypatch.setattr("colibri.infer.studio.generate", broken)
    with pytest.raises(UserError) as caught:
        list(studio.render(ASKED))
    assert str(caught.value) == (
        "the render failed (RuntimeError: shapes differ at line 3); the terminal says more"
    )
    assert "Traceback" in caplog.text


def test_a_wrong_setting_is_said_when_the_studio_opens(
    ti2v: Path, t2v: Path, tmp_path: Path
) -> None:
    given = settings(ti2v, tmp_path)
    with pytest.raises(UserError, match="no sampler 'heun'"):
        Studio(replace(given, sampler="heun"))
    with pytest.raises(UserError, match="is a file; give a folder"):
        Studio(replace(given, out=Path("a.mp4")))
    with pytest.raises(UserError, match="there is no model folder"):
        Studio(replace(given, model=str(tmp_path / "none")))
