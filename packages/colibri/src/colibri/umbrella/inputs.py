"""`colibri inputs`: what a pipeline starts from, by hash, so that a change of it is noticed."""

from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole
from colibri.testbed.embedded import PREFIX, TEACHER

PACKAGES = ("core", "testbed", "curate", "vae", "distill", "infer")


@dataclass(frozen=True, kw_only=True)
class InputsConfig:
    """The teacher, and where its hashes go."""

    model: str | None = None
    """The teacher: a diffusers folder or a hub id. Without it: the embedded tiny one."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    out: Path = Path("inputs.json")
    """The file to write."""


def write_inputs(config: InputsConfig) -> Path:
    """Write the hashes of the teacher's parts and the versions of our packages."""
    from colibri.infer.models import find_model

    if config.out.suffix != ".json":
        raise UserError(f"--out {config.out} is no .json file")
    use = find_model(config.model or PREFIX + TEACHER, config.revision).use
    versions = {name: metadata.version(f"colibri-{name}") for name in PACKAGES}
    write_json_whole(config.out, {"model": asdict(use), "packages": versions})
    return config.out
