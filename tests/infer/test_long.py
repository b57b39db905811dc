"""Videos of any length: the same frames streamed or not, killed or not, in constant memory."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import TINY_T2V, Causal
from colibri.core.wan.model import build_part
from colibri.core.wan.text import word_tokenizer
from colibri.infer import blocks as blocks_module
from colibri.infer import long_stream
from colibri.infer.cli import main
from colibri.infer.config import ReplayConfig
from colibri.infer.long import LongRendered, make_long, plan
from colibri.infer.long_config import LongConfig
from colibri.infer.long_recipe import Rollout
from colibri.infer.long_stream import BlockWritten
from colibri.infer.recipe import read_video
from colibri.infer.replay import replay
from infer_toys import frames_of
from PIL import Image

PROMPT = "a red circle moves left"
CAUSAL = Causal(first_block=1, block=2, sink=1, window=4)
FPS = 8


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random causal model: blocks of 2 latent frames, a second each."""
    words = "a red blue circle square moves left right over background".split()
    defaults = replace(TINY_T2V.defaults, sampler="consistency", guidance=1.0, steps=2, fps=FPS)
    family = replace(TINY_T2V, causal=CAUSAL, defaults=defaults)
    model = wan.build(family, seed=0, tokenizer=word_tokenizer(words))
    model.vae.register_to_config(latents_mean=[0.1] * 16, latents_std=[0.9] * 16)
    model.schedule = FlowSchedule.listed([1000, 500], shift=5)
    folder = tmp_path_factory.mktemp("models") / "tiny-long"
    wan.save(model, folder)
    return folder


def settings(model: Path, out: Path, **more: Any) -> LongConfig:
    given: dict[str, Any] = {"model": str(model), "out": out, "prompt": PROMPT, "seconds": 5.0}
    return LongConfig(**{**given, "device": "cpu", "size": (32, 32)} | more)


def quiet(_: str) -> None:
    return


@pytest.fixture(scope="module")
def undisturbed(student: Path, tmp_path_factory: pytest.TempPathFactory) -> LongRendered:
    return make_long(settings(student, tmp_path_factory.mktemp("out")), say=quiet)


def test_a_video_has_whole_blocks_and_its_recipe(undisturbed: LongRendered) -> None:
    # 40 frames are wanted: 11 latents, 1 + 5 blocks of 2.
    assert frames_of(undisturbed.video).shape == (41, 32, 32, 3)
    recipe, made = read_video(undisturbed.video)
    assert (recipe, made) == (undisturbed.recipe, undisturbed.made)
    rollout = Rollout.of(recipe)
    assert (rollout.form, rollout.blocks, made.decode) == (CAUSAL, 6, "stream")
    assert [scene.prompt for scene in rollout.scenes] == [PROMPT]
    names = {path.suffix for path in undisturbed.video.parent.iterdir()}
    assert names == {".mp4", ".json"}
    speed = undisturbed.speed
    assert speed is not None
    assert speed.frames == 41
    assert 0 < speed.first_frame_s < speed.from_start_s
    with av.open(str(undisturbed.video)) as container:
        stream = container.streams.video[0]
        times = [frame.time for frame in container.decode(stream)]
        assert (stream.frames, stream.average_rate) == (41, FPS)
    assert times == [number / FPS for number in range(41)]


def test_frames_are_those_of_a_rollout_that_is_decoded_whole(
    undisturbed: LongRendered, student: Path
) -> None:
    from colibri.core.wan.decoder import to_frames
    from colibri.core.wan.rollout import block_rollout, seeded_noise
    from colibri.core.wan.text import encode_text
    from colibri.infer.stream import chained, decoded_blocks

    model = wan.load(student)
    text = encode_text(model.tokenizer, model.text_encoder, [PROMPT], max_tokens=64)
    made = [
        block.latents_BCTHW
        for block in block_rollout(
            model.transformer,
            text,
            shape=model.family.latent_shape(undisturbed.recipe.video),
            causal=CAUSAL,
            schedule=undisturbed.recipe.flow,
            noise=seeded_noise([0]),
            blocks=6,
        )
    ]
    streamed = list(decoded_blocks(model.vae, made, model.family))
    raw = model.family.stats.unnormalise(torch.cat(made, dim=2))
    with torch.no_grad():
        whole = to_frames(model.vae.decode(raw).sample)[0]
    assert [len(frames) for frames in streamed] == [1, 8, 8, 8, 8, 8]
    assert np.abs(np.concatenate(streamed).astype(int) - whole).max() <= 1  # rounding
    # A frame's hash in the recipe is over the frames themselves: these are they, bit for bit.
    found = ""
    for frames in streamed:
        found = chained(found, frames)
    assert found == undisturbed.made.frames_sha256
    # Compressed, each frame is still nearest to itself.
    shown = frames_of(undisturbed.video).astype(int)
    away = np.abs(shown[:, None] - whole[None].astype(int)).mean(axis=(2, 3, 4))
    assert away.argmin(axis=1).tolist() == list(range(41))


