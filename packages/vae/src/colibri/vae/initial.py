"""A light decoder that begins with its teacher's channels instead of random weights.

Of every stage the channels that carry most weight are kept. Full convolutions are copied; a
separable one is the best product of depthwise and pointwise kernels for each input channel (its
first singular vectors); the step to a finer grid is the teacher's resampling for a picture that is
even around each point. What the light decoder lacks (attention, blocks that change the width) is
left out, so the result is a start and no decoder yet.
"""

# Weights of convolutions are (outputs, inputs, time, rows, columns).

from typing import Any

import torch
from torch import Tensor, nn

from colibri.vae.light import Block, Conv, LightDecoder, Separable, Stage


@torch.no_grad()
def from_teacher(decoder: LightDecoder, vae: Any) -> None:
    """Overwrite `decoder`'s weights with what fits of an `AutoencoderKLWan`'s decoder.

    Widths beyond the teacher's keep what they have. Stages whose grid differs from the teacher's
    keep their blocks: with a teacher without patches that is the last one.
    """
    theirs = vae.decoder
    blocks = [theirs.mid_block, *theirs.up_blocks]
    same_grid = _same_grids(decoder, blocks)
    kept: list[Tensor] = []
    for index, stage in enumerate(decoder.stages):
        before = decoder.stages[index - 1] if index else None
        if isinstance(before, Stage) and before.step is None:
            kept.append(kept[-1])  # the same stream goes on
        else:
            kept.append(_most_used(blocks[index])[: decoder.config.widths[index]].sort().values)
        if same_grid[index]:
            assert isinstance(stage, Stage)
            _copy_blocks(stage, blocks[index], kept[index])
    weight, bias = _latents_in(vae)
    _put(decoder.conv_in, weight[kept[0]], bias[kept[0]])
    for index, stage in enumerate(decoder.stages):
        if isinstance(stage, Stage) and stage.step is not None and index + 1 < len(blocks):
            _copy_step(stage, blocks[index], blocks[index + 1], kept[index], kept[index + 1])
    if same_grid[-1]:
        last = kept[-1]
        decoder.norm_out.gain[: len(last)] = theirs.norm_out.gamma.flatten()[last]
        _put(
            decoder.conv_out,
            _turned(theirs.conv_out.weight, decoder.config.patch)[:, last],
            _turned(theirs.conv_out.bias, decoder.config.patch),
        )


def _same_grids(decoder: LightDecoder, blocks: list[Any]) -> list[bool]:
    ours, teachers, same = (1, 1), (1, 1), []
    for factors, block in zip(decoder.config.upsample, blocks, strict=True):
        same.append(ours == teachers)
        ours = (ours[0] * factors[0], ours[1] * factors[1])
        upsampler = upsampler_of(block)
        if upsampler is not None:
            time = 2 if upsampler.mode == "upsample3d" else 1
            teachers = (teachers[0] * time, teachers[1] * 2)
    return same


def upsampler_of(block: Any) -> Any:
    """Of either form of block; None where the grid stays."""
    if getattr(block, "upsampler", None) is not None:
        return block.upsampler
    several = getattr(block, "upsamplers", None)
    return None if several is None else several[0]


def _residual(block: Any) -> list[Any]:
    """Its residual blocks of one width."""
    return [unit for unit in block.resnets if isinstance(unit.conv_shortcut, nn.Identity)]


def _most_used(block: Any) -> Tensor:
    """Channels of the block's stream, those with the largest weights around them first."""
    units = _residual(block)
    weight = sum(
        _power(unit.conv1.weight, 1) * unit.norm1.gamma.flatten().square()
        + _power(unit.conv2.weight, 0)
        for unit in units
    )
    if not units:
        weight = _power(block.resnets[-1].conv2.weight, 0)
    assert isinstance(weight, Tensor)
    return weight.argsort(descending=True, stable=True)


def _power(weight: Tensor, axis: int) -> Tensor:
    return weight.square().transpose(0, axis).flatten(1).sum(1)


def _copy_blocks(stage: Stage, block: Any, kept: Tensor) -> None:
    for ours, unit in zip(stage.blocks, _residual(block), strict=False):
        assert isinstance(ours, Block)
        used = _power(unit.conv2.weight, 1) * unit.norm2.gamma.flatten().square()
        used = used * _power(unit.conv1.weight, 0)
        inner = used.argsort(descending=True, stable=True)[: len(kept)].sort().values
        ours.norm1.gain[: len(kept)] = unit.norm1.gamma.flatten()[kept]
        ours.norm2.gain[: len(inner)] = unit.norm2.gamma.flatten()[inner]
        for conv, theirs, inputs, outputs in (
            (ours.conv1, unit.conv1, kept, inner),
            (ours.conv2, unit.conv2, inner, kept),
        ):
            weight, bias = theirs.weight[outputs][:, inputs], theirs.bias[outputs]
            if isinstance(conv, Separable):
                _put_separable(conv, weight, bias)
            else:
                assert isinstance(conv, Conv)
                _put(conv, weight, bias)


