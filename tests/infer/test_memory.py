"""Memory plans: arithmetic against measured peaks, limits that hold, and the ways down."""

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.wan.family import WAN22_TI2V_5B
from colibri.infer import decode as decoding
from colibri.infer import denoise as denoising
from colibri.infer import memory, models, placement
from colibri.infer.cli import main
from colibri.infer.config import QuantizeConfig, T2vConfig
from colibri.infer.finish import decode_clip, made_of
from colibri.infer.generate import generate
from colibri.infer.jobs import job_of
from colibri.infer.models import Machine, Source
from colibri.infer.quantize import about_as, quantize
from colibri.infer.recipe import Recipe
from colibri.infer.settings import make_recipes
from infer_toys import frames_of
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PROMPT = "a red circle moves left"
STREAMED = memory.Way(vae_waits=True, place="stream")


def quiet(_: str) -> None:
    return


def settings(model: Path, out: Path, **more: object) -> T2vConfig:
    given = {"model": str(model), "out": out, "prompt": PROMPT, "steps": 2, "frames": 9}
    look = {"device": "cpu", "size": (64, 64), "guidance": 1.0}
    return T2vConfig(**{**given, **look} | more)  # type: ignore[arg-type]


def planned(model: Path, **more: object) -> tuple[Source, Machine, Recipe]:
    config = settings(model, Path("out"), **more)
    source = models.find_model(config.model)
    machine = models.choose_machine("cpu", config.dtype, config.vae_dtype)
    (one,) = make_recipes(config, [job_of(PROMPT, 0)], source, machine, say=quiet)
    return source, machine, one.recipe


