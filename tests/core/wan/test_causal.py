"""Block after block with a cache, against a whole clip at once and against plain references."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.attention import Prompt, make_causal
from colibri.core.wan.cache import KVCache
from colibri.core.wan.causal import block_velocity, clip_velocity, extend, recached
from colibri.core.wan.family import Causal
from colibri.core.wan.rollout import Block, block_rollout, rewritten, seeded_noise
from colibri.core.wan.transformer import velocity

EXACT = 1e-10
SINGLE = 1e-5
TABLES = 1e-6
"""The model's rotary tables are float32: positions shifted alike agree to their rounding only."""

FRAMES = 7
SHAPE = LatentShape(channels=4, frames=0, height=4, width=4)
SCHEDULE = FlowSchedule.listed([1000, 750, 500], shift=5)


def _model(dtype: torch.dtype = torch.float64, layers: int = 3, head: int = 12) -> Any:
    from diffusers import WanTransformer3DModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=head,
            in_channels=4,
            out_channels=4,
            text_dim=8,
            freq_dim=16,
            ffn_dim=32,
            num_layers=layers,
        )
    return model.to(dtype).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return _model()


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


X = _draw(2, 4, FRAMES, 4, 4)
TEXT = _draw(2, 5, 8, seed=1)


@torch.no_grad()
def _cached(
    model: Any, x: torch.Tensor, causal: Causal, sigma: float, clean: torch.Tensor | None = None
) -> torch.Tensor:
    """Block after block; the cache is written with the block as it is, or with `clean`."""
    cache, parts = KVCache(causal=causal), []
    text = TEXT.to(x)
    for start, end in causal.blocks(x.shape[2]):
        block = x[:, :, start:end]
        parts.append(block_velocity(model, block, sigma, text, cache))
        kept = (block, sigma) if clean is None else (clean[:, :, start:end], 0.0)
        _, cache = extend(model, kept[0], text, cache, sigma=kept[1])
    return torch.cat(parts, dim=2)


KEPT = [
    Causal(first_block=1, block=1),
    Causal(first_block=1, block=3),
    Causal(first_block=3, block=2),
    Causal(first_block=1, block=3, window=7),
    Causal(first_block=1, block=3, sink=1, window=6),
    Causal(first_block=1, block=1, sink=2, window=5),
]
"""Nothing is evicted within the clip."""
EVICTED = [
    Causal(first_block=1, block=1, window=1),
    Causal(first_block=1, block=3, window=4),
    Causal(first_block=1, block=3, sink=1, window=3),
    Causal(first_block=1, block=1, sink=1, window=2),
    Causal(first_block=3, block=2, sink=2, window=3),
    Causal(first_block=1, block=2, sink=3, window=2),
]


# ---- compiled ----


def test_compiled_blocks_are_compiled_once_for_all_layers_and_windows() -> None:
    """By a backend that only counts: what it is given does not grow with layers and blocks."""
    causal = Causal(first_block=1, block=2, sink=1, window=3)

    def rollout(model: Any, blocks: int) -> torch.Tensor:
        made = block_rollout(
            model,
            Prompt.of(model, TEXT[:1]),
            shape=SHAPE,
            causal=causal,
            schedule=SCHEDULE,
            noise=seeded_noise([0], dtype=torch.float64),
            blocks=blocks,
        )
        return torch.cat([block.latents_BCTHW for block in made], dim=2)

    def graphs(layers: int, blocks: int) -> int:
        torch._dynamo.reset()
        model, seen = _model(layers=layers), []

        def counting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
            seen.append(graph)
            return graph.forward

        whole = rollout(model, blocks)
        model.compile_repeated_blocks(backend=counting, dynamic=True)
        compiled = rollout(model, blocks)
        torch.testing.assert_close(compiled, whole, rtol=EXACT, atol=EXACT)
        return len(seen)

    few = graphs(layers=2, blocks=2)
    assert 0 < few == graphs(layers=9, blocks=6)


# ---- which frames are seen ----