def _copy_step(stage: Stage, block: Any, after: Any, kept: Tensor, wanted: Tensor) -> None:
    """The 1x1x1 convolution whose outputs are shuffled onto the next grid."""
    time, space = stage.factors
    width = block.resnets[-1].conv2.weight.shape[0]
    upsampler = upsampler_of(block)
    maps = torch.eye(width, device=kept.device).expand(time, width, width)
    offsets = maps.new_zeros(time, width)
    if upsampler is not None:
        if time > 1:
            maps = upsampler.time_conv.weight.sum((2, 3, 4)).view(time, width, width)
            offsets = upsampler.time_conv.bias.view(time, width)
        spread = upsampler.resample[1].weight.sum((2, 3))
        maps = spread @ maps
        offsets = offsets @ spread.T + upsampler.resample[1].bias
    phases = maps[:, None, None].expand(-1, space, space, -1, -1).clone()
    shortcut = getattr(block, "avg_shortcut", None)
    narrows = not isinstance(block.resnets[0].conv_shortcut, nn.Identity)
    if shortcut is not None and not narrows:
        phases += _duplicates(shortcut, maps)
    first = after.resnets[0].conv_shortcut
    change = None if isinstance(first, nn.Identity) else first.weight[:, :, 0, 0, 0]
    if change is not None:
        phases = change @ phases
        offsets = offsets @ change.T + first.bias
    phases = phases[..., wanted, :][..., kept]  # (time, space, space, outputs, inputs)
    weight = phases.permute(3, 0, 1, 2, 4).flatten(0, 3)
    bias = offsets[:, None, None].expand(-1, space, space, -1)[..., wanted]
    assert isinstance(stage.step, nn.Conv3d)
    count = time * space**2
    assert stage.step.bias is not None
    stage.step.weight[: len(wanted) * count, : len(kept), 0, 0, 0] = weight
    stage.step.bias[: len(wanted) * count] = bias.permute(3, 0, 1, 2).flatten()


def _duplicates(shortcut: Any, like: Tensor) -> Tensor:
    """The teacher's shortcut around a block, which repeats channels over the finer grid, as
    matrices (time, space, space, outputs, inputs)."""
    time, space = shortcut.factor_t, shortcut.factor_s
    table = like.new_zeros(shortcut.out_channels, shortcut.factor, shortcut.in_channels)
    source = torch.arange(shortcut.out_channels * shortcut.factor) // shortcut.repeats
    table.view(-1, shortcut.in_channels)[torch.arange(len(source)), source] = 1
    return table.view(-1, time, space, space, shortcut.in_channels).permute(1, 2, 3, 0, 4)


def _latents_in(vae: Any) -> tuple[Tensor, Tensor]:
    """The teacher's first two convolutions as one; at the borders it differs."""
    first, then = vae.post_quant_conv, vae.decoder.conv_in
    weight = torch.einsum("octyx,ci->oityx", then.weight, first.weight[:, :, 0, 0, 0])
    return weight, then.bias + then.weight.sum((2, 3, 4)) @ first.bias


def _turned(outputs: Tensor, patch: int) -> Tensor:
    """Wan's patches count columns first, ours rows."""
    return outputs.unflatten(0, (-1, patch, patch)).transpose(1, 2).flatten(0, 2)


def _put(conv: Conv, weight: Tensor, bias: Tensor) -> None:
    weight = _in_time(weight, conv)
    assert conv.conv.bias is not None
    conv.conv.weight[: weight.shape[0], : weight.shape[1]] = weight
    conv.conv.bias[: len(bias)] = bias


def _put_separable(conv: Separable, weight: Tensor, bias: Tensor) -> None:
    weight = _in_time(weight, conv.depthwise)
    outputs, inputs = weight.shape[:2]
    left, size, right = torch.linalg.svd(weight.transpose(0, 1).flatten(2), full_matrices=False)
    root = size[:, 0].sqrt()[:, None]
    mix, kernel = left[:, :, 0] * root, right[:, 0] * root
    sign = torch.where(kernel.sum(1, keepdim=True) < 0, -1.0, 1.0)
    depthwise, pointwise = conv.depthwise.conv, conv.pointwise
    assert depthwise.bias is not None
    assert pointwise.bias is not None
    depthwise.weight[:inputs, 0] = (kernel * sign).unflatten(1, weight.shape[2:])
    depthwise.bias[:inputs] = 0
    pointwise.weight[:outputs, :inputs, 0, 0, 0] = (mix * sign).T
    pointwise.bias[:outputs] = bias


def _in_time(weight: Tensor, conv: Conv) -> Tensor:
    """A kernel on this frame and two before, for a convolution that sees others.

    One frame: the answer to a still picture. Both neighbours: the frame before stands for both.
    """
    if conv.conv.kernel_size[0] == 1:
        return weight.sum(2, keepdim=True)
    if not conv.after:
        return weight
    return torch.stack(
        [weight[:, :, 0] + weight[:, :, 1], weight[:, :, 2], torch.zeros_like(weight[:, :, 0])], 2
    )
