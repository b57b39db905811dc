"""Which model runs, where its files are, and on what: decided before any weight is loaded."""

import importlib.metadata
import logging
import platform
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.family import ModelFamily
from colibri.infer.config import DType
from colibri.infer.decode import Say
from colibri.infer.hashes import hash_parts, remembered
from colibri.infer.recipe import ModelUse
from colibri.testbed.embedded import PREFIX, STUDENT, embedded_model

if TYPE_CHECKING:
    from colibri.infer.memory import MemoryPlan

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model folder and what its configs say; no weights."""

    asked: str
    """As a recipe names it: a folder, a hub id, or `embedded:NAME`."""
    revision: str | None
    """Commit of a hub id."""
    folder: Path
    family: ModelFamily
    schedule: FlowSchedule | None
    """Of a student; None for a teacher."""

    @property
    def embedded(self) -> bool:
        """True for a tiny model that comes with the package."""
        return self.asked.startswith(PREFIX)

    @cached_property
    def use(self) -> ModelUse:
        """The model by name and content. Reads every weight file once."""
        return ModelUse(
            source=self.asked,
            revision=self.revision,
            family=self.family.name,
            text_encoder=hash_parts(self.folder, ("text_encoder", "tokenizer")),
            transformer=hash_parts(self.folder, ("transformer",)),
            vae=self.vae_hash,
        )

    @cached_property
    def vae_hash(self) -> str:
        """What latents are bound to."""
        return remembered(["vae", hash_parts(self.folder, ("vae",))], lambda: self.model().vae_hash)

    def model(self) -> wan.WanModel:
        """The model without any part loaded."""
        return wan.WanModel(family=self.family, schedule=self.schedule, folder=self.folder)

    def line(self) -> str:
        """The model in one line; the embedded one is never passed off as a large one."""
        if self.embedded:
            return (
                f"Model: the embedded {self.asked.removeprefix(PREFIX)}, a small test model of "
                "coloured shapes; --model takes a large one."
            )
        at = f" at {self.revision[:12]}" if self.revision else ""
        return f"Model: {self.asked}{at} ({self.family.name})."


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What the model runs on and in which precision."""

    device: str
    dtype: DType
    vae_dtype: DType
    plan: "MemoryPlan | None" = None
    """Where everything lives; None: all on the device, until memory runs out."""


def find_model(name: str | None, revision: str | None = None, *, say: Say = log.info) -> Source:
    """The folder of `name`; without a name, that of the embedded student.

    A hub id is fetched, after `say` has heard how large it is, and stays at its commit.
    """
    name = name or PREFIX + STUDENT
    if name.startswith(PREFIX):
        if revision:
            raise UserError("--revision is for a hub id", hint="pass --model OWNER/NAME too")
        folder = embedded_model(name)
    else:
        folder = wan.find_folder(name, revision=revision, say=say)
        if folder.parent.name == "snapshots" and not Path(name).exists():
            revision = folder.name
    family, schedule = wan.describe(folder)
    return Source(asked=name, revision=revision, folder=folder, family=family, schedule=schedule)


def find_again(name: str | None, revision: str | None, use: ModelUse, *, say: Say) -> Source:
    """The model of a recipe, at the recipe's revision; or `name`, where it is somewhere else now,
    which has revisions of its own."""
    if not name or name == use.source:
        revision = revision or use.revision
    return find_model(name or use.source, revision, say=say)


def choose_machine(
    device: str | None, dtype: DType | None = None, vae_dtype: DType = "float32"
) -> Machine:
    """Device and precision; UserError for a device that is not there."""
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).strip().splitlines()[0][:160]
        raise UserError(f"the device {device!r} cannot be used: {said}") from None
    kind = "float32" if device.startswith("cpu") else "bfloat16"
    return Machine(device=device, dtype=dtype or cast(DType, kind), vae_dtype=vae_dtype)


def load(source: Source, machine: Machine, *parts: str) -> wan.WanModel:
    """Some parts of a model, on the device. UserError in one sentence for damaged files."""
    from colibri.infer import device_profile, quantized

    wan.hush()

    def plain(some: tuple[str, ...]) -> wan.WanModel:
        return wan.load(
            source.folder,
            parts=some,
            dtype=machine.dtype,
            vae_dtype=machine.vae_dtype,
            device=machine.device,
        )

    model = quantized.load(source.folder, parts, plain, dtype=machine.dtype, device=machine.device)
    if model.vae is not None:
        device_profile.set_convolutions(model.vae, device_profile.convolution_of(machine.device))
    return model


def versions() -> dict[str, Any]:
    """Of everything whose change may change a frame."""
    names = ("colibri-infer", "torch", "diffusers", "transformers", "av")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"python": platform.python_version()}


def device_name(device: str) -> str:
    """`NVIDIA H200`, `x86_64 CPU`: for people."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {device.upper()}"
