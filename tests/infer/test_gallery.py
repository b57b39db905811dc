"""A page of videos: all on it, nothing from outside, nothing alive that a file says."""

import re
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.video import write_video
from colibri.infer.gallery import write_gallery
from colibri.infer.recipe import Made, ModelUse, Recipe, metadata

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)> <!--CARDS--> \u202e&amp;'


def _recipe(**more: object) -> Recipe:
    model = ModelUse(
        source="x", revision=None, family="tiny", text_encoder="a", transformer="b", vae="c"
    )
    given: dict[str, object] = {
        "prompt": "a circle",
        "prompt_used": "a circle",
        "recap": "off",
        "seed": 0,
        "negative_prompt": "",
        "width": 32,
        "height": 32,
        "frames": 2,
        "fps": 8,
        "sampler": "unipc",
        "guidance": 1.0,
        "schedule": FlowSchedule.unipc(2, 3.0).to_json(),
        "dtype": "float32",
        "vae_dtype": "float32",
        "image": None,
        "image_sha256": None,
        "loras": (),
        "attention": None,
        "compile": False,
        "model": model,
    }
    return Recipe(**(given | more))  # type: ignore[arg-type]


def _video(path: Path, recipe: Recipe | None) -> None:
    made = Made(frames_sha256="d", decode="whole", device="CPU", threads=1, versions={})
    frames = [np.full((32, 32, 3), value, np.uint8) for value in (0, 255)]
    about = metadata(recipe, made) if recipe else None
    write_video(path, frames, fps=Fraction(8), metadata=about)


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _video(tmp_path / "b.mp4", _recipe())
    _video(tmp_path / "sub" / 'a "onload=x #1 <i>.mp4', _recipe(prompt=HOSTILE, seed=7))
    _video(tmp_path / "plain.mp4", None)
    return tmp_path


@pytest.mark.parametrize("embed", [True, False])
def test_hostile_text_is_inert_and_nothing_comes_from_outside(folder: Path, embed: bool) -> None:
    page = write_gallery(folder, embed=embed, title=HOSTILE).read_text("utf-8")
    tags = Tags(page).found
    names = [tag for tag, _ in tags]
    assert names.count("video") == 3
    assert not {"script", "img", "i", "iframe", "link", "object"} & set(names)
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on")]
        source = attributes.get("src") or ""
        assert not re.match(r"(?!data:video/mp4;base64,)\w+:|//", source)
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page


def test_both_prompts_and_the_recipe_are_on_the_page(folder: Path) -> None:
    recipe = replace(_recipe(prompt="We see a circle"), prompt_used="A circle", recap="rules")
    _video(folder / "c.mp4", recipe)
    page = write_gallery(folder).read_text("utf-8")
    assert "We see a circle" in page
    assert "(by rules)" in page
    assert "no recipe inside" in page
    assert recipe.fingerprint in page


def test_a_folder_without_videos_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.mp4"):
        write_gallery(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        write_gallery(tmp_path / "none")


def test_a_video_that_still_grows_is_not_on_the_page(folder: Path) -> None:
    (folder / "c.growing.mp4").write_bytes(b"half")
    assert ">c.growing" not in write_gallery(folder).read_text("utf-8")


def test_a_page_that_cannot_be_written_gets_one_sentence(folder: Path) -> None:
    with pytest.raises(UserError, match="nothing can be written to /proc/nothing"):
        write_gallery(folder, Path("/proc/nothing/page.html"))


def _play(page: Path) -> str:
    """The page's DOM in a headless browser, after a script outside it told what its videos are."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium is installed")
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return shown.stdout


@pytest.mark.slow
def test_a_browser_shows_the_page_and_runs_nothing(folder: Path) -> None:
    dom = _play(write_gallery(folder))
    assert dom.count("<video") == 3
    assert "<script" not in dom
    assert dom.count("<article>") == 3