def test_a_block_sees_the_sink_and_the_window() -> None:
    causal = Causal(first_block=1, block=3, sink=1, window=4)
    assert causal.blocks(7) == ((0, 1), (1, 4), (4, 7))
    assert causal.seen(0, 1) == (0,)
    assert causal.seen(1, 4) == (0, 1, 2, 3)
    assert causal.seen(4, 7) == (0, 3, 4, 5, 6)  # four in the window, the sink besides
    assert Causal(block=3).seen(4, 7) == (0, 1, 2, 3, 4, 5, 6)
    assert Causal(first_block=2, block=2, sink=3, window=2).seen(2, 4) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"block": 0}, "not possible"),
        ({"sink": -1}, "not possible"),
        ({"block": 3, "window": 2}, "window of 2 frames does not hold a block of 3"),
    ],
)
def test_impossible_forms_are_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Causal(**wrong)


def test_a_clip_ends_with_a_block() -> None:
    with pytest.raises(UserError, match=r"6 latent frames do not end .* use 4 or 7"):
        Causal(first_block=1, block=3).blocks(6)


# ---- the same in every way of computing ----


@pytest.mark.parametrize("causal", KEPT, ids=str)
def test_cached_blocks_are_the_masked_clip(model: Any, causal: Causal) -> None:
    cached = _cached(model, X, causal, 0.7)
    with torch.no_grad():
        for attention in ("mask", "blocks"):
            whole = clip_velocity(model, X, 0.7, TEXT, causal, attention=attention)  # type: ignore[arg-type]
            assert (cached - whole).abs().max() <= EXACT
        assert (cached - velocity(model, X, 0.7, TEXT)).abs().max() > 1e-3  # the mask matters


@pytest.mark.parametrize("causal", [KEPT[1], KEPT[4]], ids=str)
def test_in_single_precision_too(causal: Causal) -> None:
    single = _model(torch.float32)
    x = X.float()
    cached = _cached(single, x, causal, 0.7)
    with torch.no_grad():
        whole = clip_velocity(single, x, 0.7, TEXT.float(), causal, attention="mask")
    assert (cached - whole).abs().max() <= SINGLE


@pytest.mark.parametrize("causal", [*KEPT[1::3], *EVICTED], ids=str)
def test_teacher_forcing_is_a_rollout_whose_cache_is_clean(model: Any, causal: Causal) -> None:
    clean = _draw(*X.shape, seed=5)
    cached = _cached(model, X, causal, 0.7, clean)
    with torch.no_grad():
        forced = clip_velocity(model, X, 0.7, TEXT, causal, clean_BCTHW=clean)
    assert (cached - forced).abs().max() <= EXACT
    if causal in KEPT:
        with torch.no_grad():
            masked = clip_velocity(model, X, 0.7, TEXT, causal, clean_BCTHW=clean, attention="mask")
        assert (cached - masked).abs().max() <= EXACT


@pytest.mark.parametrize("causal", EVICTED, ids=str)
def test_after_an_eviction_positions_are_relative(model: Any, causal: Causal) -> None:
    cached = _cached(model, X, causal, 0.7)
    reference = _reference(model, X, causal, 0.7)
    assert (cached - reference).abs().max() <= EXACT
    with torch.no_grad():
        whole = clip_velocity(model, X, 0.7, TEXT, causal)
        masked = clip_velocity(model, X, 0.7, TEXT, causal, attention="mask")
    assert (cached - whole).abs().max() <= EXACT
    if causal.sink == 0:  # all that is seen moves together
        assert (cached - masked).abs().max() <= TABLES
    else:
        assert (cached - masked).abs().max() > 1e-4


def test_levels_may_differ_by_block(model: Any) -> None:
    causal = KEPT[1]
    levels = torch.tensor([0.2, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9], dtype=torch.float64)
    cache, parts = KVCache(causal=causal), []
    with torch.no_grad():
        for start, end in causal.blocks(FRAMES):
            part, cache = extend(model, X[:, :, start:end], TEXT, cache, sigma=float(levels[start]))
            parts.append(part)
        whole = clip_velocity(model, X, levels.expand(2, -1), TEXT, causal)
    assert (torch.cat(parts, dim=2) - whole).abs().max() <= EXACT


def test_what_a_block_gives_does_not_depend_on_where_the_clip_is(model: Any) -> None:
    causal = Causal(first_block=1, block=2, sink=1, window=4)
    cache = KVCache(causal=causal)
    with torch.no_grad():
        for start, end in causal.blocks(FRAMES):
            _, cache = extend(model, X[:, :, start:end], TEXT, cache)
        far = KVCache(
            causal=causal, frames=cache.frames + 10**7, tokens=cache.tokens, layers=cache.layers
        )
        near_v, near = extend(model, X[:, :, :2], TEXT, cache)
        far_v, far = extend(model, X[:, :, :2], TEXT, far)
    assert torch.equal(near_v, far_v)
    assert far.frames == near.frames + 10**7
    for one, other in zip(near.layers, far.layers, strict=True):
        assert torch.equal(one[0].values_BSND, other[0].values_BSND)


