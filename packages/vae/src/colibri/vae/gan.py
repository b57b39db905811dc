"""A small discriminator of 3D patches, and the two halves of its hinge loss.

The form is the usual one (Isola et al. 2017, arXiv 1611.07004, section 3.2.2; hinge: Lim and Ye
2017, arXiv 1705.02894), in three dimensions. Norms are per clip, so that it does not matter how
clips are batched.
"""

# B batch  C channels  F frames  H rows  W columns

from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

WIDTHS = (24, 48, 96)
"""Channels; every layer halves rows and columns, all but the first halve time as well."""


class PatchJudge(nn.Module):
    """Video (B, 3, F, H, W) in [-1, 1] to logits (B, 1, f, h, w), one for each patch of it;
    positive: taken for a clip. Rows and columns have to be at least 8."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(zip((3, *widths), widths, strict=False)):
            stride = (1 if index == 0 else 2, 2, 2)
            layers.append(nn.Conv3d(inputs, outputs, (3, 4, 4), stride, padding=1))
            if index:
                layers.append(nn.GroupNorm(min(8, outputs), outputs))
            layers.append(nn.LeakyReLU(0.2))
        layers.append(nn.Conv3d(widths[-1], 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, video: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(video)
        return logits


def judge_loss(of_clips: Tensor, of_decoded: Tensor) -> Tensor:
    """What the judge minimises: clips above 1, decoded videos below -1."""
    return functional.relu(1 - of_clips).mean() + functional.relu(1 + of_decoded).mean()


def decoder_loss(judge: nn.Module, video: Tensor) -> Tensor:
    """What the decoder minimises; no gradient reaches the judge's weights."""
    frozen = {name: value.detach() for name, value in judge.named_parameters()}
    logits: Tensor = functional_call(judge, frozen, (video,))
    return -logits.mean()
