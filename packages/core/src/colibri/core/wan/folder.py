"""Model folders: find, describe, load, save.

A diffusers folder with our `colibri.json` in it, where defaults, a student's schedule and its
causal form are. Wan's own files are `colibri.core.wan.original`'s part.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from colibri.core.config import from_table, to_table
from colibri.core.errors import UserError, first_line
from colibri.core.hashing import hash_file, hash_json
from colibri.core.latents import check_safetensors
from colibri.core.schedule import FlowSchedule
from colibri.core.shards import write_json_whole
from colibri.core.wan import hub, original
from colibri.core.wan.family import FAMILIES, Causal, Defaults, ModelFamily
from colibri.core.wan.model import PARTS, DType, WanModel, network_class

log = logging.getLogger(__name__)

ABOUT = "colibri.json"
FORMAT = "colibri-model/1"
LAYOUTS = (
    hub.Layout(
        mark="model_index.json",
        files=("model_index.json", ABOUT, "scheduler/*", *(f"{part}/*" for part in PARTS)),
        unused=(
            *(f"*{end}" for end in (*original.PICKLES, ".msgpack", ".h5", ".onnx", ".gguf")),
            *("*.fp16[.-]*", "*.bf16[.-]*"),
        ),
    ),
    hub.Layout(mark="config.json", files=original.HUB_FILES),
)
"""Of models on the hub."""


def load(
    source: str | Path,
    *,
    revision: str | None = None,
    parts: Sequence[str] = PARTS,
    dtype: DType = "float32",
    vae_dtype: DType = "float32",
    device: str = "cpu",
) -> WanModel:
    """A model from a diffusers folder, a hub id, a family's name, a folder of Wan's own files or
    one such file, in eval mode.

    UserError in one sentence for a source that is missing, of another model, damaged or incomplete.
    A pickle is read as plain tensors; code in it is never run.
    """
    folder = find_folder(source, revision=revision)
    if original.is_original(folder):
        return _load_original(folder, parts, dtype=dtype, vae_dtype=vae_dtype, device=device)
    family, schedule = describe(folder)
    for part in parts:
        _check_part(folder / part)
    model = WanModel(family=family, schedule=schedule, folder=folder)
    for part in parts:
        if part == "tokenizer":
            model.tokenizer = _load_tokenizer(folder / part)
        else:
            kind = vae_dtype if part == "vae" else dtype
            setattr(model, part, _load_weights(folder / part, part, kind).to(device).eval())
    return model


def find_folder(
    source: str | Path, *, revision: str | None = None, say: Callable[[str], object] = log.info
) -> Path:
    """The local folder, or file, of a model; a hub id or a family's name is fetched into the hub's
    cache, after `say` has heard how large it is."""
    if Path(source).exists():
        return Path(source)
    named = FAMILIES.get(str(source))
    repo = named.repo if named else str(source)
    if repo is None or repo.count("/") != 1 or repo.startswith((".", "/", "~")):
        raise UserError(
            f"there is no model folder {str(source)!r}",
            hint="give a diffusers folder, Wan's own files, or a hub id such as "
            "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        )
    return hub.fetch(repo, LAYOUTS, revision=revision, say=say)


def describe(folder: Path) -> tuple[ModelFamily, FlowSchedule | None]:
    """The family of a model, by its configs, and its trained schedule where it has one.

    Of Wan's own files, by the shapes of their weights. Reads no weights. UserError in one sentence
    for a folder of another model.
    """
    if original.is_original(folder):
        return _with_known(original.describe(original.find(folder))), None
    index = _json(folder / "model_index.json")
    kind = index.get("_class_name")
    if kind not in ("WanPipeline", "WanImageToVideoPipeline"):
        raise UserError(f"{folder} is not a Wan model: its model_index.json says {kind!r}")
    if (index.get("transformer_2") or [None])[0]:
        raise UserError(f"{folder} has two transformers, which is not supported")
    transformer, vae, text_encoder = (
        _json(folder / part / "config.json") for part in ("transformer", "vae", "text_encoder")
    )
    takes, makes = transformer.get("in_channels"), vae.get("z_dim", 16)
    if takes != makes:
        raise UserError(
            f"{folder} has a transformer of {takes} channels and a VAE of {makes}: a mismatch, or "
            "a model with image conditioning by channels, which is not supported"
        )
    family = ModelFamily(
        name=folder.name,
        expand_timesteps=bool(index.get("expand_timesteps")),
        transformer=transformer,
        vae=vae,
        text_encoder=text_encoder,
        defaults=Defaults(),
    )
    family = _with_known(family)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if scheduler.is_file():
        table = _json(scheduler)
        shift = table.get("flow_shift") or table.get("shift")
        if shift and not table.get("shift_terminal"):  # with it, shift is that of a student's grid
            family = replace(family, defaults=replace(family.defaults, shift=float(shift)))
    return _with_about(folder / ABOUT, family)


def hush() -> None:
    """Keep the libraries' bars of milliseconds, and their advice, out of a command's own lines."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    for one in (logging, diffusers_logging):
        one.set_verbosity_error()
        one.disable_progress_bar()