def test_a_causal_model_is_still_the_stock_model(model: Any) -> None:
    stock = _model()
    before = velocity(stock, X, 0.7, TEXT)
    names = list(stock.state_dict())
    passes = make_causal(stock)
    assert make_causal(stock) is passes
    assert torch.equal(velocity(stock, X, 0.7, TEXT), before)
    assert list(stock.state_dict()) == names
    other = copy.deepcopy(stock)
    assert make_causal(other) is not passes
    with torch.no_grad():
        a, b = (clip_velocity(one, X, 0.7, TEXT, KEPT[1]) for one in (stock, other))
    assert torch.equal(a, b)


def test_fused_projections_give_the_same() -> None:
    fused = _model()
    plain = _cached(fused, X, KEPT[1], 0.7)
    fused.fuse_qkv_projections()
    assert fused.blocks[0].attn1.fused_projections
    assert (_cached(fused, X, KEPT[1], 0.7) - plain).abs().max() <= EXACT


def test_a_prompt_is_projected_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Prompt.of(model, TEXT)
    cache = KVCache(causal=KEPT[1])
    with torch.no_grad():
        plain, _ = extend(model, X[:, :, :1], TEXT, cache)
    calls: list[int] = []
    for block in model.blocks:
        forward = block.attn2.to_k.forward
        monkeypatch.setattr(
            block.attn2.to_k, "forward", lambda x, f=forward: (calls.append(1), f(x))[1]
        )
    with torch.no_grad():
        saved, _ = extend(model, X[:, :, :1], prompt, cache)
    assert not calls
    assert torch.equal(saved, plain)
    block_velocity(model, X[:, :, :1], 0.7, prompt, cache)  # with gradients: by the weights
    assert len(calls) == len(model.blocks)


# ---- gradients ----


def _loss(model: Any, *, keep_graph: bool) -> torch.Tensor:
    """Of two blocks, the second on the first's cache; the graph holds both passes."""
    causal, total = Causal(first_block=1, block=2, sink=1, window=3), torch.zeros(())
    cache = KVCache(causal=causal)
    for start, end in causal.blocks(5):
        predicted, cache = extend(
            model, X[:, :, start:end], TEXT, cache, sigma=0.5, keep_graph=keep_graph
        )
        total = total + (predicted * _draw(*predicted.shape, seed=start)).sum()
    return total


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("keep_graph", [False, True])
def test_checkpointing_changes_no_gradient(keep_graph: bool) -> None:
    plain, checkpointed = _model(), _model()
    checkpointed.enable_gradient_checkpointing()
    checkpointed.train()  # no dropout: the two compute alike
    _loss(plain, keep_graph=keep_graph).backward()
    _loss(checkpointed, keep_graph=keep_graph).backward()
    one, other = _gradients(plain), _gradients(checkpointed)
    assert max(grad.abs().max() for grad in one.values()) > 0.1
    for name in one:
        assert (one[name] - other[name]).abs().max() <= EXACT * max(1, one[name].abs().max())


def test_gradients_pass_through_a_cache_only_when_asked(model: Any) -> None:
    causal = KEPT[1]
    for keep_graph in (False, True):
        first = X[:, :, :1].clone().requires_grad_()
        _, cache = extend(model, first, TEXT, KVCache(causal=causal), keep_graph=keep_graph)
        for keys, values in cache.layers:
            assert keys.values_BSND.requires_grad == values.values_BSND.requires_grad == keep_graph
        block = X[:, :, 1:4].clone().requires_grad_()
        total = block_velocity(model, block, 0.5, TEXT, cache).sum()
        grads = torch.autograd.grad(total, [block, first], allow_unused=True)
        assert grads[0].abs().max() > 0
        assert (grads[1] is not None) == keep_graph


