"""Two processes are one, sharded (FSDP2) and not, over gloo on the CPU."""

import json
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from colibri.core.wan.family import Causal
from colibri.distill.config import EncodeConfig, StreamConfig, TrainConfig
from colibri.distill.embedded import write_embedded
from colibri.distill.encode import encode
from colibri.distill.parallel import processes
from colibri.distill.train import train
from processes import run_joined
from safetensors.torch import load_file


def _work(joined: dict[str, str], config: TrainConfig) -> None:
    os.environ |= joined
    torch.set_num_threads(1)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign,assignment]
    train(config)


def _run(config: TrainConfig, size: int) -> None:
    """`size` processes, joined as `accelerate launch` joins them."""
    assert run_joined(_work, [(config,)] * size, timeout_s=240) == [0] * size


@pytest.fixture(scope="module")
def config(settings: TrainConfig) -> TrainConfig:
    return replace(
        settings,
        precision="fp64",
        steps=3,
        save_every=3,
        adam=replace(settings.adam, eps=1.0),  # nearly plain gradient steps
    )


@pytest.fixture(scope="module")
def alone(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    _run(replace(config, out=out / "one"), 1)
    return out / "one"


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [True, False])
def test_two_processes_are_one(
    sharded: bool, config: TrainConfig, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    _run(replace(config, out=out, batch=1, shard=sharded, checkpointing=sharded), 2)
    _compare(alone, out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "change"),
    [
        (2, {}),
        (2, {"shard": True, "checkpointing": True}),
        (4, {"shard": True, "batch": 1}),
    ],
    ids=["one clip", "one clip, sharded weights", "two clips"],
)
def test_processes_that_share_a_clip_are_one(
    size: int, change: dict[str, Any], config: TrainConfig, alone: Path, tmp_path: Path
) -> None:
    """Given first frames among them, whose timesteps are one a token and are split as well."""
    _run(replace(config, out=tmp_path / "some", context=2, **change), size)
    _compare(alone, tmp_path / "some")


@pytest.mark.slow
def test_two_sharded_processes_are_one_in_a_stream_of_blocks(
    config: TrainConfig, tmp_path: Path
) -> None:
    """Blocks are computed again in the backward pass, each with the cache that it saw."""
    stream = replace(
        config,
        rollout="stream",
        causal=Causal(first_block=1, block=1, sink=1, window=2),
        p_i2v=0.0,
        stream=StreamConfig(rounds=2),
        student=replace(config.student, every=1),
    )
    one, two = tmp_path / "one", tmp_path / "two"
    _run(replace(stream, out=one), 1)
    _run(replace(stream, out=two, batch=1, shard=True, checkpointing=True), 2)
    _compare(one, two)
    assert any(name.startswith("rollout/student/0/cache/") for name in _held(two))


@pytest.mark.slow
def test_two_sharded_processes_are_one_in_a_gan(config: TrainConfig, tmp_path: Path) -> None:
    shards = write_embedded(tmp_path / "shards", rows=4, videos=True)
    encoded = tmp_path / "encoded"
    encode(EncodeConfig(shards=shards, out=encoded, model=config.teacher, size=(32, 32), clips=9))
    terms = ("adversary", "dmd", "discriminate", "denoise")
    gan = replace(config, encoded=encoded, terms=terms)
    one, two = tmp_path / "one", tmp_path / "two"
    _run(replace(gan, out=one), 1)
    _run(replace(gan, out=two, batch=1, shard=True, checkpointing=True), 2)
    _compare(one, two)


def _wait_for_the_late(joined: dict[str, str], late_s: float) -> None:
    os.environ |= joined
    with processes("cpu") as world:
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=0.5))
        for _ in range(2):
            time.sleep(late_s)
            world.wait()
            late_s = 1.5 - late_s
        assert world.gather({"rank": [world.rank]}) == {"rank": [0, 1]}


def test_processes_wait_longer_for_one_that_makes_files_than_for_a_gradient() -> None:
    assert run_joined(_wait_for_the_late, [(1.5,), (0.0,)], timeout_s=60) == [0, 0]


def _compare(alone: Path, out: Path) -> None:
    """Equal logs, weights, optimisers and clips under way."""
    lines = [
        [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        for path in (alone, out)
    ]
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys()
        for key in one.keys() - {"seconds", "tflops", "peak_gb"}:
            assert two[key] == pytest.approx(one[key], rel=1e-10, abs=1e-300), key
    held = [_held(path) for path in (alone, out)]
    assert held[0].keys() == held[1].keys()
    for name, value in held[0].items():
        torch.testing.assert_close(held[1][name], value, rtol=1e-10, atol=1e-13)


def _held(out: Path) -> dict[str, torch.Tensor]:
    """Weights and optimiser states of both networks, put together from all processes."""
    files = sorted((out / "checkpoints" / "step-00000003").glob("rank-*.safetensors"))
    parts = [load_file(file) for file in files]
    whole = {}
    for name, first in parts[0].items():
        if name.startswith("random/"):
            continue
        pieces = [part[name] for part in parts]
        same = all(torch.equal(piece, first) for piece in pieces)
        whole[name] = first if same else torch.cat(pieces)
    return whole


@pytest.mark.slow
def test_two_processes_with_a_sharded_base_are_one(config: TrainConfig, tmp_path: Path) -> None:
    """Adapters on a base that FSDP2 splits: every process holds the same adapters."""
    base = replace(config, mode="lora")
    _run(replace(base, out=tmp_path / "one"), 1)
    _run(replace(base, out=tmp_path / "two", batch=1, shard=True), 2)
    held = [_held(tmp_path / name) for name in ("one", "two")]
    assert held[0].keys() == held[1].keys()
    assert any("lora_A" in name for name in held[0])
    for name, value in held[0].items():
        torch.testing.assert_close(held[1][name], value, rtol=1e-10, atol=1e-13)
    students = [load_file(tmp_path / n / "lora.safetensors") for n in ("one", "two")]
    for name, value in students[0].items():
        torch.testing.assert_close(students[1][name], value, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bytes(config: TrainConfig, tmp_path: Path) -> None:
    base = replace(config, batch=1, shard=True, save_every=2, steps=4)
    _run(replace(base, out=tmp_path / "whole"), 2)
    _run(replace(base, out=tmp_path / "parts", steps=2), 2)
    _run(replace(base, out=tmp_path / "parts"), 2)
    files = [
        sorted((tmp_path / n / "checkpoints" / "step-00000004").glob("rank-*"))
        for n in ("whole", "parts")
    ]
    assert len(files[0]) == len(files[1]) == 2
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()
