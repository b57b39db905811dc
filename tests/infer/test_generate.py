"""Text and images to videos, with their recipes; the same again on replay."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from colibri.core.latents import read_latents
from colibri.core.schedule import FlowSchedule
from colibri.infer.config import I2vConfig, RenderConfig, ReplayConfig, T2vConfig
from colibri.infer.generate import Rendered, generate, plan
from colibri.infer.recipe import read_video
from colibri.infer.replay import replay
from infer_toys import frames_of
from PIL import Image

PROMPT = "a red circle moves left"


def settings(model: Path, out: Path, **more: object) -> T2vConfig:
    given = {"model": str(model), "out": out, "prompt": PROMPT, "steps": 2, "frames": 5}
    return T2vConfig(**{**given, "device": "cpu", "size": (32, 48)} | more)  # type: ignore[arg-type]


def quiet(_: str) -> None:
    return


@pytest.fixture(scope="module")
def rendered(ti2v: Path, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """One video with guidance."""
    config = settings(ti2v, tmp_path_factory.mktemp("out"), guidance=3.0, negative_prompt="blue")
    (one,) = generate(config, say=quiet)
    return one


def test_a_video_has_the_asked_size_and_its_recipe_inside_and_beside(rendered: Rendered) -> None:
    assert frames_of(rendered.video).shape == (5, 32, 48, 3)
    recipe, made = read_video(rendered.video)
    assert (recipe, made) == (rendered.recipe, rendered.made)
    assert (recipe.prompt, recipe.negative_prompt, recipe.seed) == (PROMPT, "blue", 0)
    assert recipe.flow == FlowSchedule.unipc(2, 3.0)
    beside = json.loads(rendered.video.with_suffix(".json").read_text())
    assert beside["fingerprint"] == recipe.fingerprint
    assert len({recipe.model.text_encoder, recipe.model.transformer, recipe.model.vae}) == 3
    with av.open(str(rendered.video)) as container:
        assert container.metadata["title"] == PROMPT
    assert {path.suffix for path in rendered.video.parent.iterdir()} == {".mp4", ".json"}


def test_replay_makes_the_identical_frames_again(rendered: Rendered, ti2v: Path) -> None:
    found = replay(rendered.video, ReplayConfig(device="cpu"), say=quiet)
    assert found.identical
    assert found.text().startswith("Identical: 5 frames")


def test_replay_says_what_differs_and_refuses_another_model(rendered: Rendered, t2v: Path) -> None:
    from colibri.core.errors import UserError

    with pytest.raises(UserError, match="not the one that the video was made with"):
        replay(rendered.video, ReplayConfig(model=str(t2v)), say=quiet)
    found = replay(rendered.video, ReplayConfig(device="cpu"), say=quiet)
    other = replace(found.before, threads=7, frames_sha256="0" * 64)
    changed = replace(found, identical=False, before=other)
    assert changed.text() == "The frames are NOT the same. Different here: threads 7 then, 1 now."


def test_frames_are_those_of_the_pipeline_of_diffusers(ti2v: Path, tmp_path: Path) -> None:
    from diffusers import WanPipeline

    (one,) = generate(settings(ti2v, tmp_path, guidance=3.0, keep_latents=True), say=quiet)
    pipeline = WanPipeline.from_pretrained(ti2v)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt=PROMPT,
        negative_prompt="",
        height=32,
        width=48,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=3.0,
        max_sequence_length=64,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).frames
    latents = one.video.with_name(one.video.stem + ".latents.safetensors")
    assert torch.equal(read_latents(latents).latents["clip"], theirs)


def test_the_same_command_again_makes_nothing_and_another_recipe_another_file(
    rendered: Rendered, ti2v: Path
) -> None:
    out = rendered.video.parent
    before = rendered.video.read_bytes()
    config = settings(ti2v, out, guidance=3.0, negative_prompt="blue")
    (again,) = generate(config, say=quiet)
    assert not again.new
    (other,) = generate(replace(config, steps=1), say=quiet)
    assert other.video != rendered.video
    assert other.video.parent == out
    assert rendered.video.read_bytes() == before


def test_seeds_and_prompts_of_a_file_each_give_their_own_video(ti2v: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "a red circle", "seed": 5}\n\n{"prompt": "a blue square"}\n', encoding="utf-8"
    )
    config = settings(
        ti2v, tmp_path / "out", prompt=None, prompts_file=prompts, num_videos=2, guidance=1.0
    )
    found = generate(config, say=quiet)
    made = [(one.recipe.prompt, one.recipe.seed) for one in found]
    assert made == [
        ("a red circle", 5),
        ("a red circle", 6),
        ("a blue square", 0),
        ("a blue square", 1),
    ]
    assert len({one.made.frames_sha256 for one in found}) == 4
    alone = settings(ti2v, tmp_path / "alone", prompt="a blue square", seed=1, guidance=1.0)
    assert generate(alone, say=quiet)[0].made == found[3].made


def test_an_image_is_the_first_frame(ti2v: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    image = tmp_path / "photo.png"
    Image.fromarray(pixels).save(image)
    given = settings(ti2v, tmp_path / "out", guidance=1.0, keep_latents=True)
    table = {name: getattr(given, name) for name in RenderConfig.__dataclass_fields__}
    heard: list[str] = []
    (one,) = generate(I2vConfig(**table, image=image), say=heard.append)
    assert "photo.png is 80x40: scaled and cropped to 48x32" in heard
    kept = one.video.with_name(str(one.recipe.image))
    assert Image.open(kept).size == (48, 32)
    image.unlink()  # a replay needs only what lies beside the video
    assert replay(one.video, ReplayConfig(device="cpu"), say=quiet).identical
    kept.unlink()
    from colibri.core.errors import UserError

    with pytest.raises(UserError, match=r"first frame .* is missing"):
        replay(one.video, ReplayConfig(device="cpu"), say=quiet)


def test_a_students_own_schedule_is_used_and_may_be_replaced(ti2v: Path, tmp_path: Path) -> None:
    from colibri.core import wan

    teacher = wan.load(ti2v)
    defaults = replace(teacher.family.defaults, sampler="consistency", guidance=1.0, steps=3)
    teacher.family = replace(teacher.family, defaults=defaults)
    teacher.schedule = FlowSchedule.listed([1000, 750, 500], shift=5)
    wan.save(teacher, tmp_path / "student")
    config = settings(tmp_path / "student", tmp_path / "out", steps=None)
    (one,) = generate(config, say=quiet)
    assert one.recipe.flow == teacher.schedule
    assert (one.recipe.sampler, one.recipe.guidance) == ("consistency", 1.0)
    (same,) = generate(replace(config, sampler="lcm"), say=quiet)
    assert not same.new
    (other,) = generate(replace(config, sampler="euler", steps=1), say=quiet)
    assert other.recipe.sampler == "euler"
    assert other.recipe.flow.steps == 1


def test_a_plan_says_what_would_be_done_and_does_nothing(ti2v: Path, tmp_path: Path) -> None:
    text = plan(settings(ti2v, tmp_path / "out", guidance=3.0), say=quiet)
    assert "latents 16x2x4x6, 12 tokens, 4 model evaluations a video" in text
    assert "1,251,520 parameters" in text
    assert not (tmp_path / "out").exists()
