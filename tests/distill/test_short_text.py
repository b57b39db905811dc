"""A prompt's padding as one weighted token: the same result, the same gradients."""

import copy

import pytest
import torch
from colibri.core import wan
from colibri.core.wan.transformer import velocity
from colibri.distill.roles import Separate
from colibri.distill.short_text import ShortText, shorten
from distill_toys import batch, play
from torch import Tensor


def _padded(*lengths: int, total: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    text = torch.zeros(len(lengths), total, 64, dtype=torch.float64)
    for row, length in zip(text, lengths, strict=True):
        row[:length] = torch.randn(length, 64, generator=generator, dtype=torch.float64)
    return text


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("lengths", [(3, 17), (0, 5), (40, 2), (39, 39)])
def test_attention_is_the_same_with_its_gradients(
    lengths: tuple[int, int], model: wan.WanModel
) -> None:
    text = _padded(*lengths)
    x = play(None, batch(2)).noise("x")
    found = []
    for short in (False, True):
        network = copy.deepcopy(model.transformer).double().requires_grad_(True)
        asked = ShortText(network) if short else None
        if asked:
            with asked.of(text) as words:
                out = velocity(network, x, 0.6, words)
        else:
            out = velocity(network, x, 0.6, text)
        out.square().mean().backward()
        found.append((out.detach(), [w.grad for w in network.parameters() if w.grad is not None]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-9, atol=1e-11)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(two, one, rtol=1e-8, atol=1e-12)


def test_few_tokens_are_left() -> None:
    short, bias = shorten(_padded(3, 17))
    assert short.shape[1] == 18
    assert bias[0, 0, 0, :3].tolist() == [0, 0, 0]
    # 37 tokens of padding stand in 15 places, 23 in one
    assert bias[0, 0, 0, 3:].exp().tolist() == pytest.approx([37 / 15] * 15)
    assert bias[1, 0, 0, 17:].exp().tolist() == pytest.approx([23.0])


def test_outside_of_a_pass_the_network_is_as_it_was(model: wan.WanModel) -> None:
    roles = Separate.of(copy.deepcopy(model.transformer))
    text, x = _padded(4, 9).float(), play(None, batch(2)).noise("x").float()
    with torch.no_grad():
        before = velocity(roles.network("teacher"), x, 0.4, text)
        roles.shorten_text()
        short = roles.velocity("teacher", x, 0.4, text)
        assert torch.equal(velocity(roles.network("teacher"), x, 0.4, text), before)
    torch.testing.assert_close(short, before, rtol=1e-4, atol=1e-5)