def test_the_gradient_through_a_cache_is_that_of_finite_differences(model: Any) -> None:
    causal = Causal(first_block=1, block=2, sink=1, window=3)

    def total(first: torch.Tensor) -> torch.Tensor:
        _, cache = extend(model, first, TEXT, KVCache(causal=causal), keep_graph=True)
        _, cache = extend(model, X[:, :, 1:3], TEXT, cache, keep_graph=True)
        return block_velocity(model, X[:, :, 3:5], 0.5, TEXT, cache).square().sum()

    first = X[:, :, :1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(first), [first])
    steepness = gradient.norm()
    step = 1e-2 * gradient / steepness  # not smaller: diffusers adds its residuals in float32
    with torch.no_grad():
        slope = (total(first + step) - total(first - step)) / 2e-2
    assert float(slope) == pytest.approx(float(steepness), rel=1e-2)


# ---- rollouts ----


def _rollout(model: Any, causal: Causal, **settings: Any) -> Iterator[Block]:
    noise = settings.pop("noise", None) or seeded_noise([3, 4], dtype=torch.float64)
    return block_rollout(
        model,
        settings.pop("text", TEXT),
        shape=SHAPE,
        causal=causal,
        schedule=SCHEDULE,
        noise=noise,
        **settings,
    )


def _joined(blocks: Iterator[Block] | list[Block]) -> torch.Tensor:
    return torch.cat([block.latents_BCTHW for block in blocks], dim=2)


@pytest.mark.parametrize("causal", [KEPT[0], KEPT[1], KEPT[4], EVICTED[2], EVICTED[4]], ids=str)
def test_a_rollout_is_consistency_sampling_of_the_whole_clip(model: Any, causal: Causal) -> None:
    spans = causal.blocks(FRAMES)
    rolled = _joined(_rollout(model, causal, blocks=len(spans)))
    noise = seeded_noise([3, 4], dtype=torch.float64)

    def drawn(index: int, step: int) -> torch.Tensor:
        start, end = spans[index]
        return noise(index, step, (2, 4, end - start, 4, 4))

    # Each block sees finished ones only, so one pass over the clip a step and block does it.
    made = torch.zeros_like(rolled)
    with torch.no_grad():
        for index, (start, end) in enumerate(spans):
            x = made.clone()
            x[:, :, start:end] = drawn(index, 0)
            for step, (sigma, timestep) in enumerate(
                zip(SCHEDULE.sigmas, SCHEDULE.timesteps, strict=False)
            ):
                predicted = clip_velocity(
                    model,
                    x,
                    sigma,
                    TEXT,
                    causal,
                    clean_BCTHW=made,
                    timestep=torch.tensor(timestep, dtype=torch.float64),
                )
                estimate = (x - sigma * predicted)[:, :, start:end]
                if step + 1 < SCHEDULE.steps:
                    following = SCHEDULE.sigmas[step + 1]
                    x[:, :, start:end] = (1 - following) * estimate + following * drawn(
                        index, step + 1
                    )
            made[:, :, start:end] = estimate
    assert (rolled - made).abs().max() <= EXACT


