"""Which device a run uses."""

import torch

from colibri.core.errors import UserError


def find_device(name: str, *, local_rank: int = 0) -> torch.device:
    """`auto`: the accelerator where there is one (CUDA and ROCm are both `cuda`), else the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank)
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{name!r} is no device", hint="auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine, or this torch, has no accelerator")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank)
    return device