def allocated(run: Callable[[], object]) -> int:
    """Most bytes that PyTorch's allocator gave to `run` at once: what its own profiler saw."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        run()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    held = most = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        held += one.nbytes()
        most = max(most, held)
    assert most
    return most


class Limited(TorchDispatchMode):
    """A device of so many bytes: whatever new tensor does not fit beside the others is refused."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.held, self.peak = most, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = {one.untyped_storage()._cdata for one in tree_leaves((args, kwargs)) if _real(one)}
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if _real(one) and one.untyped_storage()._cdata not in given | self._known:
                self._add(one.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if self.held + size > self.most:
            raise torch.OutOfMemoryError(f"simulated: out of memory, {size} bytes more")
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def _real(one: object) -> bool:
    return isinstance(one, torch.Tensor) and one.device.type == "cpu"


# ---- arithmetic ----


@pytest.mark.parametrize(("dtype", "form"), [("float32", "ti2v"), ("bfloat16", "t2v")])
def test_predicted_peaks_are_the_measured_ones_within_ten_percent(
    dtype: str, form: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(form)
    source, machine, recipe = planned(folder, dtype=dtype, size=(64, 96), frames=13, steps=3)
    shapes = memory.Shapes(source, recipe, machine)

    def check(predicted: int, run: Callable[[], object]) -> None:
        assert allocated(run) == pytest.approx(predicted, rel=0.1)

    model = models.load(source, machine, "tokenizer", "text_encoder")
    denoising.encode_prompt(model, PROMPT)
    check(shapes.text("device").working_bytes, lambda: denoising.encode_prompt(model, PROMPT))
    words = {PROMPT: denoising.encode_prompt(model, PROMPT)}
    model = denoising.load_denoiser(source, machine, recipe)
    made: list[torch.Tensor] = []
    ways = [*memory.CPU_WAYS, STREAMED] if form == "ti2v" else [memory.Way(), STREAMED]
    for way in ways:
        placement._set(model, way)
        stage = shapes.denoise(way)
        stream = placement._PLACED[model.transformer].stream
        if stream is not None:
            stream.leave()
        slots = 2 * stream.block_bytes if stream else 0
        check(
            stage.working_bytes + slots,
            lambda: made.append(denoising.sample(model, recipe, words, None, None)),
        )
    for mode in ("whole", "chunks"):
        check(
            shapes.decode(mode).working_bytes,
            lambda mode=mode: decode_clip(model, machine, made[0], mode=mode, say=quiet),  # type: ignore[misc]
        )


def test_parts_that_are_reserved_count_as_those_that_are_computed(ti2v: Path) -> None:
    source, machine, recipe = planned(ti2v)
    shapes = memory.Shapes(source, recipe, machine)
    vae = shapes._network("vae")
    raw = torch.empty((1, 16, 6, 6, 8), device="meta")
    for tiles in (False, True):
        vae.use_tiling = tiles
        vae.tile_sample_min_height = vae.tile_sample_min_width = 32
        vae.tile_sample_stride_height = vae.tile_sample_stride_width = 24
        run = lambda: vae.decode(raw).sample  # noqa: E731
        for device in ("cpu", "cuda"):
            full = memory.peak_bytes(run, device)
            vae.clear_cache()
            assert memory.peak_bytes(run, device, vae=vae) == full
            vae.clear_cache()


def test_a_quantised_model_is_planned_with_its_own_weights(ti2v: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    quantize(QuantizeConfig(model=str(ti2v), out=out, compare=False, device="cpu"), say=quiet)
    source, machine, recipe = planned(out)
    plan = memory.make_plan(source, recipe, machine, 1 << 40)
    plain = memory.make_plan(*planned(ti2v)[:1], recipe, machine, 1 << 40)  # type: ignore[misc]
    assert plan.precision == "int8, float32, VAE float32"
    model = models.load(source, machine, "transformer", "vae", "text_encoder")
    held = [memory.weights_bytes(one) for one in (model.transformer, model.vae, model.text_encoder)]
    assert plan.stages[1].weights_bytes == held[0] + held[1]
    assert plan.stages[0].weights_bytes == held[2]
    assert plan.stages[1].weights_bytes < plain.stages[1].weights_bytes
    # The same from the family alone, as `infer info --scheme` plans it.
    about = about_as(source.family, "int8")
    assert memory.make_plan(source, recipe, machine, 1 << 40, about=about).stages == plan.stages


def test_the_full_model_is_planned_without_weights() -> None:
    source = Source(
        asked="x", revision=None, folder=Path("none"), family=WAN22_TI2V_5B, schedule=None
    )
    machine = Machine(device="cuda", dtype="bfloat16", vae_dtype="bfloat16")
    from colibri.infer.about import recipe_of
    from colibri.infer.config import InfoConfig

    recipe = recipe_of(source, InfoConfig(guidance=1.0, vae_dtype="bfloat16"))
    found = {}
    for gigabytes in ("80", "8"):
        budget = memory.budget_bytes(gigabytes, "cuda")
        assert budget is not None
        assert budget < float(gigabytes) * memory.GIB
        found[gigabytes] = memory.make_plan(source, recipe, machine, budget)
        assert found[gigabytes].fits
    roomy, scarce = found["80"], found["8"]
    # 5 G and 5.68 G parameters of 2 bytes, and what stays in float32
    assert roomy.stages[0].weights_bytes == pytest.approx(5_680_910_336 * 2, rel=0.01)
    vae = 704_688_668 * 2
    assert roomy.stages[1].weights_bytes == pytest.approx(4_999_787_712 * 2 + vae, rel=0.01)
    assert (roomy.text, roomy.way, roomy.decode) == ("device", memory.Way(), "whole")
    assert (scarce.text, scarce.way.place, scarce.way.vae_waits) == ("stream", "stream", True)
    # two of thirty blocks, and what is outside them
    assert 2 / 30 < scarce.stages[1].weights_bytes / (4_999_787_712 * 2) < 3 / 30
    assert scarce.host_bytes >= roomy.stages[0].weights_bytes
    lines = scarce.lines()
    assert "block by block from the host" in lines
    assert "OVER" not in lines
    assert "infer quantize" in lines
    tight = memory.make_plan(source, recipe, machine, 1 << 20)
    assert not tight.fits
    assert "OVER THE BUDGET" in tight.lines()


@pytest.mark.parametrize("asked", ["nonsense", "0", "-3", "nan", "inf", "16GB"])
def test_a_vram_that_is_no_size_is_one_sentence(
    asked: str, ti2v: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(ti2v), "--prompt", "x", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["t2v", *flags, f"--vram={asked}"]) == 2
    told = capsys.readouterr().err
    assert told == f"error: --vram {asked} is not a number of GB; such as 16, 8, or auto\n"


def test_auto_is_what_is_free_or_says_that_it_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert memory.budget_bytes(None, "cpu") is None
    found = memory.budget_bytes("auto", "cpu")
    assert found is not None
    assert 0 < found < 1 << 50
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * memory.GIB, 16))
    on_gpu = memory.budget_bytes(None, "cuda:0")
    assert on_gpu is not None
    assert 9 * memory.GIB < on_gpu < 9.5 * memory.GIB
    with pytest.raises(UserError, match="--vram auto: how much memory is free on mps"):
        memory.budget_bytes("auto", "mps")
    assert memory.budget_bytes(None, "mps") is None
    with pytest.raises(UserError, match="--vram 1 leaves too little"):
        memory.budget_bytes("1", "cuda")


# ---- at work ----


def test_the_plan_is_printed_before_anything_loads(
    ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    load = models.load
    monkeypatch.setattr(
        models, "load", lambda *args: told.append("loads " + ",".join(args[2:])) or load(*args)
    )
    generate(settings(ti2v, tmp_path, vram="8"), say=told.append)
    loads = [index for index, line in enumerate(told) if line.startswith("loads")]
    (at,) = [i for i, line in enumerate(told) if line.startswith("Memory plan for 8.00 GiB")]
    assert at < loads[0]
    assert [told[index] for index in loads] == [
        "loads tokenizer,text_encoder",
        "loads transformer,vae",
    ]


def test_the_text_encoder_is_gone_before_the_transformer_loads(
    ti2v: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, machine, recipe = planned(ti2v)
    seen: list[weakref.ref[Any]] = []
    load = models.load

    def watched(*args: Any) -> wan.WanModel:
        model = load(*args)
        if model.text_encoder is not None:
            seen.append(weakref.ref(model.text_encoder))
        return model

    monkeypatch.setattr(models, "load", watched)
    denoising.encode_prompts(source, machine, [PROMPT])
    assert len(seen) == 1
    assert seen[0]() is None
    denoising._encode_prompts(source, machine, [PROMPT], "stream")  # hooks hold it in no cycle
    gc.collect()
    assert seen[1]() is None
    assert recipe.prompt == PROMPT


@pytest.mark.parametrize("form", ["ti2v", "t2v", "int4"])
def test_streamed_weights_give_equal_results_and_are_read_once_a_pass(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if form == "int4":
        folder = tmp_path / "int4"
        plain = request.getfixturevalue("ti2v")
        given = {"model": str(plain), "scheme": "int4", "compare": False, "device": "cpu"}
        quantize(QuantizeConfig(out=folder, **given), say=quiet)  # type: ignore[arg-type]
    else:
        folder = request.getfixturevalue(form)
    source, machine, recipe = planned(folder, steps=3, guidance=2.0)
    words = {
        text: denoising._encode_prompts(source, machine, [text], "device")[text]
        for text in denoising.needed_prompts(recipe)
    }
    for text, whole in words.items():
        streamed = denoising._encode_prompts(source, machine, [text], "stream")[text]
        assert (streamed - whole).abs().max() == 0
    model = denoising.load_denoiser(source, machine, recipe)
    before = denoising.sample(model, recipe, words, None, None)
    placement._set(model, STREAMED)
    stream = placement._PLACED[model.transformer].stream
    assert stream is not None
    after = denoising.sample(model, recipe, words, None, None)
    assert (after - before).abs().max() == 0
    total, largest = memory.streamed_bytes(model.transformer.blocks)
    # 3 steps, 2 branches, and the first block of a pass that did not come
    assert stream.bytes_read == pytest.approx(6 * total, abs=largest)
    assert stream.block_bytes == largest
    frames, _ = decode_clip(model, machine, after, mode="whole", say=quiet)
    placement._set(model, memory.Way())
    assert placement._PLACED[model.transformer].stream is None
    assert (denoising.sample(model, recipe, words, None, None) - before).abs().max() == 0
    assert np.array_equal(decode_clip(model, machine, before, mode="whole", say=quiet)[0], frames)


def test_a_plan_keeps_a_device_of_its_size_and_without_one_it_steps_down(
    ti2v: Path, tmp_path: Path
) -> None:
    source, machine, recipe = planned(ti2v, size=(128, 128), frames=17)
    words = denoising.encode_prompts(source, machine, [PROMPT])
    shapes = memory.Shapes(source, recipe, machine)
    first, *_, last = (shapes.denoise(way).working_bytes for way in memory.CPU_WAYS)
    limit = int(last * 1.1)
    assert limit < 0.9 * first
    told: list[str] = []
    model = denoising.load_denoiser(source, machine, recipe)
    with Limited(limit) as device:
        denoising.denoise(model, recipe, words, None, say=told.append)
    assert told[-1] == (
        "Memory ran out in denoising; beginning again: feed-forward in 8 parts, one modulation row "
        "a frame."
    )
    assert 0.7 * limit < device.peak <= limit
    weights = shapes.denoise(memory.Way()).weights_bytes
    plan = memory.make_plan(source, recipe, machine, weights + limit)
    model = denoising.load_denoiser(source, replace(machine, plan=plan), recipe)
    told.clear()
    with Limited(limit):
        denoising.denoise(model, recipe, words, None, say=told.append)
    assert told == []


def failing(method: Callable[..., Any], times: int) -> Callable[..., Any]:
    """`method` that runs out of memory in its first calls."""
    left = [times]

    def call(*args: Any, **more: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
        return method(*args, **more)

    return call


@pytest.fixture
def gpu_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is taken for a device beside the host."""
    monkeypatch.setattr(placement, "ways_for", lambda device: memory.WAYS)


@pytest.mark.usefixtures("gpu_ways")
def test_out_of_memory_in_every_stage_steps_down_says_so_and_makes_the_same_frames(
    ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5EncoderModel

    (plain,) = generate(settings(ti2v, tmp_path / "plain"), say=quiet)
    for kind, name in (
        (UMT5EncoderModel, "forward"),
        (WanTransformer3DModel, "forward"),
        (AutoencoderKLWan, "decode"),
    ):
        monkeypatch.setattr(kind, name, _bound(failing(getattr(kind, name), 1)))
    told: list[str] = []
    (one,) = generate(settings(ti2v, tmp_path / "scarce"), say=told.append)
    assert [line for line in told if line.startswith("Memory ran out")] == [
        "Memory ran out in reading the prompt; trying again block by block from the host "
        "(the same numbers).",
        "Memory ran out in denoising; beginning again: transformer on the device, VAE on the host "
        "meanwhile.",
        "Memory ran out in decoding; trying again in chunks of one latent frame (the same frames).",
    ]
    assert np.array_equal(frames_of(one.video), frames_of(plain.video))
    assert one.made.decode == "chunks"
    assert one.made.frames_sha256 == plain.made.frames_sha256


def _bound(call: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **more: Any) -> Any:
        return call(self, *args, **more)

    return method


@pytest.mark.usefixtures("gpu_ways")
def test_denoising_goes_down_to_streaming_and_at_last_gives_up_in_one_sentence(
    ti2v: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, machine, recipe = planned(ti2v)
    words = denoising.encode_prompts(source, machine, [PROMPT])
    model = denoising.load_denoiser(source, machine, recipe)
    before = denoising.denoise(model, recipe, words, None)
    told: list[str] = []
    network = model.transformer
    with monkeypatch.context() as patch:
        patch.setattr(network, "forward", failing(network.forward, 3))
        after = denoising.denoise(model, recipe, words, None, say=told.append)
    assert placement.way_of(model) == STREAMED
    assert len(told) == 3
    assert (after - before).abs().max() == 0
    with monkeypatch.context() as patch:
        patch.setattr(network, "forward", failing(network.forward, 99))
        with pytest.raises(UserError, match="memory ran out while denoising 64x64, 9 frames"):
            denoising.denoise(model, recipe, words, None, say=quiet)


def test_the_text_encoder_gives_up_in_one_sentence(
    ti2v: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, machine, _ = planned(ti2v)
    monkeypatch.setattr(denoising, "_encode_prompts", failing(quiet, 9))
    with pytest.raises(UserError, match="memory ran out in every way of reading the prompt"):
        denoising.encode_prompts(source, machine, [PROMPT], say=quiet)


def test_a_feed_forward_in_parts_and_one_modulation_row_change_rounding_alone(ti2v: Path) -> None:
    source, machine, recipe = planned(ti2v)
    words = denoising.encode_prompts(source, machine, [PROMPT])
    model = denoising.load_denoiser(source, machine, recipe)
    before = denoising.denoise(model, recipe, words, None)
    assert placement.rounding(model) == {}
    for way in memory.CPU_WAYS[1:]:
        placement._set(model, way)
        after = denoising.denoise(model, recipe, words, None)
        assert (after - before).abs().max() < 1e-4 * before.abs().max()
        assert placement.rounding(model)["memory"].startswith("feed-forward in 8")


def test_what_a_placement_rounds_is_in_the_record_of_frames(ti2v: Path) -> None:
    source, machine, recipe = planned(ti2v)
    model = denoising.load_denoiser(source, machine, recipe)
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    assert "memory" not in made_of(model, machine, frames, "whole").versions
    placement._set(model, memory.CPU_WAYS[-1])
    found = made_of(model, machine, frames, "whole").versions["memory"]
    assert found == "feed-forward in 8, lean"


def test_decoding_begins_where_the_plan_says(ti2v: Path) -> None:
    source, machine, recipe = planned(ti2v, size=(64, 64), frames=33)
    shapes = memory.Shapes(source, recipe, machine)
    weights = shapes.weights("transformer")
    whole, chunks = (shapes.decode(way, beside=weights).peak_bytes for way in ("whole", "chunks"))
    assert chunks < whole
    plan = memory.make_plan(source, recipe, machine, (whole + chunks) // 2)
    assert plan.decode == "chunks"
    model = models.load(source, machine, "vae")
    latents = torch.zeros(1, 16, 9, 8, 8)
    told: list[str] = []
    _, way = decode_clip(model, replace(machine, plan=plan), latents, mode="auto", say=told.append)
    assert (way, told) == ("chunks", [])
    assert math.isfinite(plan.host_bytes)
    assert decoding.STEPS_DOWN[1] == plan.decode
