"""LPIPS (Zhang et al. 2018, arXiv 1801.03924) from its real weights, which the user provides.

Two files: torchvision's VGG16 or AlexNet (`features.N.weight`) and the linear heads of the `lpips`
package (`linN.model.1.weight`), as .pth or .safetensors. Nothing else may be called LPIPS.
"""

# B batch  C channels  F frames  H rows  W columns

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from colibri.core.errors import UserError

VGG = (64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 3, "end")
"""VGG16 up to its last ReLU: widths of 3x3 convolutions; taps before each pooling."""


class Lpips(nn.Module):
    """Distance of two videos, frame by frame; 0 is equal."""

    def __init__(self, net: str, backbone: Mapping[str, Tensor], heads: list[Tensor]) -> None:
        super().__init__()
        self.net = net
        self.layers, self.taps = _vgg() if net == "vgg" else _alex()
        wanted = self.layers.state_dict()
        try:
            self.layers.load_state_dict({key: backbone[f"features.{key}"] for key in wanted})
        except (KeyError, RuntimeError):
            raise UserError(f"the backbone weights are not torchvision's {net}") from None
        for index, head in enumerate(heads):
            self.register_buffer(f"head{index}", head)
        # shift and scale of ImageNet for pixels in [-1, 1]: richzhang/PerceptualSimilarity
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path) -> "Lpips":
        """From a folder with both files. UserError where one is missing or not what it should be.

        The linear heads were trained under the bound that none is negative; random ones are not.
        """
        backbone: dict[str, Tensor] | None = None
        heads: dict[str, Tensor] | None = None
        if not folder.is_dir():
            raise UserError(f"there is no folder {str(folder)!r} with LPIPS weights")
        for path in sorted([*folder.glob("*.pth"), *folder.glob("*.safetensors")]):
            weights = _read(path)
            if "lin0.model.1.weight" in weights:
                heads = weights
            elif "features.0.weight" in weights:
                backbone = weights
        if backbone is None or heads is None:
            missing = "backbone (features.0.weight)" if backbone is None else "heads (lin0.model.1)"
            raise UserError(
                f"{folder} lacks the LPIPS {missing}",
                hint="put torchvision's VGG16 or AlexNet and lpips's weights/v0.1 file there",
            )
        try:
            linear = [heads[f"lin{index}.model.1.weight"] for index in range(5)]
        except KeyError:
            raise UserError(f"{folder}: the LPIPS heads are incomplete") from None
        if any(bool((head < 0).any()) for head in linear):
            raise UserError(
                f"{folder}: the linear heads have negative weights, so they are not those of LPIPS"
            )
        return cls("vgg" if linear[1].shape[1] == 128 else "alex", backbone, linear)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Mean distance of videos (B, 3, F, H, W) in [-1, 1]; a scalar."""
        pairs = zip(self._features(one), self._features(other), strict=True)
        total = one.new_zeros(())
        for index, (left, right) in enumerate(pairs):
            weighted = functional.conv2d((left - right).square(), self.get_buffer(f"head{index}"))
            total = total + weighted.mean()
        return total

    def _features(self, video: Tensor) -> list[Tensor]:
        x = video.transpose(1, 2).flatten(0, 1)
        x = (x - self.get_buffer("shift")) / self.get_buffer("scale")
        found = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.taps:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def _vgg() -> tuple[nn.Sequential, set[int]]:
    layers: list[nn.Module] = []
    taps: set[int] = set()
    inputs = 3
    for part in VGG:
        if isinstance(part, int):
            layers += [nn.Conv2d(inputs, part, 3, padding=1), nn.ReLU()]
            inputs = part
        else:
            taps.add(len(layers) - 1)
            layers += [nn.MaxPool2d(2)] if part == "pool" else []
    return nn.Sequential(*layers), taps


def _alex() -> tuple[nn.Sequential, set[int]]:
    layers = [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]
    return nn.Sequential(*layers), {1, 4, 7, 9, 11}


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no narrower family for a damaged pickle
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    return weights if isinstance(weights, dict) else {}
