"""Shared base and separate copies, averages, merging."""

import copy
import sys

import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.distill.config import GuidanceConfig, TrainConfig
from colibri.distill.ema import Ema
from colibri.distill.objectives import Objective
from colibri.distill.roles import HEAD, TARGETS, Roles, Separate, Shared, merge, pull
from distill_toys import batch, bytes_of, play
from torch import Tensor

RANK = 3


@pytest.fixture
def shared(model: wan.WanModel) -> Shared:
    """Adapters that do something, in float64."""
    roles = Shared(
        copy.deepcopy(model.transformer), student_rank=RANK, critic_rank=RANK, precision="fp64"
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for net in ("student", "critic"):
            for weight in roles.trained(net).values():
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return roles


@pytest.fixture
def separate(model: wan.WanModel, shared: Shared) -> Separate:
    """The same three as whole networks."""
    networks = {role: copy.deepcopy(model.transformer).double() for role in ("student", "critic")}
    for net, network in networks.items():
        merge(network, shared.trained(net), rank=RANK)  # type: ignore[arg-type]
    teacher = copy.deepcopy(model.transformer).double()
    return Separate(**networks, teacher=teacher, precision="fp64")


def _ask(roles: Roles, role: str) -> Tensor:
    of = batch(2, given=(True, False))
    x = play(None, of).noise("x")
    with torch.no_grad():
        return roles.velocity(role, x, 0.7, of.text_BLD, clean_first=of.clean_first)  # type: ignore


def test_adapters_off_is_the_teacher_bit_for_bit(model: wan.WanModel, shared: Shared) -> None:
    before = _ask(Separate.of(model.transformer.double(), precision="fp64"), "teacher")
    model.transformer.float()
    assert torch.equal(_ask(shared, "teacher"), before)
    assert not torch.equal(_ask(shared, "student"), before)
    assert torch.equal(_ask(shared, "teacher"), before)


def test_new_adapters_change_nothing(model: wan.WanModel) -> None:
    roles = Shared(copy.deepcopy(model.transformer), student_rank=2, critic_rank=4)
    assert torch.equal(_ask(roles, "student"), _ask(roles, "teacher"))
    assert torch.equal(_ask(roles, "critic"), _ask(roles, "teacher"))


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("role", ["student", "critic", "teacher"])
def test_a_shared_base_gives_what_separate_copies_give(
    role: str, shared: Shared, separate: Separate
) -> None:
    torch.testing.assert_close(_ask(shared, role), _ask(separate, role), rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("net", ["student", "critic"])
def test_gradients_of_adapters_are_those_of_the_merged_weights(
    net: str, checkpointing: bool, shared: Shared, separate: Separate
) -> None:
    """dL/dA = B^T dL/dW; the other roles play in between, and blocks may be computed again."""
    objective = Objective(TrainConfig())
    for roles in (shared, separate):
        if checkpointing:
            for role in ("student", "critic"):
                roles.network(role).enable_gradient_checkpointing()
        round = play(roles, batch(2, given=(True, False)), net, guidance=GuidanceConfig())  # type: ignore[arg-type]
        loss, _ = objective.loss(round)
        with roles.playing(net):  # type: ignore[arg-type]
            loss.mean().backward()
    own = shared.trained(net)  # type: ignore[arg-type]
    whole = separate.trained(net)  # type: ignore[arg-type]
    compared = 0
    for name, down in own.items():
        if ".lora_A." not in name:
            continue
        up = own[name.replace(".lora_A.", ".lora_B.")]
        slope = whole[name.replace(".lora_A.", ".")].grad
        assert slope is not None
        assert down.grad is not None
        torch.testing.assert_close(down.grad, up.detach().T @ slope, rtol=1e-7, atol=1e-12)
        compared += 1
    assert compared == 2 * (4 * 2 + 2)  # blocks, each: two attentions of four, two in the ffn
    other = shared.trained("critic" if net == "student" else "student")
    assert all(weight.grad is None for weight in other.values())


def test_weights_that_sharding_replaces_after_a_head_was_added_are_trained(
    model: wan.WanModel,
) -> None:
    roles = Separate.of(copy.deepcopy(model.transformer))
    roles.add_head(layers=(0,), width=8, seed=0)
    critic = roles.network("critic")
    critic.proj_out.weight = torch.nn.Parameter(torch.ones_like(critic.proj_out.weight))
    trained = roles.trained("critic")
    own = dict(critic.named_parameters())
    assert {name for name in trained if not name.startswith(HEAD)} == own.keys()
    assert all(trained[name] is weight for name, weight in own.items())
    assert any(name.startswith(HEAD) for name in trained)


def test_the_base_gets_no_gradient(shared: Shared) -> None:
    trained = {id(w) for net in ("student", "critic") for w in shared.trained(net).values()}  # type: ignore
    rest = [w for w in shared.network("teacher").parameters() if id(w) not in trained]
    assert rest
    assert not any(weight.requires_grad for weight in rest)


def test_memory_is_that_of_one_base_and_two_adapters(
    model: wan.WanModel, shared: Shared, separate: Separate
) -> None:
    weights = sum(p.numel() for p in model.transformer.parameters())
    buffers = sum(b.untyped_storage().nbytes() for b in model.transformer.buffers())
    linear = [
        module
        for name, module in model.transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
        and name.startswith("blocks")
        and name.endswith(TARGETS)
    ]
    adapter = RANK * sum(module.in_features + module.out_features for module in linear)
    assert adapter == sum(weight.numel() for weight in shared.trained("student").values())
    slack = 2 * buffers + 4096
    assert abs(bytes_of(shared) - 8 * (weights + 2 * adapter)) <= slack
    assert abs(bytes_of(separate) - 3 * 8 * weights) <= 3 * slack


def test_bf16_keeps_trained_weights_in_float32(model: wan.WanModel) -> None:
    roles = Shared(
        copy.deepcopy(model.transformer), student_rank=2, critic_rank=2, precision="bf16"
    )
    assert {weight.dtype for weight in roles.trained("student").values()} == {torch.float32}
    base = roles.network("teacher")
    assert base.blocks[0].attn1.to_q.base_layer.weight.dtype == torch.bfloat16
    assert base.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    of = batch(1)
    x = play(roles, of).noise("x").float()
    with torch.no_grad():
        found = roles.velocity("student", x, 0.5, of.text_BLD.float())
        exact = Separate.of(model.transformer).velocity("student", x, 0.5, of.text_BLD.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0.05)


def test_a_base_in_eight_bits_is_near_and_adapters_learn_on_it(model: wan.WanModel) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    roles = Shared(copy.deepcopy(model.transformer), student_rank=2, critic_rank=2)
    exact = _ask32(roles, "teacher")
    whole = bytes_of(roles)
    roles.quantize_base()
    found = _ask32(roles, "teacher")
    error = (found - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < 0.05
    linear = sum(
        module.weight.numel()
        for name, module in roles.network("teacher").named_modules()
        if name.endswith("base_layer")
    )
    assert 0.9 * 3 * linear < whole - bytes_of(roles) < 3 * linear  # less a scale a row
    assert torch.equal(_ask32(roles, "student"), found)
    out = roles.velocity("student", torch.randn(batch(2).size), 0.5, batch(2).text_BLD.float())
    out.square().mean().backward()
    trained = roles.trained("student")
    assert all(w.grad is not None for name, w in trained.items() if ".lora_B." in name)


def _ask32(roles: Roles, role: str) -> Tensor:
    of = batch(2)
    x = play(None, of).noise("x").float()
    with torch.no_grad():
        return roles.velocity(role, x, 0.7, of.text_BLD.float())  # type: ignore[arg-type]


def test_eight_bits_without_torchao_are_refused(
    model: wan.WanModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torchao", "torchao.quantization"):
        monkeypatch.setitem(sys.modules, name, None)
    roles = Shared(copy.deepcopy(model.transformer), student_rank=2, critic_rank=2)
    with pytest.raises(UserError, match=r"needs torchao.*pip install torchao"):
        roles.quantize_base()
    with pytest.raises(UserError, match="--mode lora"):
        Separate.of(copy.deepcopy(model.transformer)).quantize_base()


def test_the_average_starts_late_and_follows_its_formula() -> None:
    weight = {"w": torch.tensor([0.0], dtype=torch.float64)}
    ema = Ema(weight, decay=0.9, start=2)
    for update, value in enumerate((1.0, 2.0, 3.0, 4.0), start=1):
        ema.update({"w": torch.tensor([value], dtype=torch.float64)}, updates=update)
        if update == 2:
            assert ema.weights["w"].item() == 2
    assert ema.weights["w"].item() == pytest.approx(0.9 * (0.9 * 2 + 0.1 * 3) + 0.1 * 4)


def test_the_critic_is_pulled_towards_the_student(shared: Shared) -> None:
    before = {name: weight.clone() for name, weight in shared.trained("critic").items()}
    pull(shared.trained("critic"), shared.trained("student"), 0.75)
    for name, weight in shared.trained("critic").items():
        expected = 0.75 * before[name] + 0.25 * shared.trained("student")[name]
        torch.testing.assert_close(weight.data, expected.data)