def test_the_file_can_be_played_while_it_grows_and_the_cache_does_not(
    student: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int, list[float]]] = []
    caches: list[int] = []

    def watch(one: BlockWritten) -> None:
        caches.append(one.cache_bytes)
        with av.open(str(one.growing)) as container:
            times = [float(frame.time or 0) for frame in container.decode(video=0)]
            assert "colibri-recipe/1" in container.metadata["comment"]
        seen.append((one.blocks, one.frames, times))

    made = make_long(settings(student, tmp_path, seconds=14.0), say=quiet, watch=watch)
    assert [blocks for blocks, _, _ in seen] == list(range(1, 16))
    for _, frames, times in seen:
        assert times == [number / FPS for number in range(frames)]
    assert frames_of(made.video).shape[0] == seen[-1][1] == 113
    # Full after the third block: the sink and the window without a block, 3 frames.
    assert len(set(caches[1:])) == 1
    assert caches[1] == caches[0] * 3
    from colibri.infer.long_recipe import cache_bytes

    family, _ = wan.describe(student)
    assert cache_bytes(family, made.recipe) == caches[-1]
    assert not list(tmp_path.glob("*.growing.mp4"))


def _killed(config: LongConfig, strike: Callable[[], None] | None, at: int) -> None:
    """A process that kills itself (SIGKILL) once `at` blocks are written, or by `strike`."""
    child = os.fork()
    if child == 0:
        try:
            if strike is not None:
                strike()

            def watch(one: BlockWritten) -> None:
                if one.blocks >= at:
                    os.kill(os.getpid(), signal.SIGKILL)

            make_long(config, say=quiet, watch=watch)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 120
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the render neither ended nor was killed")
        time.sleep(0.02)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def _die_before_commit(number: int) -> Callable[[], None]:
    """The fragment is in the file, the note that it is whole is not."""

    def strike() -> None:
        commit = blocks_module.BlockStore.commit

        def dying(self: Any, written: Any) -> None:
            if written.blocks == number:
                os.kill(os.getpid(), signal.SIGKILL)
            commit(self, written)

        blocks_module.BlockStore.commit = dying  # type: ignore[method-assign]

    return strike


def _die_after_latents(number: int) -> Callable[[], None]:
    """Latents of a block are there, its frames are not."""

    def strike() -> None:
        write_block = blocks_module.BlockStore.write_block

        def dying(self: Any, index: int, latents: Any) -> None:
            write_block(self, index, latents)
            if index == number:
                os.kill(os.getpid(), signal.SIGKILL)

        blocks_module.BlockStore.write_block = dying  # type: ignore[method-assign]

    return strike


@pytest.mark.parametrize(
    ("strike", "at", "save_every_s"),
    [
        pytest.param(None, 2, 1e9, id="between blocks, cache never saved"),
        pytest.param(_die_before_commit(3), 99, 0.0, id="fragment written, not noted"),
        pytest.param(_die_after_latents(4), 99, 1e9, id="latents written, frames not"),
        pytest.param(None, 6, 0.0, id="all blocks written"),
    ],
)
def test_a_killed_render_goes_on_to_the_same_file(
    undisturbed: LongRendered,
    student: Path,
    tmp_path: Path,
    strike: Callable[[], None] | None,
    at: int,
    save_every_s: float,
) -> None:
    config = settings(student, tmp_path, save_every_s=save_every_s)
    _killed(config, strike, at)
    assert not list(tmp_path.glob("*[0-9a-f].mp4"))
    assert list(tmp_path.glob("*.blocks"))
    made = make_long(config, say=quiet)
    assert made.made == undisturbed.made
    assert made.video.read_bytes() == undisturbed.video.read_bytes()
    if made.speed is not None:
        assert made.speed.frames < 41
    else:
        assert at == 6
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".json"}
    again = make_long(config, say=quiet)
    assert again.speed is None


