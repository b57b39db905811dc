"""Filters of prompts and frames: off unless asked for, said when on, refusing in one sentence."""

from dataclasses import replace
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.core.video import read_frames
from colibri.infer import safety
from colibri.infer.cli import main
from colibri.infer.config import DecodeConfig
from colibri.infer.finish import decode_file
from colibri.infer.generate import generate
from colibri.infer.long import make_long
from colibri.infer.long_config import LongConfig
from colibri.infer.recipe import read_video
from colibri.infer.safety import Words, open_filters
from infer_toys import own_module, quiet, settings

OWN = """
from colibri.infer.safety import Filter

class Dark(Filter):
    def frames(self, frames):
        return None if frames.mean() < 0 else "it is not dark"

class Passing(Filter):
    def frames(self, frames):
        return None

class Other:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_module("my_filters", OWN, tmp_path, monkeypatch)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text("# not shown\nblood\nnaked  person\n\nGüte\n", encoding="utf-8")
    return path


def test_words_count_whole_in_any_case_and_form(words: Path) -> None:
    filters = open_filters([f"words:{words}"])
    for text in ("Blood!", "a NAKED\n person", "die gu\u0308te", "blood-red"):
        with pytest.raises(UserError, match="is on the list"):
            filters.check_prompt(text)
    for text in ("a bloodhound runs", "naked", "a person", "not shown"):
        filters.check_prompt(text)
    assert Words(["a.b"]).prompt("axb") is None


def test_without_the_flag_nothing_is_filtered_or_said(ti2v: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    (one,) = generate(settings(ti2v, tmp_path, prompt="blood"), say=heard.append)
    assert one.recipe.safety == ()
    assert not any("Safety" in line for line in heard)


def test_a_filter_is_said_first_and_is_in_the_recipe(
    words: Path, ti2v: Path, tmp_path: Path
) -> None:
    heard: list[str] = []
    config = settings(ti2v, tmp_path / "out", safety=(f"words:{words}",))
    (one,) = generate(config, say=heard.append)
    assert heard[1] == f"Safety filter on prompts: words:{words}."
    (use,) = read_video(one.video)[0].safety
    assert use.name == f"words:{words}"
    # A video that no filter has seen is not taken for one that has passed.
    (plain,) = generate(settings(ti2v, tmp_path / "out"), say=quiet)
    assert plain.video != one.video


def test_a_prompt_with_a_listed_word_is_refused_before_anything_loads(
    words: Path, tmp_path: Path, ti2v: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(ti2v), "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["t2v", *flags, "--prompt", "much blood", "--safety", f"words:{words}"]) == 2
    told = capsys.readouterr().err
    assert told == (
        f"error: the prompt 'much blood' is refused by words:{words}: the word 'blood' is on the "
        "list\n"
    )
    assert not (tmp_path / "out").exists()


def test_refused_frames_are_not_written_and_the_others_are(
    own: Path, ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    config = settings(ti2v, out, safety=("my_filters:Dark",), preview=1)
    heard: list[str] = []
    with pytest.raises(UserError, match="refused by my_filters:Dark: it is not dark"):
        generate(config, say=heard.append)
    assert any(line.startswith("No preview") for line in heard)
    assert not list(out.iterdir())
    turns = iter(["it is not dark", None, None])
    monkeypatch.setattr("my_filters.Dark.frames", lambda self, frames: next(turns))
    several = settings(ti2v, out, safety=("my_filters:Dark",), num_videos=3)
    with pytest.raises(UserError, match="1 of 3 videos were refused"):
        generate(several, say=quiet)
    assert len(list(out.glob("*.mp4"))) == 2


def test_frames_that_are_decoded_later_are_filtered_too(
    own: Path, ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(ti2v, tmp_path, safety=("my_filters:Passing",), keep_latents=True)
    (one,) = generate(config, say=quiet)
    latents = one.video.with_suffix(".latents.safetensors")
    one.video.unlink()
    monkeypatch.setattr("my_filters.Passing.frames", lambda self, frames: "no")
    with pytest.raises(UserError, match="refused by my_filters:Passing: no"):
        decode_file(latents, DecodeConfig(device="cpu"), say=quiet)
    assert latents.exists()
    assert not one.video.exists()


def test_a_long_video_ends_at_the_block_that_is_refused(
    own: Path,
    words: Path,
    causal_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = iter([None, None, "it is not dark"])
    monkeypatch.setattr("my_filters.Dark.frames", lambda self, frames: next(turns))
    out, safe = tmp_path / "out", (f"words:{words}", "my_filters:Dark")
    config = LongConfig(
        model=str(causal_student),
        prompt="blood",
        seconds=5.0,
        size=(16, 16),
        device="cpu",
        out=out,
        safety=safe,
    )
    with pytest.raises(UserError, match="the word 'blood' is on the list"):
        make_long(config, say=quiet)
    with pytest.raises(UserError, match="it is not dark"):
        make_long(replace(config, prompt="a red circle moves left"), say=quiet)
    (growing,) = out.glob("*.mp4")
    assert growing.name.endswith(".growing.mp4")
    with growing.open("rb") as file:
        assert len(list(read_frames(file))) == 1 + 8  # the two blocks that passed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("words:none.txt", "none.txt is not a text file that can be read"),
        ("nothing", "there is no --safety nothing; words:FILE, or MODULE:NAME"),
        ("my_filters:Other", "is no colibri.infer.safety.Filter"),
        ("my_filters:None_such", "cannot be imported"),
    ],
)
def test_a_filter_that_cannot_be_is_one_sentence(name: str, said: str, own: Path) -> None:
    with pytest.raises(UserError) as found:
        safety.open_filters([name])
    assert said in str(found.value)


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="holds no words"):
        open_filters([f"words:{tmp_path / 'empty.txt'}"])
