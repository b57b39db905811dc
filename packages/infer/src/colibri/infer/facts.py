"""What a machine has, and what of it is slow or broken for Wan models, with the mend.

`facts_here` looks; `findings` judges, and needs nothing but the facts and the trials. What it says
of ROCm follows public reports and was not run on such a card.
"""

import contextlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colibri.infer.device_profile import Trial

PACKAGES = ("flash-attn", "triton", "aiter", "sageattention", "xformers", "torchao", "bitsandbytes")
VARIABLES = (
    "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL",
    "FLASH_ATTENTION_TRITON_AMD_ENABLE",
    "MIOPEN_FIND_MODE",
    "PYTORCH_MIOPEN_SUGGEST_NHWC",
    "HSA_OVERRIDE_GFX_VERSION",
    "PYTORCH_CUDA_ALLOC_CONF",
    "HF_HOME",
)
NAIVE = 20
"""A convolution so many times below the matrix product's rate is no proper kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Of a machine and its device."""

    device: str
    """Its name."""
    platform: Literal["cuda", "rocm", "mps", "cpu", "other"]
    arch: str
    """sm_90, gfx1201, x86_64."""
    memory_bytes: int
    """Of the device; of the host where that is the device."""
    free_bytes: int
    host_bytes: int
    """Free on the host."""
    torch: str
    runtime: str
    """CUDA or ROCm that PyTorch was built for; empty on a CPU."""
    driver: str
    """As the kernel tells it; empty where it does not."""
    bfloat16: bool
    packages: dict[str, Any]
    """Versions of what is installed of `PACKAGES`."""
    variables: dict[str, Any]
    """Values of what is set of `VARIABLES`."""
    wsl: bool
    unused_gpu: str
    """A GPU that the kernel knows and PyTorch cannot use, else empty."""
    weights_folder: str
    disk_bytes: int
    """Free where fetched weights go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, and its mend."""

    level: Literal["broken", "slow", "note"]
    found: str
    mend: str


def facts_here(device: str) -> Facts:
    """Look around for a torch device such as cpu or cuda:0."""
    import torch

    from colibri.infer.memory import available_host_bytes
    from colibri.infer.models import device_name

    host = available_host_bytes() or 0
    kind: Literal["cuda", "rocm", "mps", "cpu", "other"] = "other"
    arch, memory, free, bfloat16 = platform.machine(), host, host, True
    if device.startswith("cuda"):
        about: Any = torch.cuda.get_device_properties(device)
        kind = "rocm" if torch.version.hip else "cuda"
        major, minor = about.major, about.minor
        arch = about.gcnArchName.split(":")[0] if kind == "rocm" else f"sm_{major}{minor}"
        free, memory = torch.cuda.mem_get_info(device)
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.startswith("cpu"):
        kind = "cpu"
    elif device.startswith("mps"):
        kind = "mps"
    weights = weights_folder()
    return Facts(
        device=device_name(device),
        platform=kind,
        arch=arch,
        memory_bytes=memory,
        free_bytes=free,
        host_bytes=host,
        torch=torch.__version__,
        runtime=str(torch.version.hip or torch.version.cuda or ""),
        driver=_driver(),
        bfloat16=bfloat16,
        packages={name: found for name in PACKAGES if (found := _version(name))},
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        wsl="microsoft" in platform.release().lower(),
        unused_gpu="" if torch.cuda.is_available() else _gpu_of_kernel(),
        weights_folder=str(weights),
        disk_bytes=shutil.disk_usage(_existing(weights)).free,
    )


def findings(facts: Facts, trials: Sequence[Trial], needed_bytes: int) -> tuple[Finding, ...]:
    """What is broken or slow, worst first. `needed_bytes`: of the large model's weights."""
    found = [
        *_of_device(facts),
        *(_of_rocm(facts) if facts.platform == "rocm" else ()),
        *_of_trials(facts, trials),
        *_of_room(facts, needed_bytes),
    ]
    order = ("broken", "slow", "note")
    return tuple(sorted(found, key=lambda one: order.index(one.level)))


def _of_device(facts: Facts) -> list[Finding]:
    found = []
    if facts.unused_gpu:
        wheels = "docs/rocm.md" if facts.unused_gpu == "AMD" else "https://pytorch.org/get-started"
        found.append(
            Finding(
                level="broken",
                found=f"There is an {facts.unused_gpu} GPU, but this PyTorch cannot use it "
                f"({facts.torch})",
                mend=f"install PyTorch for it: {wheels}; if it is, the driver or the rights on "
                "its device files are missing",
            )
        )
    if facts.platform in ("cuda", "rocm") and not facts.bfloat16:
        found.append(
            Finding(
                level="slow",
                found="This GPU has no bfloat16 of its own",
                mend="--dtype float16 is faster here; look at the first video for black frames",
            )
        )
    if facts.platform in ("cuda", "rocm") and "triton" not in facts.packages:
        found.append(
            Finding(
                level="note",
                found="Triton is not installed, so --compile cannot be used",
                mend="pip install triton (on Windows triton-windows)",
            )
        )
    if facts.wsl:
        found.append(
            Finding(
                level="note",
                found="This is WSL: it gets a part of the host's memory, and pins less of it",
                mend="raise memory= in %UserProfile%\\.wslconfig; keep weights off /mnt/c",
            )
        )
    return found


