"""Predicted memory and arithmetic against what is known, and against a real pass."""

from dataclasses import replace

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.wan.family import TINY_TI2V, WAN21_T2V_1_3B, WAN22_TI2V_5B, Causal
from colibri.core.wan.transformer import velocity
from colibri.distill.activations import kept_bytes
from colibri.distill.config import StudentConfig, TrainConfig
from colibri.distill.decoding import decoding_bytes
from colibri.distill.plan import (
    adapter_parameters,
    family_of,
    forward_flop,
    plan,
    refuse_what_cannot_fit,
    update_flop,
)
from colibri.distill.roles import Shared
from distill_toys import batch, bytes_of

FULL_SIZE = TrainConfig(
    teacher="wan2.2-ti2v-5b",
    size=(704, 1280),
    frames=121,
    batch=1,
    precision="bf16",
    checkpointing=True,
)


def test_arithmetic_of_the_5b_is_the_published_count() -> None:
    tokens = WAN22_TI2V_5B.tokens(WAN22_TI2V_5B.video)
    assert forward_flop(WAN22_TI2V_5B, tokens, 512) == pytest.approx(517e12, rel=0.01)
    tokens = WAN21_T2V_1_3B.tokens(WAN21_T2V_1_3B.video)
    assert forward_flop(WAN21_T2V_1_3B, tokens, 512) == pytest.approx(289e12, rel=0.03)


def test_one_card_holds_the_5b_with_adapters_and_not_three_of_it() -> None:
    lora = plan(replace(FULL_SIZE, mode="lora", batched_cfg=False), device="h200")
    assert lora.fits
    assert lora.parts_gb["shared base"] == pytest.approx(10.0, rel=0.01)
    state = sum(size for name, size in lora.parts_gb.items() if "activations" not in name)
    assert lora.total_gb < 80
    assert state < 30
    with pytest.raises(UserError, match=r"needs .* GB a process, a h200 has .*--mode lora"):
        refuse_what_cannot_fit(FULL_SIZE, device="h200", processes=1)


def test_validations_cost_memory_and_time() -> None:
    """Decoding a clip of the 5B takes 22.3 GB, of which the VAE's weights are 2.8."""
    assert decoding_bytes(
        WAN22_TI2V_5B, WAN22_TI2V_5B.latent_shape(WAN22_TI2V_5B.video)
    ) == pytest.approx(22.3e9, rel=0.01)
    small = replace(FULL_SIZE, mode="lora", batched_cfg=False, checkpointing=True)
    without, checked = (
        plan(replace(small, validate_every=every), device="h200") for every in (0, 200)
    )
    assert without.validation_seconds == without.reference_seconds == 0
    parts = ("gradients", "inputs of blocks", "activations")
    free = sum(without.parts_gb[name] for name in parts)
    more = checked.total_gb - without.total_gb
    assert more == pytest.approx(max(0, 22.3 - free), abs=0.1)
    # 4 rows, 2 seeds, from text and from an image; 3 steps, or 50 with guidance
    passes = 16 * 3 + 2 * 4**2, 16 * 50 * 2
    assert checked.reference_seconds / checked.validation_seconds == pytest.approx(
        passes[1] / passes[0]
    )
    assert f"{checked.validation_seconds:.3g} s" in checked.text()


def test_a_causal_student_needs_its_caches_and_a_pass_that_writes_them() -> None:
    """Wan2.1 1.3B: keys and values of 21 latent frames are 6.0 GB in bf16 (30 layers, 12 heads of
    128, 1,560 tokens a frame)."""
    clip = TrainConfig(
        teacher="wan2.1-t2v-1.3b",
        size=(480, 832),
        frames=81,
        batch=1,
        p_i2v=0.0,
        precision="bf16",
        checkpointing=True,
    )
    whole, blocks, short, stream = (
        plan(c, device="h200")
        for c in (
            clip,
            replace(clip, rollout="blocks", causal=Causal(first_block=3, block=3)),
            replace(clip, rollout="blocks", causal=Causal(first_block=3, block=3, window=6)),
            replace(clip, rollout="stream", causal=Causal(first_block=3, block=3, window=6)),
        )
    )
    assert "key caches" not in whole.parts_gb
    assert blocks.parts_gb["key caches"] == pytest.approx(6.0, rel=0.01)
    assert short.parts_gb["key caches"] == pytest.approx(6.0 * 6 / 21, rel=0.01)
    assert stream.parts_gb["key caches"] == pytest.approx(3 * 6.0 * 6 / 21, rel=0.01)
    tokens = WAN21_T2V_1_3B.tokens(WAN21_T2V_1_3B.video)
    writes, keeps = (
        update_flop(
            replace(clip, rollout="blocks", causal=Causal(first_block=3, block=3, past=past)),
            WAN21_T2V_1_3B,
            tokens,
            "critic",
        )
        for past in ("clean", "last_step")
    )
    # the exit is at the last of three steps once in three times
    spared = forward_flop(WAN21_T2V_1_3B, tokens, 512) / 3
    assert writes - keeps == pytest.approx(spared)
    assert blocks.pflop > whole.pflop > stream.pflop


