"""The loop: exact resume, logs, output, refusals."""

import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file
from colibri.core.wan.rollout import whole_clip
from colibri.distill import checkpoint
from colibri.distill.config import (
    GuidanceConfig,
    PairsConfig,
    ScheduleConfig,
    StudentConfig,
    TrainConfig,
)
from colibri.distill.journal import Watch
from colibri.distill.objectives import TERMS, find_term
from colibri.distill.objectives.base import TermLoss
from colibri.distill.setup import VARIANTS, attention_backend, is_done
from colibri.distill.train import train
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

CLOCK = {"seconds", "tflops", "mfu", "peak_gb"}
"""What two equal runs do not have alike."""

FORK = multiprocessing.get_context("fork")


def _bytes(out: Path) -> dict[str, str]:
    """Hash of everything in a run's newest checkpoint, its student and its average."""
    newest = checkpoint.latest(out / "checkpoints")
    assert newest is not None
    files = [*newest.iterdir(), *(out / "student" / "transformer").iterdir()]
    return {path.name: hash_file(path) for path in sorted(files)}


def _log(out: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]


@pytest.fixture(scope="module", params=["full", "lora"])
def undisturbed(
    request: pytest.FixtureRequest, settings: TrainConfig, tmp_path_factory: pytest.TempPathFactory
) -> TrainConfig:
    config = replace(settings, mode=request.param, out=tmp_path_factory.mktemp("undisturbed"))
    train(config)
    return config


