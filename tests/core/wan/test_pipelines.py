"""Our rollouts against diffusers' own pipelines: the same weights, seed and prompts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.schedule import FlowSchedule
from colibri.core.wan import WanModel
from colibri.core.wan.decoder import (
    LatentStats,
    WanDecoder,
    decode_latents,
    encode_video,
    to_pixels,
)
from colibri.core.wan.rollout import whole_clip
from colibri.core.wan.sampler import Step
from colibri.core.wan.text import encode_text

PROMPTS = ["a red circle moves left", "a blue square"]
NEGATIVE = "background"
VIDEO = VideoShape(frames=9, height=32, width=48)
STEPS, SHIFT, GUIDANCE, TOKENS = 5, 3.0, 4.0, 16

ROUNDING = 1e-5
"""The two forms of timesteps give the time embedding's matrix products another number of rows, so
their float32 sums are ordered differently: 3e-6 on values up to 5 after 5 steps, on an x86 CPU."""


def _pipeline(model: WanModel, kind: str) -> Any:
    import diffusers

    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=SHIFT
    )
    pipeline = getattr(diffusers, kind)(
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder,
        vae=model.vae,
        transformer=model.transformer,
        scheduler=scheduler,
        expand_timesteps=model.family.expand_timesteps,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _settings() -> dict[str, Any]:
    return {
        "height": VIDEO.height,
        "width": VIDEO.width,
        "num_frames": VIDEO.frames,
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "generator": torch.Generator().manual_seed(3),
        "max_sequence_length": TOKENS,
    }


def _texts(model: WanModel) -> tuple[torch.Tensor, torch.Tensor]:
    texts = [PROMPTS, [NEGATIVE] * len(PROMPTS)]
    positive, negative = (
        encode_text(model.tokenizer, model.text_encoder, text, max_tokens=TOKENS) for text in texts
    )
    return positive, negative


def _ours(model: WanModel, **settings: Any) -> torch.Tensor:
    text, negative = _texts(model)
    return whole_clip(
        model.transformer,
        text,
        shape=model.family.latent_shape(VIDEO),
        schedule=FlowSchedule.unipc(STEPS, SHIFT),
        generator=torch.Generator().manual_seed(3),
        guidance=GUIDANCE,
        negative_BLD=negative,
        **settings,
    )


@pytest.mark.parametrize("name", ["ti2v", "t2v"])
def test_text_to_video_is_that_of_diffusers(name: str, request: pytest.FixtureRequest) -> None:
    model: WanModel = request.getfixturevalue(name)
    theirs = _pipeline(model, "WanPipeline")(
        PROMPTS, negative_prompt=[NEGATIVE] * 2, output_type="latent", **_settings()
    ).frames
    expanded = model.family.expand_timesteps
    same = _ours(model, per_token=expanded)
    assert torch.equal(same, theirs)
    other = _ours(model, per_token=not expanded)
    assert (other - theirs).abs().max() <= ROUNDING
    assert (theirs[0] - theirs[1]).abs().max() > 0.1  # the prompts and the noise matter


def test_decoded_video_is_that_of_diffusers(ti2v: WanModel) -> None:
    theirs = _pipeline(ti2v, "WanPipeline")(
        PROMPTS, negative_prompt=[NEGATIVE] * 2, output_type="np", **_settings()
    ).frames
    stats = LatentStats.of(ti2v.vae.config)
    video = decode_latents(WanDecoder(ti2v.vae), _ours(ti2v, per_token=True), stats)
    assert video.shape == (2, 3, VIDEO.frames, VIDEO.height, VIDEO.width)
    ours = (video * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).numpy()
    assert np.array_equal(ours, theirs)


def test_image_to_video_is_that_of_diffusers(ti2v: WanModel) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(
        0, 256, (VIDEO.height, VIDEO.width, 3), dtype=np.uint8
    )
    text, negative = _texts(ti2v)
    theirs = _pipeline(ti2v, "WanImageToVideoPipeline")(
        Image.fromarray(pixels),
        # Embeddings, because that pipeline cannot clean a prompt where ftfy is not installed.
        prompt_embeds=text,
        negative_prompt_embeds=negative,
        output_type="latent",
        **_settings(),
    ).frames
    first = encode_video(ti2v.vae, to_pixels(pixels[None]))
    ours = _ours(ti2v, first_BCTHW=first)
    assert torch.equal(ours, theirs)
    assert torch.equal(ours[:, :, :1], first.expand(2, -1, -1, -1, -1))
    assert (ours - _ours(ti2v))[:, :, 1:].abs().max() > 0.1  # the image matters beyond its frame


def test_previews_show_the_given_frame(ti2v: WanModel) -> None:
    first = torch.full((1, 16, 1, VIDEO.height // 8, VIDEO.width // 8), 0.5)
    heard: list[Step] = []
    ours = _ours(ti2v, first_BCTHW=first, on_step=heard.append)
    assert len(heard) == STEPS
    assert all((step.x0_BCTHW[:, :, :1] == first).all() for step in heard)
    assert torch.equal(heard[-1].x_BCTHW, ours)


def test_a_first_frame_of_another_size_is_refused(ti2v: WanModel) -> None:
    with pytest.raises(UserError, match="first frame's latent has the shape"):
        _ours(ti2v, first_BCTHW=torch.zeros(1, 16, 1, 4, 4))
    with pytest.raises(UserError, match="no sampler 'heun'"):
        _ours(ti2v, sampler="heun")


def test_the_few_step_rollout_is_that_of_the_lcm_scheduler(t2v: WanModel) -> None:
    from diffusers import FlowMatchLCMScheduler

    steps = [1000, 750, 500]
    pipeline = _pipeline(t2v, "WanPipeline")
    scheduler = FlowMatchLCMScheduler(shift=SHIFT)
    plain = scheduler.set_timesteps
    generator = torch.Generator().manual_seed(3)
    step = scheduler.step
    scheduler.set_timesteps = lambda *_, device=None: plain(sigmas=[t / 1000 for t in steps])
    scheduler.step = lambda *args, **kwargs: step(*args, generator=generator, **kwargs)
    pipeline.scheduler = scheduler
    settings = _settings() | {"guidance_scale": 1.0, "generator": generator}
    theirs = pipeline(PROMPTS, output_type="latent", **settings).frames
    ours = whole_clip(
        t2v.transformer,
        _texts(t2v)[0],
        shape=t2v.family.latent_shape(VIDEO),
        schedule=FlowSchedule.listed(steps, shift=SHIFT),
        generator=torch.Generator().manual_seed(3),
        sampler="consistency",
    )
    # Their sigmas are float32; ours are float64 until they meet the float32 state.
    assert (ours - theirs).abs().max() <= ROUNDING


@pytest.mark.parametrize("steps", [[1000], [1000, 750, 500], [1000, 750, 500, 250]], ids=str)
def test_a_saved_student_runs_in_diffusers_as_it_does_here(
    steps: list[int], ti2v: WanModel, tmp_path: Path
) -> None:
    """From text and from a first frame, with nothing said but the steps and no guidance."""
    import diffusers
    from PIL import Image

    schedule = FlowSchedule.listed(steps, shift=5)
    defaults = replace(ti2v.family.defaults, sampler="consistency")
    student = replace(ti2v, family=replace(ti2v.family, defaults=defaults), schedule=schedule)
    wan.save(student, tmp_path / "student")
    pixels = np.random.default_rng(0).integers(
        0, 256, (VIDEO.height, VIDEO.width, 3), dtype=np.uint8
    )
    given = {"WanPipeline": None, "WanImageToVideoPipeline": Image.fromarray(pixels)}
    text, _ = _texts(ti2v)
    for kind, image in given.items():
        pipeline = getattr(diffusers, kind).from_pretrained(tmp_path / "student")
        pipeline.set_progress_bar_config(disable=True)
        settings = _settings() | {"num_inference_steps": len(steps), "guidance_scale": 1.0}
        del settings["generator"]  # diffusers hands none to its scheduler
        torch.manual_seed(3)
        theirs = pipeline(
            prompt_embeds=text,
            output_type="latent",
            **settings | ({"image": image} if image else {}),
        ).frames
        ours = whole_clip(
            ti2v.transformer,
            text,
            shape=ti2v.family.latent_shape(VIDEO),
            schedule=schedule,
            generator=torch.Generator().manual_seed(3),
            sampler="consistency",
            first_BCTHW=encode_video(ti2v.vae, to_pixels(pixels[None])) if image else None,
            per_token=True,
        )
        assert (ours - theirs).abs().max() <= ROUNDING


def test_a_clip_is_the_same_alone_and_in_a_batch(ti2v: WanModel) -> None:
    text, _ = _texts(ti2v)
    shape = LatentShape(channels=16, frames=2, height=4, width=4)

    def run(rows: slice, seeds: list[int]) -> torch.Tensor:
        return whole_clip(
            ti2v.transformer,
            text[rows],
            shape=shape,
            schedule=FlowSchedule.listed([1000, 500], shift=5),
            sampler="consistency",
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        )

    both, alone = run(slice(0, 2), [5, 6]), run(slice(1, 2), [6])
    assert (both[1:] - alone).abs().max() <= ROUNDING