def part_files(folder: Path, part: str) -> tuple[Path, ...]:
    """The files that hold a part of a model, in order of their names, whatever its layout."""
    if original.is_original(folder):
        return original.find(folder).files_of(part)
    _check_part(folder / part)
    return tuple(sorted(path for path in (folder / part).rglob("*") if path.is_file()))


def hash_part(folder: Path, part: str) -> str:
    """SHA-256 over the names and contents of a part's files: what recipes of videos call it by."""
    return hash_json([[part, path.name, hash_file(path)] for path in part_files(folder, part)])


def hash_vae_of(folder: Path) -> str:
    """`decoder.hash_vae` of a model's VAE from its files; the same in either layout."""
    from colibri.core.wan.decoder import hash_vae_folder, hash_vae_weights

    if not original.is_original(folder):
        return hash_vae_folder(folder / "vae")
    found = original.find(folder)
    return hash_vae_weights(original.describe(found).vae, original.read_part(found, "vae").items())


def save(model: WanModel, folder: Path, *, max_shard_size: str | None = None) -> None:
    """Write a whole model as a diffusers folder that `WanPipeline.from_pretrained` opens.

    Parts that are not loaded are copied from the model's own folder: a student is saved with its
    teacher's text encoder and VAE. A student's scheduler is its sampler, which in as many steps as
    it was trained for takes its sigmas, as near as `FlowSchedule.euler_grid` comes. The folder
    appears whole or not at all; one that exists is replaced. `max_shard_size`: of a file of
    weights, as `7MB`; diffusers' own limit without it.
    """
    from diffusers import WanPipeline

    family = model.family
    absent = [part for part in PARTS if getattr(model, part) is None]
    if absent and model.folder is None:
        raise UserError(f"a model without {' and '.join(absent)} cannot be saved whole")
    if absent and model.folder is not None and original.is_original(model.folder):
        rest = _load_original(model.folder, absent)
        model = replace(model, **{part: getattr(rest, part) for part in absent})
        absent = []
    pipeline: Any = WanPipeline(
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder,
        vae=model.vae,
        transformer=model.transformer,
        scheduler=_scheduler(model),
        expand_timesteps=family.expand_timesteps,
    )
    about = {
        "format": FORMAT,
        "family": family.name,
        "defaults": to_table(family.defaults),
        "schedule": model.schedule.to_json() if model.schedule else None,
        "causal": to_table(family.causal) if family.causal else None,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        pipeline.save_pretrained(temporary, max_shard_size=max_shard_size)
        if model.folder is not None and absent:
            _copy_parts(model.folder, temporary, absent)
        write_json_whole(temporary / ABOUT, about)
        for path in (temporary, *temporary.rglob("*")):  # some are written for the owner alone
            path.chmod(0o755 if path.is_dir() else 0o644)
        if folder.exists():
            old = temporary.with_suffix(".old")
            shutil.rmtree(old, ignore_errors=True)  # of a save that was killed
            os.replace(folder, old)
            os.replace(temporary, folder)
            shutil.rmtree(old)
        else:
            os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _scheduler(model: WanModel) -> Any:
    from diffusers import FlowMatchLCMScheduler, UniPCMultistepScheduler

    default = model.family.defaults
    if model.schedule is not None and default.sampler == "consistency":
        grid = model.schedule.euler_grid()
        return FlowMatchLCMScheduler(shift=grid.shift, shift_terminal=grid.end)
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=default.shift
    )


