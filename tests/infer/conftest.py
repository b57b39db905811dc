"""Two tiny random model folders, written once, and a cache of their own for every run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from colibri.core import wan
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import TINY_T2V, TINY_TI2V, Causal
from colibri.core.wan.text import word_tokenizer

WORDS = "a red blue circle square moves left right over background".split()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hashes and recaptions of tests stay out of the person's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only lose time to threads, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _folder(family: wan.ModelFamily, path: Path) -> Path:
    model = wan.build(family, seed=0, tokenizer=word_tokenizer(WORDS))
    model.vae.register_to_config(latents_mean=[0.1] * 16, latents_std=[0.9] * 16)
    wan.save(model, path)
    return path


@pytest.fixture(scope="session")
def ti2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text and image to video. Read-only by agreement."""
    return _folder(TINY_TI2V, tmp_path_factory.mktemp("models") / "tiny-ti2v")


@pytest.fixture(scope="session")
def t2v(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text to video only. Read-only by agreement."""
    return _folder(TINY_T2V, tmp_path_factory.mktemp("models") / "tiny-t2v")


@pytest.fixture(scope="session")
def causal_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes long videos in blocks of 2 latent frames. Read-only by agreement."""
    defaults = replace(TINY_T2V.defaults, sampler="consistency", guidance=1.0, steps=2, fps=8)
    causal = Causal(first_block=1, block=2, sink=1, window=4)
    family = replace(TINY_T2V, causal=causal, defaults=defaults)
    model = wan.build(family, seed=0, tokenizer=word_tokenizer(WORDS))
    model.vae.register_to_config(latents_mean=[0.1] * 16, latents_std=[0.9] * 16)
    model.schedule = FlowSchedule.listed([1000, 500], shift=5)
    folder = tmp_path_factory.mktemp("models") / "tiny-long"
    wan.save(model, folder)
    return folder