def test_frames_decoded_beside_the_denoising_are_the_same(
    undisturbed: LongRendered, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_stream, "overlaps", lambda device: True)
    config = settings(student, tmp_path)
    threads: list[str] = []

    def stop(one: BlockWritten) -> None:
        threads.append(threading.current_thread().name)
        if one.blocks == 3:
            raise UserError("stop here")

    with pytest.raises(UserError, match="stop here"):
        make_long(config, say=quiet, watch=stop)
    assert threads == ["decode and write"] * 3
    made = make_long(config, say=quiet)
    assert made.speed is not None
    assert made.speed.frames == 41 - 17
    assert made.video.read_bytes() == undisturbed.video.read_bytes()
    assert "decode and write" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("past", ["clean", "last_step"])
@pytest.mark.parametrize("save_every_s", [0.0, 1e9], ids=["cache kept", "cache never kept"])
def test_a_render_killed_again_and_again_across_prompts_is_the_same(
    student: Path, tmp_path: Path, past: str, save_every_s: float
) -> None:
    if past != "clean":
        student = shutil.copytree(student, tmp_path / "student")
        about = student / "colibri.json"
        table = json.loads(about.read_text())
        table["causal"]["past"] = past
        about.write_text(json.dumps(table))
    schedule = tmp_path / "prompts.txt"
    schedule.write_text(f"0s: {PROMPT}\n2s: a blue square\n4s: a red square moves right\n")
    given = {"prompt": None, "prompts_at": schedule, "cache": "int8"}
    whole = make_long(settings(student, tmp_path / "whole", **given), say=quiet)
    assert Rollout.of(whole.recipe).form.past == past
    config = settings(student, tmp_path / "killed", save_every_s=save_every_s, **given)
    for at in (1, 3, 4, 5):
        _killed(config, None, at)
    made = make_long(config, say=quiet)
    assert made.video.read_bytes() == whole.video.read_bytes()


def test_a_prompt_changes_what_comes_after_it_and_nothing_before(
    undisturbed: LongRendered, student: Path, tmp_path: Path
) -> None:
    schedule = tmp_path / "prompts.txt"
    schedule.write_text(f"# two scenes\n0s: {PROMPT}\n\n2.5s: a blue square\n")
    given = {"prompt": None, "prompts_at": schedule, "keep_latents": True}
    videos, latents = {}, {}
    for switch in ("recache", "keep"):
        made = make_long(settings(student, tmp_path / switch, switch=switch, **given), say=quiet)
        assert [scene.block for scene in Rollout.of(made.recipe).scenes] == [0, 3]
        videos[switch] = made
        folder = made.video.with_suffix(".blocks")
        from colibri.core.latents import read_latents

        latents[switch] = [read_latents(path).latents["block"] for path in sorted(folder.iterdir())]
    config = settings(student, tmp_path / "one", keep_latents=True)
    one = make_long(config, say=quiet)
    alone = [
        read_latents(path).latents["block"]
        for path in sorted(one.video.with_suffix(".blocks").iterdir())
    ]
    assert one.made == undisturbed.made
    for switch in ("recache", "keep"):
        same = [torch.equal(x, y) for x, y in zip(latents[switch], alone, strict=True)]
        assert same == [True, True, True, False, False, False]
    assert not torch.equal(latents["recache"][3], latents["keep"][3])
    assert replay(videos["recache"].video, ReplayConfig(device="cpu"), say=quiet).identical