def test_stopped_and_resumed_is_undisturbed_bit_for_bit(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    config = replace(undisturbed, out=tmp_path)
    assert train(config, stop_at=3) is None
    train(config)
    assert _bytes(tmp_path) == _bytes(undisturbed.out)
    assert _log(tmp_path) == _log(undisturbed.out)


def test_killed_twice_and_resumed_is_undisturbed_bit_for_bit(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    """SIGKILL at moments that nobody chose: after the first checkpoint, and again later."""
    config = replace(undisturbed, out=tmp_path)
    ends = []
    for lines in (3, 5):
        process = FORK.Process(target=train, args=(config,))
        process.start()
        log = tmp_path / "log.jsonl"
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s and process.is_alive():
            if log.is_file() and log.read_text().count("\n") >= lines:
                break
            time.sleep(0.005)
        assert process.pid is not None
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        ends.append(process.exitcode)
    assert -signal.SIGKILL in ends
    train(config)
    assert _bytes(tmp_path) == _bytes(undisturbed.out)
    assert _log(tmp_path) == _log(undisturbed.out)


def test_the_student_folder_says_how_it_is_run_and_where_it_came_from(
    undisturbed: TrainConfig,
) -> None:
    student = wan.load(undisturbed.out / "student")
    teacher = wan.load(undisturbed.teacher, parts=("transformer",))
    assert student.schedule == undisturbed.schedule.build()
    assert student.sampling_schedule().sigmas == student.schedule.sigmas  # type: ignore[union-attr]
    default = student.family.defaults
    assert (default.sampler, default.steps, default.guidance) == ("consistency", 3, 1.0)
    about = json.loads((undisturbed.out / "student" / "distill.json").read_text())
    assert about["cfg_free"] is True
    assert about["vae_hash"] == student.vae_hash
    assert about["teacher_transformer"] == wan.hash_part(Path(undisturbed.teacher), "transformer")
    assert about["step"] == undisturbed.steps
    moved = [
        not torch.equal(one, two)
        for one, two in zip(
            student.transformer.parameters(), teacher.transformer.parameters(), strict=True
        )
    ]
    assert any(moved)


def test_the_folder_has_the_averaged_weights(undisturbed: TrainConfig) -> None:
    newest = checkpoint.latest(undisturbed.out / "checkpoints")
    assert newest is not None
    from safetensors.torch import load_file

    held = load_file(newest / "rank-00000.safetensors")
    student = dict(
        wan.load(undisturbed.out / "student", parts=("transformer",)).transformer.named_parameters()
    )
    name = "blocks.0.attn1.to_q"
    if undisturbed.mode == "full":
        assert torch.equal(student[f"{name}.weight"], held[f"ema/{name}.weight"])
    else:
        base = wan.load(undisturbed.teacher, parts=("transformer",)).transformer
        up, down = (held[f"ema/{name}.lora_{letter}.weight"] for letter in "BA")
        expected = base.blocks[0].attn1.to_q.weight + up @ down
        torch.testing.assert_close(student[f"{name}.weight"], expected)


def test_the_lora_file_is_the_student(undisturbed: TrainConfig) -> None:
    """diffusers puts it on the teacher, and gets what the merged folder gives."""
    if undisturbed.mode == "full":
        assert not (undisturbed.out / "lora.safetensors").exists()
        return
    from diffusers import WanPipeline

    pipeline = WanPipeline.from_pretrained(undisturbed.teacher)
    pipeline.load_lora_weights(undisturbed.out, weight_name="lora.safetensors")
    student = wan.load(undisturbed.out / "student", parts=("transformer",))
    text = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(0))
    made = [
        whole_clip(
            network,
            text,
            shape=student.family.latent_shape(student.family.video),
            schedule=undisturbed.schedule.build(),
            generator=torch.Generator().manual_seed(1),
            sampler="consistency",
        )
        for network in (pipeline.transformer, student.transformer)
    ]
    torch.testing.assert_close(made[0], made[1], rtol=1e-3, atol=1e-4)


def test_the_log_has_losses_norms_and_signs_of_collapse(undisturbed: TrainConfig) -> None:
    lines = _log(undisturbed.out)
    assert [line["step"] for line in lines] == list(range(6))
    for line in lines:
        assert {"loss/denoise", "gradient_norm/critic"} <= line.keys()
        trains_student = line["step"] % 2 == 0  # type: ignore[operator]
        assert ("gradient_norm/student" in line) == trains_student
        assert ("sample/motion" in line) == trains_student
        assert any(key.startswith("dmd/gap/") for key in line) == trains_student


def test_a_line_for_several_steps_is_their_mean_also_over_a_stop_between_two_lines(
    undisturbed: TrainConfig, tmp_path: Path
) -> None:
    config = replace(undisturbed, out=tmp_path, log_every=2, save_every=3)

    def stopped(text: str) -> None:
        if text.startswith("step 3 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, say=stopped)
    train(config)
    lines, each = _log(tmp_path), _log(undisturbed.out)
    assert [line["step"] for line in lines] == [1, 3, 5]
    for line in lines:
        two = each[line["step"] - 1 : line["step"] + 1]  # type: ignore[operator]
        assert line["dmd/gradient_raw"] == two[0]["dmd/gradient_raw"]
        mean = sum(one["loss/denoise"] for one in two) / 2  # type: ignore[misc]
        assert line["loss/denoise"] == pytest.approx(mean, rel=1e-12)


def test_old_checkpoints_are_removed(undisturbed: TrainConfig) -> None:
    names = sorted(path.name for path in (undisturbed.out / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000006"]


# ---- accumulation, in the loop ----


@pytest.mark.usefixtures("exact")
def test_accumulation_of_two_is_a_batch_of_two(settings: TrainConfig, tmp_path: Path) -> None:
    """Weights of both networks after two steps, with plain updates of a size that shows."""
    held = {}
    for batch, accumulate in ((2, 1), (1, 2)):
        config = replace(
            settings,
            precision="fp64",
            batch=batch,
            accumulate=accumulate,
            steps=2,
            out=tmp_path / f"{batch}x{accumulate}",
            adam=replace(settings.adam, eps=1.0),  # nearly plain gradient steps
        )
        train(config)
        held[batch] = checkpoint.read_tensors(
            config.out / "checkpoints" / "step-00000002", world=_One()
        )
    compared = 0
    for name, one in held[1].items():
        if (
            name.startswith(("student/", "critic/", "ema/", "adam-"))
            and one.dtype.is_floating_point
        ):
            torch.testing.assert_close(one, held[2][name], rtol=1e-10, atol=1e-13)
            compared += 1
    assert compared > 100


class _One:
    rank, size = 0, 1


# ---- refusals ----


def test_settings_that_changed_are_refused(undisturbed: TrainConfig) -> None:
    with pytest.raises(UserError, match="seed 0, this one has 1"):
        train(replace(undisturbed, seed=1, steps=8))


def test_a_refused_run_leaves_what_the_one_before_has_written(
    settings: TrainConfig, tmp_path: Path
) -> None:
    config = replace(settings, out=tmp_path, steps=1)
    train(config)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match="is of a run with student"):
        train(replace(config, student=replace(config.student, lr=0.5)))
    assert (tmp_path / "config.json").read_bytes() == before


def test_one_process_does_not_shard_and_says_so(settings: TrainConfig, tmp_path: Path) -> None:
    said: list[str] = []
    assert train(replace(settings, out=tmp_path, steps=1, shard=True), say=said.append)
    assert sum("not sharded: there is one process" in line for line in said) == 1


def test_flash_attention_is_chosen_where_it_is_installed_and_fits(
    settings: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, half = torch.device("cuda"), replace(settings, precision="bf16")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert attention_backend(half, cuda) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "flash_attn")
    assert attention_backend(half, cuda) == "flash"
    assert attention_backend(half, torch.device("cpu")) is None
    assert attention_backend(settings, cuda) is None
    assert attention_backend(replace(half, rollout="blocks"), cuda) is None
    assert attention_backend(replace(half, attention="NATIVE"), cuda) == "native"


def test_a_backend_that_is_asked_for_gets_all_self_attention_in_one_dtype(
    settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives what PyTorch's own gives."""
    config = replace(settings, steps=1, precision="bf16")
    train(replace(config, out=tmp_path / "own"))
    heard: set[tuple[torch.dtype, ...]] = set()

    def heard_sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heard.add((query.dtype, key.dtype, value.dtype))
        q, k, v = (x.transpose(1, 2) for x in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)

    name = AttentionBackendName._NATIVE_MATH
    monkeypatch.setitem(Registry._backends, name, heard_sdpa)
    monkeypatch.setitem(Registry._supported_arg_names, name, {"query", "key", "value"})
    said: list[str] = []
    train(replace(config, out=tmp_path / "asked", attention=name.value), say=said.append)
    assert heard == {(torch.bfloat16,) * 3}
    assert f"attention by {name.value}" in said[0]
    (own,), (asked,) = _log(tmp_path / "own"), _log(tmp_path / "asked")
    for key in ("loss/denoise", "gradient_norm/student", "gradient_norm/critic"):
        assert asked[key] == pytest.approx(own[key], rel=0.05)


@pytest.mark.slow
def test_no_variant_of_a_compiled_block_is_left_out(
    settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One base in three roles has more of them than PyTorch compiles unasked."""
    compiled: list[object] = []

    def count(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count))
    torch.compiler.reset()
    config = replace(
        settings, mode="lora", steps=4, validate_every=2, validate_rows=2, teacher_steps=2
    )
    for compile in (True, False):
        train(replace(config, out=tmp_path / str(compile), compile=compile))
    assert 8 < len(compiled) < VARIANTS
    for one, two in zip(_log(tmp_path / "True"), _log(tmp_path / "False"), strict=True):
        assert one["loss/denoise"] == pytest.approx(two["loss/denoise"], rel=1e-3)


def test_another_teacher_of_the_same_vae_is_noticed(settings: TrainConfig, tmp_path: Path) -> None:
    """By a run that would go on, by what skips runs that are done, and by kept validation clips."""
    config = replace(
        settings,
        out=tmp_path / "run",
        steps=1,
        p_i2v=0.0,
        validate_every=1,
        validate_rows=1,
        teacher_steps=1,
    )
    train(config)
    assert is_done(config)
    kept = config.out / "samples" / "teacher" / "text.safetensors"
    before = hash_file(kept)

    tuned = wan.load(config.teacher, parts=("transformer",))
    with torch.no_grad():
        tuned.transformer.proj_out.weight.mul_(1.5)
    wan.save(tuned, tmp_path / "tuned")
    other = replace(config, teacher=str(tmp_path / "tuned"))
    assert not is_done(other)
    with pytest.raises(UserError, match="is of a run with teacher"):
        train(replace(other, steps=2))
    shutil.rmtree(config.out / "checkpoints")
    train(other)
    assert hash_file(kept) != before


def test_a_cut_checkpoint_is_refused(undisturbed: TrainConfig, tmp_path: Path) -> None:
    config = replace(undisturbed, out=tmp_path)
    train(config, stop_at=2)
    path = tmp_path / "checkpoints" / "step-00000002" / "rank-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"cut off.*remove"):
        train(config)


@pytest.mark.parametrize(("term", "every"), [("denoise", 9), ("dmd", 1)])
def test_gradients_without_a_value_stop_the_run(
    term: str, every: int, settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of either network, whatever the other's are, and over a stop in between."""

    def broken(round: object, config: object) -> TermLoss:
        found = TERMS[term].loss(round, config)  # type: ignore[arg-type]
        return TermLoss(loss_B=found.loss_B * float("nan"))

    kind = replace(TERMS[term], loss=broken)
    monkeypatch.setattr(
        "colibri.distill.objectives.find_term", lambda n: kind if n == term else TERMS[n]
    )
    said: list[str] = []
    config = replace(settings, out=tmp_path, student=StudentConfig(every=every))
    train(config, say=said.append, stop_at=2)
    with pytest.raises(UserError, match=f"{kind.net}'s gradient is not finite, 3 times in a row"):
        train(config, say=said.append)
    assert sum(f"the {kind.net}'s gradient" in line for line in said) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "--batch has to be at least 1"),
        ({"p_i2v": 1.5}, "share in"),
        ({"size": (48, 64)}, "encoded for 32x32, this run is for 64x48"),
        ({"size": (30, 32)}, "height 30 is not a multiple of 16"),
        ({"frames": 10}, "10 frames do not fit"),
        ({"student": StudentConfig(lr=-1.0)}, "--student.lr has to be at least 0, found -1"),
        ({"student": StudentConfig(lr=float("nan"))}, "--student.lr has to be a finite number"),
        ({"student": StudentConfig(clip=0.0)}, "--student.clip has to be more than 0"),
        ({"guidance": GuidanceConfig(real=float("nan"))}, "--guidance.real has to be a finite"),
        ({"schedule": ScheduleConfig(steps=(1000.0, 0.0))}, r"in \(0, 1000\], found 0"),
        ({"terms": ("dmd",)}, "no loss for the critic"),
        ({"terms": ("dmd", "gan")}, "no loss 'gan'"),
        ({"terms": ("regress",), "pairs": PairsConfig(rows=4)}, "text to video alone, .* 0.5"),
        ({"teacher": "nowhere"}, "no model folder"),
        ({"device": "cuda"}, "no accelerator"),
        ({"context": 2}, "--context 2 needs a multiple of 2 processes, found 1"),
        ({"attention": "flash"}, r"--attention flash cannot be used: .*flash-attn"),
        ({"attention": "fast"}, r"--attention fast cannot be used: .*must be one of"),
        (
            {"attention": "flash", "rollout": "blocks", "p_i2v": 0.0},
            "--attention flash has no form",
        ),
        ({"context": 2, "rollout": "blocks"}, "--context 2 has no form for --rollout blocks"),
        ({"context": 2, "terms": ("adversary", "discriminate")}, "a head would see a part"),
        ({"encoded": Path("nowhere")}, "no finished encodings"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(
    changes: dict[str, object], message: str, settings: TrainConfig, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(settings, out=tmp_path, **changes))  # type: ignore[arg-type]


def test_saturated_samples_are_warned_of_once() -> None:
    watch = Watch(3, saturation_percent=6.0)
    assert watch.warning({"step": 0, "sample/saturated_percent": 5.0}) is None
    assert watch.warning({"step": 1}) is None
    assert "step 2: 7.0 %" in str(watch.warning({"step": 2, "sample/saturated_percent": 7.0}))
    assert watch.warning({"step": 3, "sample/saturated_percent": 9.0}) is None


OUTSIDE = replace(TERMS["denoise"], net="student")


def test_a_loss_from_outside_is_named_by_module_and_attribute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("mylab")
    module.term, module.number = OUTSIDE, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mylab", module)
    assert find_term("mylab:term") is OUTSIDE
    for name, message in (("mylab:nothing", "cannot be imported"), ("mylab:number", "TermKind")):
        with pytest.raises(UserError, match=message):
            find_term(name)


def test_samples_are_drawn(settings: TrainConfig, tmp_path: Path) -> None:
    config = replace(
        settings, out=tmp_path, steps=2, validate_every=2, validate_rows=2, teacher_steps=2
    )
    train(config)
    from PIL import Image

    with Image.open(tmp_path / "samples" / "step-00000002.png") as picture:
        assert picture.size == (6 * 32, 4 * 32)  # two prompts, from text alone and from a frame


def test_bf16_with_checkpointing_trains(settings: TrainConfig, tmp_path: Path) -> None:
    for mode in ("full", "lora"):
        config = replace(
            settings,
            mode=mode,  # type: ignore[arg-type]
            out=tmp_path / mode,
            steps=1,
            precision="bf16",
            checkpointing=True,
        )
        train(config)
        (line,) = _log(config.out)
        assert isinstance(line["gradient_norm/student"], float)