def _of_rocm(facts: Facts) -> list[Finding]:
    radeon = facts.arch.startswith(("gfx10", "gfx11", "gfx12"))
    found = []
    if facts.arch.startswith(("gfx11", "gfx12")) and not _on(
        facts, "TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL"
    ):
        found.append(
            Finding(
                level="slow",
                found=f"PyTorch's flash attention is off on {facts.arch} unless it is asked for",
                mend="export TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL=1, then run infer doctor "
                "again",
            )
        )
    if radeon and facts.variables.get("MIOPEN_FIND_MODE") not in ("FAST", "2"):
        found.append(
            Finding(
                level="slow",
                found="MIOpen tries every kernel at the first decoding, which may take minutes",
                mend="export MIOPEN_FIND_MODE=FAST",
            )
        )
    if (
        radeon
        and "flash-attn" in facts.packages
        and not _on(facts, "FLASH_ATTENTION_TRITON_AMD_ENABLE")
    ):
        found.append(
            Finding(
                level="broken",
                found="flash-attn has no kernels of its own for this card",
                mend="export FLASH_ATTENTION_TRITON_AMD_ENABLE=TRUE, or pip uninstall flash-attn",
            )
        )
    if facts.variables.get("HSA_OVERRIDE_GFX_VERSION"):
        found.append(
            Finding(
                level="note",
                found="HSA_OVERRIDE_GFX_VERSION is set: kernels of another card run here",
                mend=f"unset it where PyTorch knows {facts.arch}; wrong frames may come from it",
            )
        )
    if not radeon and "aiter" not in facts.packages:
        found.append(
            Finding(
                level="note",
                found="AITER, the fast attention of Instinct cards, is not installed",
                mend="install AITER and give --attention aiter_fa2_hub",
            )
        )
    return found


def _of_trials(facts: Facts, trials: Sequence[Trial]) -> list[Finding]:
    found = []
    by = {(one.kind, one.way): one for one in trials}
    dense, sums = by.get(("convolution", "dense")), by.get(("convolution", "2d"))
    rates = [one.tflops or 0.0 for one in trials if one.kind == "matmul" and one.right]
    mended = "nothing to do: the profile takes sums of 2D convolutions instead"
    if dense is not None and not dense.right and facts.platform != "cpu":
        said = dense.said or "its numbers are wrong"
        mend = mended if sums is not None and sums.right else "--decode cpu, and a newer driver"
        found.append(
            Finding(level="broken", found=f"3D convolutions do not work: {said}", mend=mend)
        )
    elif (
        dense is not None
        and dense.tflops
        and facts.platform in ("cuda", "rocm")
        and max(rates, default=0.0) > NAIVE * dense.tflops
    ):
        library = "MIOpen's naive kernel" if facts.platform == "rocm" else "no proper kernel"
        faster = sums is not None and sums.right and (sums.tflops or 0) > dense.tflops
        found.append(
            Finding(
                level="slow",
                found=f"3D convolutions make {dense.tflops:.2g} TFLOP/s, matrix products "
                f"{max(rates):.2g}: {library}",
                mend=mended if faster else "a newer ROCm or driver; --decode chunks meanwhile",
            )
        )
    attention = [one for one in trials if one.kind == "attention"]
    fused = [one for one in attention if one.right and one.way not in ("native", "_native_math")]
    if attention and not fused and facts.platform in ("cuda", "rocm"):
        found.append(
            Finding(
                level="slow",
                found="No fused attention works here, only the plain one",
                mend="install flash-attn, or a PyTorch built for this card",
            )
        )
    for one in trials:
        if (
            one.seconds is not None
            and not one.right
            and (one.kind, one.way)
            != (
                "convolution",
                "dense",
            )
        ):
            found.append(
                Finding(
                    level="broken",
                    found=f"{one.kind} as {one.way} gives wrong numbers",
                    mend="nothing to do: it is never chosen",
                )
            )
    return found


def _of_room(facts: Facts, needed_bytes: int) -> list[Finding]:
    found = []
    if facts.disk_bytes < needed_bytes:
        found.append(
            Finding(
                level="note",
                found=f"{facts.weights_folder} has {facts.disk_bytes / 1e9:.1f} GB free, the "
                f"weights of Wan2.2-TI2V-5B are {needed_bytes / 1e9:.1f} GB",
                mend="set HF_HOME to a folder with more room",
            )
        )
    if 0 < facts.host_bytes < needed_bytes / 2:
        found.append(
            Finding(
                level="note",
                found=f"The host has {facts.host_bytes / 1e9:.1f} GB free, which the text encoder "
                "of Wan2.2-TI2V-5B alone nearly takes in bfloat16",
                mend="infer quantize MODEL --scheme int4 on a larger machine, or swap space",
            )
        )
    return found


def _on(facts: Facts, name: str) -> bool:
    return str(facts.variables.get(name, "")).lower() in ("1", "true")


# ---- looking around ----


def weights_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the hub's weights go."""
    if hub := environment.get("HF_HUB_CACHE"):
        return Path(hub)
    home = environment.get("HF_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "huggingface") / "hub"


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.exists())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str:
    for path in ("/sys/module/nvidia/version", "/sys/module/amdgpu/version"):
        with contextlib.suppress(OSError):
            return Path(path).read_text("ascii").strip()
    return ""


def _gpu_of_kernel() -> str:
    """NVIDIA or AMD where the kernel has such a device."""
    for path, maker in (("/dev/nvidiactl", "NVIDIA"), ("/dev/kfd", "AMD"), ("/dev/dxg", "WSL")):
        if Path(path).exists():
            return maker
    return ""
