"""Whatever is wrong gets one sentence, before any weight is loaded where that is possible."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from colibri.core.errors import UserError
from colibri.infer.cli import main
from colibri.infer.config import I2vConfig, T2vConfig
from colibri.infer.jobs import jobs_of


def _error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--sampler", "heun"), "no sampler 'heun'; one of unipc, euler, consistency, lcm"),
        (("--size", "50x64"), "width 50 is not a multiple of 16; the nearest size is 48x64"),
        (("--frames", "6"), "6 frames do not fit a codec of 4 frames a latent; use 5 or 9"),
        (("--steps", "0"), "--steps 0 is not a positive number"),
        (("--shift", "-1"), "--shift -1.0 is not a positive number"),
        (("--guidance", "nan"), "--guidance nan is not a number"),
        (("--seed", "-3"), "a seed is a whole number from 0"),
        (("--prompt", "  "), "--prompt: the prompt is empty"),
        (("--prompts-file", "x.txt"), "one of --prompt and --prompts-file"),
        (("--lora", "none.safetensors"), "there is no file none.safetensors"),
        (("--lora", "x.bin"), "is not a .safetensors file"),
        (("--device", "cuda:99"), "the device 'cuda:99' cannot be used"),
        (("--preview", "-1"), "--preview -1 is not a number of steps; 0 is never"),
        (("--num-videos", "0"), "--num-videos has to be at least 1"),
        (("--num-videos", "2", "--out", "a.mp4"), "--out a.mp4 is one file for 2 videos"),
        (("--out", "/proc/nothing"), "nothing can be written to /proc/nothing"),
    ],
)
def test_a_wrong_flag_gets_one_sentence(
    flags: tuple[str, ...], expected: str, ti2v: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["t2v", "--model", str(ti2v), "--prompt", "a", "--frames", "1"]
    assert expected in _error(capsys, *given, *flags)


@pytest.mark.parametrize("command", ["quantize", "convert"])
def test_a_model_folder_that_could_not_be_written_gets_one_sentence(
    command: str, ti2v: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _error(capsys, command, ti2v, "--out", "/proc/nothing/model")
    assert "nothing can be written to /proc/nothing" in said


def test_a_model_that_is_none_or_incomplete_gets_one_sentence(
    ti2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("t2v", "--prompt", "a", "--frames", "1", "--device", "cpu", "--steps", "1", "--model")
    assert "there is no model folder" in _error(capsys, *given, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "is this a diffusers folder" in _error(capsys, *given, tmp_path / "empty")
    cut = shutil.copytree(ti2v, tmp_path / "cut")
    weights = next((cut / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "is cut off" in _error(capsys, *given, cut)
    weights.unlink()
    assert "holds no weights" in _error(capsys, *given, cut)
    assert "--revision is for a hub id" in _error(capsys, *given[:-1], "--revision", "main")


def test_an_image_that_is_none_gets_one_sentence(
    ti2v: Path, t2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "image.png"
    text.write_text("no image")
    given = ("i2v", "--prompt", "a", "--device", "cpu", "--model")
    assert "is not an image that can be read" in _error(capsys, *given, ti2v, "--image", text)
    assert "there is no image" in _error(capsys, *given, ti2v, "--image", tmp_path / "none.png")
    assert "--prompt has no image; pass --image FILE" in _error(capsys, *given, ti2v)
    for more in (("--image", text), ()):  # said before anything about the image
        said = _error(capsys, *given, t2v, *more)
        assert f"--model {t2v} (tiny-t2v) makes no video from an image, only from text" in said
    many = tmp_path / "many.jsonl"
    many.write_text('{"prompt": "a", "image": "image.png"}')
    for_text = ("t2v", "--prompts-file", many, "--device", "cpu", "--model", t2v)
    assert "makes no video from an image" in _error(capsys, *for_text)


def test_a_video_without_a_recipe_and_a_file_in_the_way_get_one_sentence(
    ti2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fractions import Fraction

    import numpy as np
    from colibri.core.video import write_video

    video = tmp_path / "plain.mp4"
    write_video(video, [np.zeros((32, 32, 3), np.uint8)], fps=Fraction(8))
    assert "holds no recipe of infer" in _error(capsys, "replay", video)
    assert "there is no file" in _error(capsys, "replay", tmp_path / "none.mp4")
    assert "a file is missing; usage: infer replay VIDEO" in _error(capsys, "replay")
    given = ("t2v", "--model", ti2v, "--prompt", "a", "--frames", "1", "--out", video)
    assert f"{video} is in the way" in _error(capsys, *given)
    assert "is not a safetensors file" in _error(capsys, "decode", video)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.jsonl", '{"prompt": "a"}\nnot json', "line 2: not a JSON object"),
        ("p.jsonl", '{"prompt": ""}', "line 1: the prompt is empty"),
        ("p.jsonl", '{"promt": "a"}', "line 1: unknown key 'promt'"),
        ("p.jsonl", '\n\n{"seed": 1}', "line 3: there is no prompt"),
        ("p.jsonl", '{"prompt": "a", "seed": "x"}', "line 1: a seed is a whole number"),
        ("p.jsonl", '{"prompt": 5}', "line 1: the prompt is not a text"),
        ("p.txt", "# only remarks\n\n", "holds no prompt"),
    ],
)
def test_an_error_in_a_prompts_file_names_its_line(
    name: str, content: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        jobs_of(T2vConfig(prompts_file=path))


def test_bytes_that_are_no_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"a\nb\n\xff\xfe")
    with pytest.raises(UserError, match="line 3: not UTF-8"):
        jobs_of(T2vConfig(prompts_file=path))
    with pytest.raises(UserError, match="not valid Unicode"):
        jobs_of(T2vConfig(prompt="a \udcff"))


def test_a_prompts_file_may_give_each_prompt_its_image(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "image": "x.png"}\n{"prompt": "b"}\n')
    with pytest.raises(UserError, match="line 2 has no image"):
        jobs_of(I2vConfig(prompts_file=path))
    jobs = jobs_of(I2vConfig(prompts_file=path, image=Path("y.png")))
    assert [job.image for job in jobs] == [tmp_path / "x.png", Path("y.png")]


def test_a_size_turned_round_gets_a_hint(
    ti2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from colibri.core.wan.family import WAN22_TI2V_5B
    from colibri.infer.models import Source
    from colibri.infer.settings import check_size

    heard: list[str] = []
    source = Source(asked="x", revision=None, folder=ti2v, family=WAN22_TI2V_5B, schedule=None)
    check_size(T2vConfig(size=(1280, 704)), source, say=heard.append)
    assert heard == ["704x1280 is upright; sizes are width x height: did you mean 1280x704?"]


def test_help_loads_no_torch_and_names_every_command() -> None:
    program = (
        "import sys; from colibri.infer.cli import main, COMMANDS\n"
        "for name in [*COMMANDS]:\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "main(['--help'])\n"
        "sys.exit(bool({'torch', 'diffusers', 'av', 'gradio'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    commands = "t2v i2v replay decode info bench quantize convert doctor gallery serve"
    for name in commands.split():
        assert f"  {name} " in result.stdout
    assert "WIDTHxHEIGHT" in result.stdout