@pytest.mark.parametrize("causal", [KEPT[1], KEPT[4], EVICTED[2], EVICTED[4]], ids=str)
def test_blocks_may_be_seen_as_they_went_into_their_last_step(model: Any, causal: Causal) -> None:
    causal = replace(causal, past="last_step")
    spans = causal.blocks(FRAMES)
    asked: list[float] = []
    watch = model.condition_embedder.register_forward_hook(
        lambda module, inputs, output: asked.append(float(inputs[0][0]))
    )
    rolled = _joined(_rollout(model, causal, blocks=len(spans)))
    watch.remove()
    assert asked == [*SCHEDULE.timesteps] * len(spans)  # none to write the cache
    noise = seeded_noise([3, 4], dtype=torch.float64)

    # One pass over the whole clip in which every block has a level of its own.
    made, x = torch.zeros_like(rolled), torch.zeros_like(rolled)
    sigma, timestep = (torch.zeros(2, FRAMES, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        for index, (start, end) in enumerate(spans):
            for step in range(SCHEDULE.steps):
                fresh = noise(index, step, (2, 4, end - start, 4, 4))
                level = SCHEDULE.sigmas[step]
                before = made[:, :, start:end] if step else fresh
                x[:, :, start:end] = (1 - level) * before + level * fresh if step else fresh
                sigma[:, start:end], timestep[:, start:end] = level, SCHEDULE.timesteps[step]
                predicted = clip_velocity(model, x, sigma, TEXT, causal, timestep=timestep)
                made[:, :, start:end] = (x - level * predicted)[:, :, start:end]
    assert (rolled - made).abs().max() <= EXACT


def test_what_had_no_last_step_is_noised_to_its_level(model: Any) -> None:
    """An image in place of the first block, training that left before, and a cache for another
    text."""
    causal = Causal(first_block=1, block=2, sink=1, window=4, past="last_step")
    noise = seeded_noise([3, 4], dtype=torch.float64)
    level, timestep = SCHEDULE.sigmas[-2], SCHEDULE.timesteps[-1]

    def written(latents: torch.Tensor, drawn: torch.Tensor, before: KVCache) -> KVCache:
        x = (1 - level) * latents + level * drawn
        with torch.no_grad():
            return extend(model, x, TEXT, before, sigma=level, timestep=timestep)[1]

    given = _draw(1, 4, 1, 4, 4, seed=8)
    (first,) = _rollout(model, causal, blocks=1, first_BCTHW=given)
    assert torch.equal(first.latents_BCTHW, given.expand(2, -1, -1, -1, -1))
    expected = written(first.latents_BCTHW, noise(0, 2, (2, 4, 1, 4, 4)), KVCache(causal=causal))
    assert _same(first.cache, expected)
    (early,) = _rollout(model, causal, blocks=1, exit_step=1, cache=expected)
    again = written(early.latents_BCTHW, noise(1, 2, (2, 4, 2, 4, 4)), expected)
    assert _same(early.cache, again)

    held = torch.cat([first.latents_BCTHW, early.latents_BCTHW], dim=2)
    new = rewritten(model, held, TEXT, again, schedule=SCHEDULE, noise=noise)
    x = (1 - level) * held + level * noise(2, 3, (2, 4, 3, 4, 4))
    with torch.no_grad():
        expected = recached(model, x, TEXT, again, sigma=level, timestep=timestep)
    assert _same(new, expected)
    assert not _same(new, again)


def test_a_block_that_trains_at_its_last_step_leaves_a_past_without_a_graph() -> None:
    model = _model()
    causal = Causal(first_block=1, block=1, sink=1, window=2, past="last_step")
    blocks = list(_rollout(model, causal, blocks=3, train=True))
    assert all(block.latents_BCTHW.requires_grad for block in blocks)
    for block in blocks:
        assert not any(
            kept.values_BSND.requires_grad for pair in block.cache.layers for kept in pair
        )
    plain = _joined(_rollout(model, causal, blocks=3))
    assert torch.equal(_joined(blocks), plain)
    model.enable_gradient_checkpointing()
    model.train()
    weight = model.blocks[0].attn1.to_k.weight
    (kept,) = torch.autograd.grad(_joined(blocks).sum(), [weight])
    checked = _joined(_rollout(model, causal, blocks=3, train=True))
    (again,) = torch.autograd.grad(checked.sum(), [weight])
    assert (kept - again).abs().max() <= EXACT * kept.abs().max()


def _same(one: KVCache, two: KVCache) -> bool:
    return one.frames == two.frames and all(
        bool((a.values_BSND - b.values_BSND).abs().max() <= EXACT)
        for first, second in zip(one.layers, two.layers, strict=True)
        for a, b in zip(first, second, strict=True)
    )


def test_a_rollout_goes_on_from_its_cache(model: Any) -> None:
    causal = Causal(first_block=1, block=2, sink=1, window=4)
    whole = list(_rollout(model, causal, blocks=5))
    assert [block.start for block in whole] == [0, 1, 3, 5, 7]
    half = list(_rollout(model, causal, blocks=2))
    state = {name: tensor.clone() for name, tensor in half[-1].cache.state().items()}
    again = KVCache(causal=causal).restored(state)
    rest = list(_rollout(model, causal, blocks=3, cache=again))
    assert [block.index for block in rest] == [2, 3, 4]
    assert torch.equal(_joined([*half, *rest]), _joined(whole))


def test_a_sample_is_the_same_alone_and_in_a_batch(model: Any) -> None:
    both = _joined(_rollout(model, KEPT[1], blocks=2))
    noise = seeded_noise([4], dtype=torch.float64)
    alone = _joined(_rollout(model, KEPT[1], blocks=2, noise=noise, text=TEXT[1:]))
    assert (both[1:] - alone).abs().max() <= EXACT
    assert (both[0] - both[1]).abs().max() > 0.1


@pytest.mark.parametrize(("store", "most"), [("int8", 1e-3), ("fp8", 5e-3)])
@pytest.mark.parametrize("causal", [KEPT[1], Causal(first_block=1, block=2, sink=1, window=4)])
def test_a_one_byte_cache_changes_little(
    causal: Causal, store: Literal["int8", "fp8"], most: float
) -> None:
    single = _model(torch.float32)
    settings = {"noise": seeded_noise([3, 4]), "text": TEXT.float(), "blocks": 5}
    exact = list(_rollout(single, causal, **settings))
    small = list(_rollout(single, causal, store=store, **settings))
    difference = _joined(small) - _joined(exact)
    assert 0 < difference.norm() <= most * _joined(exact).norm()
    # A byte a number and four a head and token of 12, against four a number.
    assert small[-1].cache.nbytes * 3 == exact[-1].cache.nbytes


def test_a_given_frame_is_the_first_block_and_is_seen(model: Any) -> None:
    given = _draw(1, 4, 1, 4, 4, seed=8)
    blocks = list(_rollout(model, KEPT[1], blocks=2, first_BCTHW=given))
    assert torch.equal(blocks[0].latents_BCTHW, given.expand(2, -1, -1, -1, -1))
    free = list(_rollout(model, KEPT[1], blocks=2))
    assert (blocks[1].latents_BCTHW - free[1].latents_BCTHW).abs().max() > 1e-3
    with pytest.raises(UserError, match="first block is 1 frame"):
        next(_rollout(model, KEPT[2], first_BCTHW=given))


def test_only_the_exit_step_of_each_block_has_a_gradient() -> None:
    model = _model()
    causal = Causal(first_block=1, block=1, sink=1, window=2)
    seen: list[tuple[bool, float]] = []
    model.condition_embedder.register_forward_hook(
        lambda module, inputs, output: seen.append((output[0].requires_grad, float(inputs[0][0])))
    )
    blocks = list(_rollout(model, causal, blocks=3, exit_step=1, train=True))
    steps = SCHEDULE.timesteps
    assert seen == [(False, steps[0]), (True, steps[1]), (False, 0.0)] * 3
    assert all(not block.cache.layers[0][0].values_BSND.requires_grad for block in blocks)
    trained = _joined(blocks)
    plain = _joined(_rollout(model, causal, blocks=3, exit_step=1))
    assert torch.equal(trained, plain)
    assert not plain.requires_grad
    # The gradient of the third block alone is that of its last pass, on a constant cache.
    weight = model.blocks[0].attn1.to_k.weight
    noise = seeded_noise([3, 4], dtype=torch.float64)
    (whole,) = torch.autograd.grad(blocks[2].latents_BCTHW.sum(), [weight])
    with torch.no_grad():
        x = noise(2, 0, (2, 4, 1, 4, 4))
        x0 = x - block_velocity(model, x, SCHEDULE.sigmas[0], TEXT, blocks[1].cache)
        level = SCHEDULE.sigmas[1]
        x = (1 - level) * x0 + level * noise(2, 1, (2, 4, 1, 4, 4))
    last = x - level * block_velocity(model, x, level, TEXT, blocks[1].cache)
    (own,) = torch.autograd.grad(last.sum(), [weight])
    assert (whole - own).abs().max() <= EXACT * whole.abs().max()
    with pytest.raises(UserError, match="no step 3 in a schedule of 3"):
        next(_rollout(model, causal, exit_step=3))


def test_a_cache_is_computed_again_for_another_text(model: Any) -> None:
    causal = Causal(first_block=1, block=2, sink=1, window=4)
    other = _draw(2, 5, 8, seed=6)
    blocks = list(_rollout(model, causal, blocks=5))
    made = _joined(blocks)
    cache = blocks[-1].cache
    assert (cache.frames, cache.held) == (9, 3)
    held = made[:, :, [0, 7, 8]]
    with torch.no_grad():
        new = recached(model, held, other, cache)
        _, expected = extend(model, held[:, :, :1], other, KVCache(causal=causal))
        _, expected = extend(model, held[:, :, 1:], other, expected)
    assert (new.frames, new.held) == (9, 3)
    for one, two in zip(new.layers, expected.layers, strict=True):
        assert (one[1].values_BSND - two[1].values_BSND).abs().max() <= EXACT
    assert (new.layers[1][1].values_BSND - cache.layers[1][1].values_BSND).abs().max() > 1e-3
    with pytest.raises(UserError, match="holds 3 frames, 2 were given"):
        recached(model, held[:, :, :2], other, cache)


def test_wrong_sizes_and_too_wide_windows_are_refused(model: Any) -> None:
    cache = KVCache(causal=Causal(first_block=1, block=3))
    with torch.no_grad():
        _, cache = extend(model, X[:, :, :1], TEXT, cache)
        with pytest.raises(UserError, match="frames of 4 tokens, the block has 2"):
            extend(model, X[:, :, :3, :2], TEXT, cache)
        long = torch.zeros(1, 4, 1025, 4, 4, dtype=torch.float64)
        with pytest.raises(UserError, match="would see 1025 latent frames"):
            block_velocity(model, long, 0.5, TEXT[:1], KVCache(causal=Causal()))


def test_two_thousand_frames_in_constant_memory() -> None:
    small = _model(torch.float32, layers=2, head=96)
    causal = Causal(first_block=1, block=8, sink=1, window=16)
    text = Prompt.of(small, TEXT[:1].float())
    schedule = FlowSchedule.listed([1000], shift=1)
    shape = LatentShape(channels=4, frames=0, height=8, width=8)
    sizes, resident, frames = [], [], 0
    for block in block_rollout(
        small, text, shape=shape, causal=causal, schedule=schedule, noise=seeded_noise([0])
    ):
        frames += block.latents_BCTHW.shape[2]
        sizes.append(block.cache.nbytes)
        resident.append(_resident_bytes())
        if frames > 2000:
            break
    assert block.cache.frames == frames == 2001
    assert bool(block.latents_BCTHW.isfinite().all())
    assert len(set(sizes[2:])) == 1
    a_frame = sizes[-1] // block.cache.held
    assert block.cache.held == causal.sink + causal.window - causal.block
    # Keys and values of every frame would be 98 MB.
    assert a_frame * frames > 90e6
    assert resident[-1] - resident[20] < 0.3 * a_frame * frames


# ---- references ----


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class _History:
    """Self-attention that keeps every frame for ever and picks what is seen by its number."""

    _attention_backend = None

    def __init__(self, rope: Any, causal: Causal) -> None:
        self.rope, self.causal = rope, causal
        self.past: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, attn: Any, x: torch.Tensor, *_: Any) -> torch.Tensor:
        tokens = 4
        q, k, v = attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(x)), attn.to_v(x)
        q, k, v = (part.unflatten(2, (attn.heads, -1)) for part in (q, k, v))
        start, count = len(self.past), x.shape[1] // tokens
        end = start + count
        for frame in range(count):
            own = slice(frame * tokens, (frame + 1) * tokens)
            self.past.append((k[:, own], v[:, own]))
        window, sink = self.causal.window, self.causal.sink
        assert window is not None
        seen = [frame for frame in range(end) if frame < sink or frame >= end - window]
        keys = torch.cat(
            [self._turn(self.past[frame][0], place) for place, frame in enumerate(seen)], dim=1
        )
        values = torch.cat([self.past[frame][1] for frame in seen], dim=1)
        queries = torch.cat(
            [
                self._turn(q[:, i * tokens : (i + 1) * tokens], len(seen) - count + i)
                for i in range(count)
            ],
            dim=1,
        )
        scores = torch.einsum("bsnd,btnd->bnst", queries, keys) / math.sqrt(q.shape[-1])
        out = torch.einsum("bnst,btnd->bsnd", scores.softmax(-1), values).flatten(2)
        return attn.to_out[0](out)

    def _turn(self, x: torch.Tensor, time: int) -> torch.Tensor:
        """Pairs as complex numbers, turned by the angles of (time, row, column)."""
        rope = self.rope
        cut = [rope.t_dim, rope.h_dim, rope.w_dim]
        cos, sin = rope.freqs_cos.split(cut, 1), rope.freqs_sin.split(cut, 1)
        turns = []
        for row in range(2):
            for column in range(2):
                at = zip((time, row, column), cos, sin, strict=True)
                turns.append(torch.cat([torch.complex(c[i], s[i])[::2] for i, c, s in at]))
        turn = torch.stack(turns).to(torch.complex128)[None, :, None]
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(
            -2
        )


@torch.no_grad()
def _reference(model: Any, x: torch.Tensor, causal: Causal, sigma: float) -> torch.Tensor:
    plain = _model()
    plain.load_state_dict(model.state_dict())
    for block in plain.blocks:
        block.attn1.set_processor(_History(plain.rope, causal))
    parts = [
        velocity(plain, x[:, :, start:end], sigma, TEXT) for start, end in causal.blocks(x.shape[2])
    ]
    return torch.cat(parts, dim=2)
