"""Few-bit linear layers: what a code may cost, and that codes survive."""

import math

import pytest
import torch
from colibri.infer.quantize import sqnr_db
from colibri.infer.quantized import (
    GROUP,
    SCHEMES,
    QuantizedLinear,
    Scheme,
    has_int_mm,
    int8_linear,
    pack,
    packed_like,
    unpack,
)

WEIGHT_SCHEMES: tuple[Scheme, ...] = ("int8", "fp8", "int4")


def uniform(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((rows, columns), generator=generator) * 2 - 1


def layer_of(weight: torch.Tensor, scheme: Scheme, bias: torch.Tensor) -> QuantizedLinear:
    rows, columns = weight.shape
    layer = QuantizedLinear(columns, rows, scheme, bias=True, dtype=torch.float32)
    for name, tensor in pack(weight, scheme).items():
        layer._buffers[name] = tensor
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer


@pytest.mark.parametrize("scheme", WEIGHT_SCHEMES)
@pytest.mark.parametrize("columns", [128, 100, 3])
def test_what_was_unpacked_packs_to_the_same_codes(scheme: Scheme, columns: int) -> None:
    weight = uniform(24, columns)
    first = unpack(pack(weight, scheme), scheme, columns)
    packed = pack(first, scheme)
    assert first.shape == weight.shape
    if scheme == "int4":  # its scale is rounded again
        assert sqnr_db(first, unpack(packed, scheme, columns)) > 40
    else:
        torch.testing.assert_close(unpack(packed, scheme, columns), first, rtol=1e-6, atol=0)


def test_values_on_the_grid_come_back_exactly() -> None:
    whole = torch.arange(-127, 128).float()[None]
    assert torch.equal(unpack(pack(whole, "int8"), "int8", 255), whole)
    floats = torch.tensor([[448.0, 1.125, -0.875, 2**-6, 0.0]])
    assert torch.equal(unpack(pack(floats, "fp8"), "fp8", 5), floats)
    nibbles = (torch.arange(GROUP) % 16).float()[None] - 8
    assert torch.equal(unpack(pack(nibbles, "int4"), "int4", GROUP), nibbles)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_no_weight_is_further_off_than_half_a_step(scheme: Scheme) -> None:
    weight = torch.randn((16, 192), generator=torch.Generator().manual_seed(1))
    packed = pack(weight, scheme)
    error = (unpack(packed, scheme, 192) - weight).abs()
    step = packed["scale"].float()
    if scheme == "int4":
        step = step.repeat_interleave(GROUP, dim=1)
    # bfloat16 holds the scale of int4 to one part in 512: at the end of 15 steps, 15 / 512 of one.
    slack = 0.5 + 2 * 15 / 512 if scheme == "int4" else 0.5 + 1e-4
    assert (error <= step * slack).all()


def test_the_loss_is_what_the_bits_say() -> None:
    weight = uniform(256, 512)
    found = {
        scheme: sqnr_db(weight, unpack(pack(weight, scheme), scheme, 512))
        for scheme in WEIGHT_SCHEMES
    }
    # Power of a uniform weight in [-1, 1] is 1 / 3, that of rounding step^2 / 12.
    assert found["int8"] == pytest.approx(10 * math.log10(4 * 127**2), abs=0.2)
    assert found["int4"] == pytest.approx(10 * math.log10(15**2), abs=0.5)
    # e4m3: the step is 1/8 of the octave. [0, 448] is all octaves to 256 and 3/4 of one above.
    octaves = [(2.0**k, 2.0 ** (k + 1), 2.0 ** (k - 3)) for k in range(-5, 8)] + [(256, 448, 32.0)]
    noise = sum((high - low) * step**2 / 12 for low, high, step in octaves)
    assert found["fp8"] == pytest.approx(10 * math.log10(448**3 / 3 / noise), abs=0.3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_packed_tensors_have_the_forms_that_loading_expects(scheme: Scheme) -> None:
    packed, empty = pack(uniform(8, 100), scheme), packed_like(8, 100, scheme)
    assert {name: (one.shape, one.dtype) for name, one in packed.items()} == {
        name: (one.shape, one.dtype) for name, one in empty.items()
    }
    bits = 8 * sum(one.nbytes for one in pack(uniform(64, 1024), scheme).values()) / (64 * 1024)
    assert bits == pytest.approx({"int4": 4.5}.get(scheme, 8 + 32 / 1024))


@pytest.mark.parametrize("scheme", WEIGHT_SCHEMES)
def test_the_layer_multiplies_by_what_it_holds(scheme: Scheme) -> None:
    weight, bias = uniform(16, 72), torch.arange(16.0)
    layer = layer_of(weight, scheme, bias)
    x = torch.randn((2, 5, 72), generator=torch.Generator().manual_seed(2))
    expected = torch.nn.functional.linear(x, layer.unpacked(), bias)
    assert torch.equal(layer(x), expected)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    assert (layer.weight.shape, layer.weight.dtype) == (weight.shape, torch.float32)


@pytest.mark.parametrize("tokens", [1, 17, 40])
def test_integer_products_are_those_of_the_same_numbers_as_floats(tokens: int) -> None:
    assert has_int_mm("cpu")
    packed = pack(uniform(32, 64), "int8-dynamic")
    x = uniform(tokens, 64, seed=3)[None]
    before, bias = x.clone(), torch.ones(32)
    integer, plain = (
        int8_linear(x, packed["codes"], packed["scale"], bias, integers=way)
        for way in (True, False)
    )
    torch.testing.assert_close(integer, plain, rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before)
    exact = torch.nn.functional.linear(x, unpack(packed, "int8-dynamic", 64), bias)
    # 64 products, each of an activation off by at most 1 / 254 of its row's largest.
    most = x.abs().amax() / 254 * unpack(packed, "int8", 64).abs().sum(dim=1).max()
    assert 0 < (integer - exact).abs().max() <= most


def test_many_rows_are_multiplied_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(uniform(16, 64), "int8-dynamic")
    x = uniform(50, 64, seed=4)
    whole = int8_linear(x, packed["codes"], packed["scale"], None)
    monkeypatch.setattr("colibri.infer.quantized.ROWS", 20)
    assert torch.equal(int8_linear(x, packed["codes"], packed["scale"], None), whole)


def test_rows_of_zeros_stay_zeros() -> None:
    for scheme in SCHEMES:
        assert torch.equal(unpack(pack(torch.zeros(4, 70), scheme), scheme, 70), torch.zeros(4, 70))
    packed = pack(uniform(8, 64), "int8-dynamic")
    assert not int8_linear(torch.zeros(3, 64), packed["codes"], packed["scale"], None).any()


def test_what_is_no_finite_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="infinities or NaN"):
        pack(torch.tensor([[1.0, math.nan]]), "int8")
    with pytest.raises(ValueError, match="not a matrix"):
        pack(torch.ones(2, 3, 4), "int4")
