"""A tiny random model of each form, built once."""

from collections.abc import Iterator

import pytest
import torch
from colibri.core import wan
from colibri.core.wan.family import TINY_T2V, TINY_TI2V
from colibri.core.wan.text import word_tokenizer

WORDS = "a red blue circle square moves left right over background".split()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only lose time to threads, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _build(family: wan.ModelFamily) -> wan.WanModel:
    model = wan.build(family, seed=0, tokenizer=word_tokenizer(WORDS))
    # Statistics that do something, unlike the untrained family's zeros and ones.
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(16, generator=generator)
    std = 0.5 + torch.rand(16, generator=generator)
    model.vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    return model


@pytest.fixture(scope="session")
def ti2v() -> wan.WanModel:
    """Read-only by agreement."""
    return _build(TINY_TI2V)


@pytest.fixture(scope="session")
def t2v() -> wan.WanModel:
    """Read-only by agreement."""
    return _build(TINY_T2V)