# ---- parts ----


def _load_original(
    path: Path,
    parts: Sequence[str],
    *,
    dtype: DType = "float32",
    vae_dtype: DType = "float32",
    device: str = "cpu",
) -> WanModel:
    found = original.find(path)
    family = _with_known(original.describe(found))
    for part in parts:
        found.files_of(part)
    model = WanModel(family=family, folder=path)
    for part in parts:
        if part == "tokenizer":
            model.tokenizer = _load_tokenizer(found.files_of(part)[0].parent)
        else:
            kind = vae_dtype if part == "vae" else dtype
            setattr(model, part, original.load_part(found, family, part, kind).to(device).eval())
    return model


def _load_weights(folder: Path, part: str, dtype: DType) -> Any:
    import torch

    if (folder / "quantized.json").is_file():
        raise UserError(
            f"{folder} is quantised, which only `infer` loads", hint="give its source instead"
        )
    name = "dtype" if part == "text_encoder" else "torch_dtype"
    return load_network(network_class(part), folder, **{name: getattr(torch, dtype)})


def load_network(kind: Any, folder: Path, **settings: Any) -> Any:
    """A network of diffusers' or transformers' class `kind`, with `settings` of `from_pretrained`.

    UserError in one sentence where weights are damaged, lacking, or of other shapes.
    """
    try:
        network, report = kind.from_pretrained(
            str(folder), output_loading_info=True, local_files_only=True, **settings
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{folder} cannot be loaded: {first_line(error)}") from None
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{folder} lacks {len(missing)} of its weights, {missing[0]} among them",
            hint="its config.json and its weights are not of one model",
        )
    return network


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} cannot be loaded: {first_line(error)}") from None


def _check_part(folder: Path) -> None:
    """UserError where a file of the part is missing or cut."""
    if not folder.is_dir():
        raise UserError(f"{folder.parent} has no {folder.name}", hint="is its download complete?")
    if folder.name == "tokenizer":
        return
    single = sorted(folder.glob("*.safetensors"))
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if indexes:
        shards = _json(indexes[0]).get("weight_map", {}).values()
        single = [folder / name for name in sorted(set(shards))]
    if not single:
        found = "only a pickle" if [*folder.glob("*.bin")] else "no weights"
        raise UserError(f"{folder} holds {found}", hint="safetensors are needed")
    for file in single:
        check_safetensors(file)


# ---- folders ----


def _with_known(family: ModelFamily) -> ModelFamily:
    """Name and defaults of the known family of this form; of its codec at least, defaults."""

    def form(one: ModelFamily) -> tuple[Any, ...]:
        keys = ("num_layers", "num_attention_heads", "attention_head_dim", "text_dim")
        return tuple(one.transformer.get(key) for key in keys)

    alike = [
        known
        for known in FAMILIES.values()
        if (known.expand_timesteps, known.codec) == (family.expand_timesteps, family.codec)
    ]
    for known in alike:
        if form(known) == form(family):
            return replace(
                family, name=known.name, repo=known.repo, defaults=known.defaults, sizes=known.sizes
            )
    return replace(family, defaults=alike[0].defaults) if alike else family


def _with_about(path: Path, family: ModelFamily) -> tuple[ModelFamily, FlowSchedule | None]:
    if not path.is_file():
        return family, None
    about = _json(path)
    if about.get("format") != FORMAT:
        raise UserError(f"{path} is of the form {about.get('format')!r}, not {FORMAT!r}")
    family = replace(
        family,
        name=str(about.get("family", family.name)),
        defaults=from_table(Defaults, about.get("defaults") or {}, where=str(path)),
        causal=from_table(Causal, about["causal"], where=str(path))
        if about.get("causal")
        else None,
    )
    schedule = about.get("schedule")
    return family, FlowSchedule.from_json(schedule, where=str(path)) if schedule else None


def _copy_parts(source: Path, target: Path, parts: Sequence[str]) -> None:
    index, own = (_json(folder / "model_index.json") for folder in (source, target))
    for part in parts:
        shutil.copytree(source / part, target / part)
        own[part] = index[part]
    write_json_whole(target / "model_index.json", own)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}", hint="is this a diffusers folder, and complete?"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value
