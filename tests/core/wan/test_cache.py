"""What is kept, what is dropped, and in how many bytes."""

from typing import Literal

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.wan.cache import Kept, KVCache
from colibri.core.wan.family import Causal

TOKENS = 2


def _frames(first: int, count: int, layers: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys that are the frame's number and values that are minus that, (1, S, 1, 3)."""
    numbers = torch.arange(first, first + count, dtype=torch.float32).repeat_interleave(TOKENS)
    keys = numbers.view(1, -1, 1, 1).expand(1, -1, 1, 3)
    return [(keys + 100 * layer, -keys) for layer in range(layers)]


def _held(cache: KVCache) -> list[int]:
    return cache.layers[0][0].values_BSND[0, ::TOKENS, 0, 0].int().tolist()


@pytest.mark.parametrize(
    ("causal", "kept"),
    [
        (Causal(first_block=1, block=1), [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
        (Causal(first_block=1, block=1, window=3), [[0], [0, 1], [1, 2], [2, 3]]),
        (Causal(first_block=1, block=1, sink=1, window=2), [[0], [0, 1], [0, 2], [0, 3]]),
        (Causal(first_block=1, block=2, sink=2, window=3), [[0], [0, 1, 2], [0, 1, 4]]),
        (Causal(first_block=2, block=2, window=2), [[], [], []]),
    ],
    ids=str,
)
def test_the_sink_stays_and_the_ring_turns(causal: Causal, kept: list[list[int]]) -> None:
    cache, start = KVCache(causal=causal), 0
    for expected in kept:
        count = causal.block if start else causal.first_block
        cache = cache.extended(_frames(start, count), tokens=TOKENS)
        start += count
        assert (cache.frames, cache.held) == (start, len(expected))
        assert _held(cache) == expected
        keys, values = cache.layers[1]
        assert torch.equal(keys.values_BSND, 100 - values.values_BSND)


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("sink", [0, 1, 4])
@pytest.mark.parametrize("window", [3, 5, 8, None])
def test_what_is_held_is_what_the_next_block_sees(
    block: int, sink: int, window: int | None
) -> None:
    causal = Causal(first_block=1, block=block, sink=sink, window=window)
    cache = KVCache(causal=causal)
    for start, end in causal.blocks(1 + 6 * block):
        assert (_held(cache) if cache.layers else []) == [
            frame for frame in causal.seen(start, end) if frame < start
        ]
        cache = cache.extended(_frames(start, end - start), tokens=TOKENS)


def test_a_cache_is_never_changed() -> None:
    causal = Causal(first_block=1, block=1, sink=1, window=2)
    first = KVCache(causal=causal).extended(_frames(0, 1), tokens=TOKENS)
    second = first.extended(_frames(1, 1), tokens=TOKENS)
    before = second.layers[0][0].values_BSND.clone()
    third = second.extended(_frames(2, 1), tokens=TOKENS)
    assert _held(first) == [0]
    assert torch.equal(second.layers[0][0].values_BSND, before)
    assert _held(third) == [0, 2]


def test_dropped_frames_are_freed() -> None:
    cache = KVCache(causal=Causal(first_block=1, block=1, sink=1, window=2))
    for start in range(6):
        cache = cache.extended(_frames(start, 1), tokens=TOKENS)
    kept = cache.layers[0][0].values_BSND
    assert kept.untyped_storage().nbytes() == kept.nbytes


def test_one_byte_storage_rounds_by_token_and_head() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(2, 5, 3, 64, generator=generator)
    wide[0, 0, 0] *= 1e4  # an outlier hurts no other token or head
    largest = wide.abs().amax(-1, keepdim=True)
    whole = Kept.of(wide, "int8")
    assert ((whole.read(wide) - wide).abs() <= largest / 127 / 2 * 1.001).all()
    float8 = Kept.of(wide, "fp8")
    assert ((float8.read(wide) - wide).abs() <= wide.abs() / 16 * 1.001 + largest / 448 / 512).all()
    for kept in (whole, float8):
        assert kept.values_BSND.itemsize == 1
        assert kept.nbytes == wide.numel() + 4 * wide.numel() // 64
        assert kept.read(wide.bfloat16()).dtype == torch.bfloat16
    zeros = torch.zeros(1, 1, 1, 8)
    assert torch.equal(Kept.of(zeros, "int8").read(zeros), zeros)


@pytest.mark.parametrize("store", ["same", "int8", "fp8"])
def test_a_saved_cache_comes_back(store: Literal["same", "int8", "fp8"]) -> None:
    from safetensors.torch import load, save

    causal = Causal(first_block=1, block=1, sink=1, window=3)
    cache = KVCache(causal=causal, store=store)
    for start in range(5):
        cache = cache.extended(_frames(start, 1), tokens=TOKENS)
    again = KVCache(causal=causal, store=store).restored(load(save(cache.state())))
    assert (again.frames, again.held, again.tokens) == (5, 3, TOKENS)
    for one, other in zip(cache.layers, again.layers, strict=True):
        for kept, back in zip(one, other, strict=True):
            like = torch.zeros(1)
            assert torch.equal(kept.read(like), back.read(like))
    further = [one.extended(_frames(5, 1), tokens=TOKENS) for one in (cache, again)]
    for one, other in zip(*(each.layers for each in further), strict=True):
        assert torch.equal(one[0].read(like), other[0].read(like))
    wrong = "same" if store == "int8" else "int8"
    with pytest.raises(UserError, match="not that of a causal cache"):
        KVCache(causal=causal, store=wrong).restored(cache.state())
    with pytest.raises(UserError, match="not that of a causal cache"):
        KVCache(causal=causal).restored({"frames": torch.tensor([1])})


def test_no_gradient_is_lost_silently_in_one_byte() -> None:
    with pytest.raises(UserError, match="no gradient flows through a cache stored as int8"):
        Kept.of(torch.ones(1, 1, 1, 2, requires_grad=True), "int8")