def test_an_image_is_the_first_block(student: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image = tmp_path / "photo.png"
    Image.fromarray(pixels).save(image)
    config = settings(student, tmp_path / "out", image=image, seconds=2.0, keep_latents=True)
    made = make_long(config, say=quiet)
    from colibri.core.latents import read_latents
    from colibri.core.wan.decoder import encode_video, to_pixels
    from colibri.infer.image import read_image

    fitted, _ = read_image(image, 32, 32)
    expected = encode_video(wan.load(student, parts=["vae"]).vae, to_pixels(fitted[None]))
    first = read_latents(made.video.with_suffix(".blocks") / "000000.safetensors")
    assert torch.equal(first.latents["block"], expected)
    assert replay(made.video, ReplayConfig(device="cpu"), say=quiet).identical


def test_a_decoder_begun_late_enough_gives_the_frames_of_one_stream(student: Path) -> None:
    from colibri.infer.long_stream import warm_start
    from colibri.infer.stream import decoded_blocks, decoder_reach

    model = wan.load(student, parts=["vae"])
    reach = decoder_reach(model.vae)
    assert reach == 48  # 24 convolutions over 3 frames
    draw = torch.Generator().manual_seed(0)
    lengths = [1] + [2] * 32
    latents = [torch.randn(1, 16, n, 2, 2, generator=draw) for n in lengths]
    whole = list(decoded_blocks(model.vae, latents, model.family))
    begin = warm_start(CAUSAL, 30, reach)
    assert begin == 6  # blocks 6 to 29 are 48 latents
    late = list(decoded_blocks(model.vae, latents[begin:], model.family))
    for index in (30, 31, 32):
        assert np.array_equal(late[index - begin], whole[index])
    assert not np.array_equal(late[0][-1], whole[begin][-1])
    assert [warm_start(CAUSAL, block, 48) for block in (0, 1, 24, 25, 26)] == [0, 0, 0, 1, 2]


def test_latents_and_cache_on_disk_do_not_pile_up(student: Path, tmp_path: Path) -> None:
    kept: list[int] = []

    def watch(one: BlockWritten) -> None:
        folder = one.growing.with_name(one.growing.name.replace(".growing.mp4", ".blocks"))
        kept.append(len(list(folder.glob("0*.safetensors"))))

    config = settings(student, tmp_path, seconds=34.0, save_every_s=0.0, size=(16, 16))
    make_long(config, say=quiet, watch=watch)
    assert len(kept) == 35
    # What the decoder needs to start again, 24 blocks, and those on their way.
    assert max(kept) <= 24 + 5
    assert kept[-1] < 34


@pytest.mark.slow
def test_two_thousand_frames_are_made_decoded_and_written_in_flat_memory(
    student: Path, tmp_path: Path
) -> None:
    """Kept as they are, frames alone would take 25 MB more and keys and values 33 MB."""
    small = wan.load(student)
    vae = dict(small.family.vae) | {"base_dim": 4}
    small.vae = build_part(replace(small.family, vae=vae), "vae")
    wan.save(replace(small, family=replace(small.family, vae=vae)), tmp_path / "small")
    resident: dict[int, int] = {}

    def watch(one: BlockWritten) -> None:
        resident[one.frames] = int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    more: dict[str, Any] = {"seconds": 2000 / FPS, "size": (64, 64), "save_every_s": 5.0}
    made = make_long(settings(tmp_path / "small", tmp_path, **more), say=quiet, watch=watch)
    assert max(resident) == made.recipe.frames == 2001
    early, late = (
        np.median([held for count, held in resident.items() if low < count <= low + 600])
        for low in (300, 1401)
    )
    assert late - early < 12e6
    with av.open(str(made.video)) as container:
        assert container.streams.video[0].frames == 2001


# ---- bad input ----


def _error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["long", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def test_a_model_that_is_not_causal_is_refused_in_one_sentence(
    t2v: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _error(capsys, "--prompt", "a", "--model", t2v, "--out", tmp_path)
    assert f"--model {t2v} (tiny-t2v) is not a causal student" in said
    folder = tmp_path / "no-schedule"
    model = wan.load(student)
    model.schedule = None
    wan.save(model, folder)
    assert "has no few-step schedule" in _error(capsys, "--prompt", "a", "--model", folder)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--seconds", "0"), "--seconds 0.0 is not a positive number"),
        (("--seconds", "nan"), "--seconds nan is not a positive number"),
        (("--fps", "-3"), "--fps -3 is not a positive number"),
        (("--save-every-s", "-1"), "--save-every-s -1.0 is not a number from 0 up"),
        (("--size", "50x64"), "width 50 is not a multiple of 16"),
        (("--window", "1"), "a causal window of 1 frames does not hold a block of 2"),
        (("--window", "2000", "--seconds", "900"), "positions for 1024; use a smaller --window"),
        (("--prompts-at", "none.txt"), "one of --prompt and --prompts-at is needed"),
        (("--prompt", " "), "--prompt: the prompt is empty"),
        (("--image", "none.png"), "there is no image none.png"),
        (("--seed", "-1"), "--prompt: a seed is a whole number from 0"),
        (("--out", "/proc/nothing"), "nothing can be written to /proc/nothing"),
    ],
)
def test_a_wrong_flag_gets_one_sentence(
    flags: tuple[str, ...], expected: str, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--model", student, "--prompt", "a", "--device", "cpu", "--seconds", "1")
    assert expected in _error(capsys, *given, *flags)


def test_an_image_needs_a_first_block_of_one_frame(student: Path, tmp_path: Path) -> None:
    model = wan.load(student)
    model.family = replace(model.family, causal=replace(CAUSAL, first_block=2))
    wan.save(model, tmp_path / "two")
    config = settings(tmp_path / "two", tmp_path, image=tmp_path / "x.png")
    with pytest.raises(UserError, match="begins with a block of 2 latent frames"):
        make_long(config, say=quiet)


def test_another_recipe_or_a_damaged_state_is_refused(student: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: BlockWritten) -> None:
        raise Stop

    config = settings(student, tmp_path / "one.mp4", seconds=3.0)
    with pytest.raises(Stop):
        make_long(config, say=quiet, watch=stop)
    with pytest.raises(UserError, match=r"of another render that is not finished; choose another"):
        make_long(replace(config, seed=1), say=quiet)
    growing = tmp_path / "one.growing.mp4"
    whole = growing.read_bytes()
    growing.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"one.growing.mp4 has .* bytes, .* were written"):
        make_long(config, say=quiet)
    growing.write_bytes(whole + b"half a fragment")
    first = tmp_path / "one.blocks" / "000000.safetensors"
    kept = first.read_bytes()
    first.unlink()
    with pytest.raises(UserError, match="lacks the latents of block 0; remove the folder"):
        make_long(config, say=quiet)
    first.write_bytes(kept)
    store = blocks_module.BlockStore(
        tmp_path / "one.blocks", fingerprint="", codec=TINY_T2V.codec, vae_hash=""
    )
    with store.alone(), pytest.raises(UserError, match="another process is making the video"):
        make_long(config, say=quiet)
    assert frames_of(make_long(config, say=quiet).video).shape[0] == 25


def test_a_plan_tells_blocks_and_memory_and_does_nothing(
    undisturbed: LongRendered, student: Path, tmp_path: Path
) -> None:
    text = plan(settings(student, tmp_path / "out"), say=quiet)
    assert "6 blocks of 2 latent frames (the first of 1), 2 + 1 model evaluations each" in text
    assert "GB, the same for any length" in text
    assert f"0 s  {PROMPT}" in text
    assert not (tmp_path / "out").exists()
    everything = plan(settings(student, tmp_path, window=None, sink=0), say=quiet)
    assert "sink 0" in everything


def test_a_plan_counts_no_pass_for_a_past_of_last_steps(student: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(student, tmp_path / "model")
    about = json.loads((folder / wan.ABOUT).read_text())
    about["causal"]["past"] = "last_step"
    (folder / wan.ABOUT).write_text(json.dumps(about))
    assert ", 2 model evaluations each;" in plan(settings(folder, tmp_path / "out"), say=quiet)


def test_the_command_tells_the_first_frame_and_the_rate(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", student, "--size", "16x16", "--device", "cpu", "--out", tmp_path]
    assert main(["long", "--prompt", PROMPT, "--seconds", "2", *map(str, flags)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1 video, 16x16, 17 frames (2.12 s) at 8/s in 3 blocks; 1 prompt")
    assert lines[-2].startswith("First frame after ")
    assert lines[-2].endswith(" frames/s, decoding and writing included.")
    assert lines[-1].endswith(".mp4")