def test_eight_bits_halve_the_base() -> None:
    lora = replace(FULL_SIZE, mode="lora")
    whole, small = (plan(c, device="h200") for c in (lora, replace(lora, quantize="int8")))
    assert small.parts_gb["shared base"] == pytest.approx(
        0.5 * whole.parts_gb["shared base"], rel=0.05
    )


def test_sharding_splits_a_base_and_not_its_adapters() -> None:
    lora = replace(FULL_SIZE, mode="lora", batched_cfg=False)
    whole = plan(lora, device="h200", processes=4)
    split = plan(replace(lora, shard=True), device="h200", processes=4)
    assert split.parts_gb["shared base"] == pytest.approx(whole.parts_gb["shared base"] / 4)
    assert split.parts_gb["student weights"] == whole.parts_gb["student weights"]


def test_processes_that_share_a_clip_have_a_part_of_its_activations_and_arithmetic() -> None:
    one, four = (
        plan(replace(FULL_SIZE, shard=True, context=context), device="h200", processes=16)
        for context in (1, 4)
    )
    assert four.parts_gb["activations"] == pytest.approx(one.parts_gb["activations"] / 4)
    assert four.parts_gb["student weights"] == one.parts_gb["student weights"]
    assert four.pflop == pytest.approx(one.pflop / 4)


def test_a_clip_that_cannot_be_shared_evenly_is_refused() -> None:
    for context, message in (
        (5, "does not divide the 24 attention heads of wan2.2-ti2v-5b"),
        (3, "does not divide the 27,280 tokens of a clip"),
        (4, "does not divide 6 processes"),
    ):
        with pytest.raises(UserError, match=f"--context {context} {message}"):
            plan(replace(FULL_SIZE, context=context), device="h200", processes=6)


def test_sharding_divides_what_is_held() -> None:
    whole = plan(FULL_SIZE, device="h200", processes=16)
    split = plan(replace(FULL_SIZE, shard=True), device="h200", processes=16)
    for part in ("teacher", "student weights", "critic optimiser", "gradients"):
        assert split.parts_gb[part] == pytest.approx(whole.parts_gb[part] / 16)
    assert split.fits


def test_weights_are_those_that_a_run_holds(model: wan.WanModel) -> None:
    import copy

    rank = 4
    roles = Shared(copy.deepcopy(model.transformer), student_rank=rank, critic_rank=rank)
    counted = adapter_parameters(model.family, rank)
    assert counted == sum(weight.numel() for weight in roles.trained("student").values())
    held = bytes_of(roles) - 8 * counted
    buffers = sum(b.untyped_storage().nbytes() for b in model.transformer.buffers())
    planned = wan.measure(model.family, dtype="float32")["transformer"].bytes
    assert held == pytest.approx(planned + buffers, rel=0.01)


@pytest.mark.parametrize("per_token", [False, True])
def test_what_autograd_keeps_is_counted_without_running(per_token: bool) -> None:
    """Against the storages of a real pass on the CPU."""
    of = batch(2)
    network = wan.build(TINY_TI2V, seed=0, parts=("transformer",)).transformer
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    held: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            alive.append(tensor)
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(of.size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        velocity(network, x, 0.5, of.text_BLD.float(), per_token=per_token)
    kept = kept_bytes(
        TINY_TI2V,
        of.shape,
        batch=2,
        text_tokens=of.text_BLD.shape[1],
        per_token=per_token,
        dtype=torch.float32,
    )
    layers = int(TINY_TI2V.transformer["num_layers"])
    assert kept.rest + layers * kept.block == pytest.approx(sum(held.values()), rel=0.05)


def test_unknown_devices_and_models_are_refused() -> None:
    with pytest.raises(UserError, match="no device 'abacus'"):
        plan(TrainConfig(teacher="tiny-ti2v"), device="abacus")
    with pytest.raises(UserError, match="no model folder"):
        family_of("nowhere")
    with pytest.raises(UserError, match=r"critic\.rank has to be at least 1"):
        plan(
            replace(
                FULL_SIZE,
                mode="lora",
                critic=replace(FULL_SIZE.critic, rank=0),
                student=StudentConfig(),
            ),
            device="h200",
        )
