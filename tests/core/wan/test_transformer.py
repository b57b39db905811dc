"""What the transformer is told: timesteps, masks, dtypes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from colibri.core.wan import WanModel
from colibri.core.wan.transformer import frame_timesteps, keep_first, token_timesteps, velocity


class _Spy:
    """Stands for a transformer: remembers its arguments, answers with its input."""

    config = SimpleNamespace(patch_size=(1, 2, 2))

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def __call__(self, **heard: Any) -> tuple[torch.Tensor]:
        self.heard = heard
        return (heard["hidden_states"],)


X = torch.zeros(2, 4, 3, 4, 6)
TEXT = torch.zeros(2, 5, 8)


def test_a_clean_first_frame_is_timestep_zero_on_its_tokens_as_in_diffusers() -> None:
    spy = _Spy()
    velocity(spy, X, 0.9375, TEXT, clean_first=True)
    mask = torch.ones(1, 1, 3, 4, 6, dtype=torch.float64)
    mask[:, :, 0] = 0
    # diffusers pipelines/wan/pipeline_wan_i2v.py, the denoising loop
    theirs = (mask[0][0][:, ::2, ::2] * 937.5).flatten().unsqueeze(0).expand(2, -1)
    assert torch.equal(spy.heard["timestep"], theirs)
    assert (theirs == 0).sum() == 2 * 2 * 3


def test_samples_with_and_without_an_image_share_a_batch() -> None:
    timesteps = frame_timesteps(X, 0.5, torch.tensor([True, False]))
    assert timesteps.tolist() == [[0, 500, 500], [500, 500, 500]]


def test_noise_levels_may_differ_by_sample_and_by_frame() -> None:
    assert frame_timesteps(X, torch.tensor([0.25, 1.0])).tolist() == [250, 1000]
    levels = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], dtype=torch.float64)
    tokens = token_timesteps(frame_timesteps(X, levels), X, (1, 2, 2))
    assert tokens.shape == (2, 3 * 2 * 3)
    assert tokens[1].tolist() == pytest.approx([400.0] * 6 + [500.0] * 6 + [600.0] * 6)


def test_timesteps_reach_a_half_precision_model_in_float64() -> None:
    spy = _Spy(torch.bfloat16)
    answer = velocity(spy, X, 0.9375, TEXT)
    assert spy.heard["timestep"].dtype == torch.float64
    assert spy.heard["timestep"].tolist() == [937.5, 937.5]  # 936 in bfloat16
    assert spy.heard["hidden_states"].dtype == torch.bfloat16
    assert spy.heard["encoder_hidden_states"].dtype == torch.bfloat16
    assert answer.dtype == torch.float32


def test_a_rounded_timestep_goes_before_sigma() -> None:
    spy = _Spy()
    velocity(spy, X, 0.9375, TEXT, timestep=937.0)
    assert spy.heard["timestep"].tolist() == [937, 937]


def test_equal_timesteps_a_token_are_one_a_sample(ti2v: WanModel) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 16, 3, 4, 4, generator=generator)
    text = torch.randn(2, 7, 64, generator=generator)
    with torch.no_grad():
        one = velocity(ti2v.transformer, x, 0.7, text)
        many = velocity(ti2v.transformer, x, 0.7, text, per_token=True)
        clean = velocity(ti2v.transformer, x, 0.7, text, clean_first=True)
    assert (one - many).abs().max() <= 1e-5  # the order of float32 sums in the time embedding
    assert (one - clean).abs().max() > 1e-2


def test_a_double_model_sees_fractions_of_a_timestep(ti2v: WanModel) -> None:
    import copy

    model = copy.deepcopy(ti2v.transformer).double()
    x = torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    text = torch.zeros(1, 4, 64, dtype=torch.float64)
    with torch.no_grad():
        values = [velocity(model, x, sigma, text) for sigma in (0.8333, 0.8333 + 1e-6)]
    assert values[0].dtype == torch.float64
    assert not torch.equal(*values)


def test_gradients_flow_to_the_state(t2v: WanModel) -> None:
    x = torch.randn(1, 16, 1, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    velocity(t2v.transformer, x, 0.5, torch.zeros(1, 4, 64)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_the_given_frame_replaces_the_first() -> None:
    first = torch.ones(2, 4, 1, 4, 6)
    kept = keep_first(X, first)
    assert kept.shape == X.shape
    assert (kept[:, :, 0] == 1).all()
    assert (kept[:, :, 1:] == 0).all()
