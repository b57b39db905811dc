"""Two-layer models and a handful of tokens, in float64 where equality is proved."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colibri.core import wan
from colibri.core.wan.family import TINY_TI2V, ModelFamily
from colibri.core.wan.text import word_tokenizer
from colibri.distill.config import CriticConfig, EncodeConfig, StudentConfig, TrainConfig
from colibri.distill.embedded import write_embedded
from colibri.distill.encode import encode

WORDS = "a red blue circle square moves left right over background".split()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def family() -> ModelFamily:
    transformer = dict(TINY_TI2V.transformer) | {
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "ffn_dim": 32,
        "freq_dim": 16,
        "text_dim": 64,
    }
    return replace(TINY_TI2V, transformer=transformer)


@pytest.fixture(scope="session")
def model(family: ModelFamily) -> wan.WanModel:
    """Read-only by agreement."""
    return wan.build(family, seed=0, tokenizer=word_tokenizer(WORDS))


@pytest.fixture(scope="session")
def folder(model: wan.WanModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model as a pipeline folder."""
    path = tmp_path_factory.mktemp("teacher") / "tiny-random"
    wan.save(model, path)
    return str(path)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' Wan casts its residual stream to float32, whatever its weights are; float64 all
    the way is needed where 1e-10 is to be shown."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.fixture(scope="session")
def encoded(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen rows of the small world, encoded at 32x32. Read-only by agreement."""
    path = tmp_path_factory.mktemp("encoded")
    write_embedded(path / "shards", rows=12)
    encode(EncodeConfig(shards=path / "shards", out=path / "out", model=folder, size=(32, 32)))
    return path / "out"


@pytest.fixture(scope="session")
def settings(folder: str, encoded: Path) -> TrainConfig:
    """A run of a few seconds."""
    return TrainConfig(
        teacher=folder,
        encoded=encoded,
        size=(32, 32),
        frames=9,
        steps=6,
        batch=2,
        save_every=2,
        student=StudentConfig(lr=1e-3, every=2, rank=2, ema=0.9),
        critic=CriticConfig(lr=1e-3, rank=2),
        device="cpu",
    )
