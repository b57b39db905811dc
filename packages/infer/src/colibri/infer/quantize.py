"""A model folder with few-bit weights: linear layers of the text encoder and the transformer.

What is sensitive stays as it is: embeddings of patches, text and time, norms, modulation, the last
projection, and the first and last blocks of the transformer. The report tells what each layer
lost, and how far the same video has moved.
"""

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from colibri.core import wan
from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.hashing import hash_file
from colibri.core.shards import write_json_whole
from colibri.infer import models, quantized
from colibri.infer.config import QuantizeConfig, Scheme
from colibri.infer.decode import Say, free_memory
from colibri.infer.denoise import denoise, encode_prompts, load_denoiser, needed_prompts
from colibri.infer.finish import decode_clip
from colibri.infer.hashes import hash_parts
from colibri.infer.jobs import job_of
from colibri.infer.memory import plan_for
from colibri.infer.models import Machine, Source
from colibri.infer.outputs import check_writable
from colibri.infer.quantized import ABOUT, FORMAT, GROUP, PARTS, About, pack, unpack
from colibri.infer.settings import make_recipes

REPORT = "quantization.json"
REPORT_FORMAT = "colibri-quantization/1"
SHARD_BYTES = 2_000_000_000
"""Of a weight file, at most; quantising holds little more than this in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """What one layer lost."""

    name: str
    shape: tuple[int, int]
    sqnr_db: float
    """Power of the weights over the power of their error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part before and after."""

    part: str
    bytes_before: int
    bytes_after: int
    parameters: int
    quantized: int
    """Parameters of the quantised layers."""
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far the same video has moved, quantised model against source; infinite where equal."""

    prompt: str
    seed: int
    size: str
    frames: int
    steps: int
    latents_sqnr_db: float
    frames_psnr_db: float
    """Over all pixels of the decoded video, 8 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What `infer quantize` made."""

    scheme: Scheme
    source: str
    parts: tuple[Part, ...]
    difference: Difference | None


def quantize(config: QuantizeConfig, *, say: Say) -> Report:
    """Write the quantised model to `config.out`, whole or not at all.

    UserError where there is no model, it is quantised already, the folder is another thing's, or a
    weight cannot be quantised.
    """
    if config.scheme not in quantized.SCHEMES:
        raise UserError(
            f"there is no scheme {config.scheme!r}", hint=f"one of {', '.join(quantized.SCHEMES)}"
        )
    if config.keep_blocks < 0:
        raise UserError(f"--keep-blocks {config.keep_blocks} is not a number from 0 up")
    unknown = sorted(set(config.parts) - set(PARTS))
    if unknown or not config.parts:
        raise UserError(
            f"--parts {','.join(config.parts) or repr('')} cannot be quantised",
            hint=f"some of {', '.join(PARTS)}",
        )
    if config.lora:
        raise UserError(
            "--lora cannot be put on a quantised model",
            hint="merge it first: infer convert LORA --base MODEL --out FOLDER",
        )
    machine = models.choose_machine(config.device, config.dtype, config.vae_dtype)
    source = models.find_model(config.model, config.revision, say=say)
    say(source.line())
    if found := quantized.scheme_of(source.folder):
        raise UserError(f"{source.folder} is quantised already ({found})", hint="give its source")
    out = config.out or Path("out") / f"{source.family.name}-{config.scheme}"
    _check_out(out)
    check_writable(out.parent)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as place:
        plain = _as_diffusers(source, Path(place) / "plain")
        made = Path(place) / "made"
        _copy_rest(plain, made, config.parts)
        parts = []
        for part in config.parts:
            parts.append(_quantize_part(source, plain, made, part, machine.device, config))
            say(_line(parts[-1], config.scheme))
        difference = compare(source, made, machine, config, say=say) if config.compare else None
        report = Report(
            scheme=config.scheme,
            source=source.asked,
            parts=tuple(parts),
            difference=difference,
        )
        write_json_whole(made / REPORT, _json_ready(report))
        for path in (made, *made.rglob("*")):  # some are written for the owner alone
            path.chmod(0o755 if path.is_dir() else 0o644)
        if out.exists():
            os.replace(out, Path(place) / "old")
        os.replace(made, out)
    return report


def text(report: Report) -> str:
    """The report for people: each part, its worst layers, and the difference of the video."""
    lines = [f"{'layer':<44}{'shape':>14}{'SQNR dB':>10}"]
    for part in report.parts:
        for layer in part.layers:
            shape = "x".join(map(str, layer.shape))
            lines.append(f"{part.part + '.' + layer.name:<44}{shape:>14}{layer.sqnr_db:>10.1f}")
    lines += ["", *(_line(part, report.scheme) for part in report.parts)]
    moved = report.difference
    if moved is None:
        lines.append("The video was not compared (--no-compare).")
    else:
        lines.append(
            f"Same seed, {moved.size}, {moved.frames} frames, {moved.steps} steps: latents "
            f"{moved.latents_sqnr_db:.1f} dB SQNR, frames {moved.frames_psnr_db:.1f} dB PSNR "
            "against the source."
        )
    return "\n".join(lines)


def quantizable(family: wan.ModelFamily, part: str, keep_blocks: int) -> dict[str, tuple[int, int]]:
    """Names and shapes of the linear layers of a part that are quantised: those inside blocks.

    `keep_blocks` blocks at each end of the transformer are left out.
    """
    network = wan.build_meta(family, part)
    inside = re.compile(r"blocks\.(\d+)\." if part == "transformer" else r"encoder\.block\.(\d+)\.")
    last = family.transformer["num_layers"] - keep_blocks
    found = {}
    for name, layer in network.named_modules():
        match = inside.match(name)
        if match is None or not isinstance(layer, torch.nn.Linear):
            continue
        if part == "transformer" and not keep_blocks <= int(match[1]) < last:
            continue
        found[name] = (layer.out_features, layer.in_features)
    return found


def about_as(
    family: wan.ModelFamily, scheme: Scheme, keep_blocks: int = QuantizeConfig.keep_blocks
) -> dict[str, About]:
    """What `quantize` would say of each part, for a plan: no files, no hashes."""
    return {
        part: About(
            format=FORMAT,
            scheme=scheme,
            layers=tuple(quantizable(family, part, keep_blocks)),
            files={},
            source="",
        )
        for part in PARTS
    }


def sqnr_db(signal: Tensor, other: Tensor) -> float:
    """Power of `signal` over the power of `other - signal`, in dB; infinite if equal."""
    error = (other.double() - signal.double()).square().sum().item()
    power = signal.double().square().sum().item()
    if error == 0:
        return math.inf
    return 10 * math.log10(power / error) if power else -math.inf


def compare(
    source: Source, folder: Path, machine: Machine, config: QuantizeConfig, *, say: Say
) -> Difference:
    """Render one video with the source and with the quantised folder, one after the other."""
    job = job_of(config.prompt, config.seed, negative_prompt=config.negative_prompt)
    (planned,) = make_recipes(config, [job], source, machine, say=say)
    recipe = planned.recipe
    size = f"{recipe.width}x{recipe.height}"
    say(f"Comparing one video of {size}, {recipe.frames} frames, {recipe.flow.steps} steps.")
    latents, frames = [], []
    other = models.find_model(str(folder))
    for one in (source, other):
        placed = plan_for(config.vram, one, recipe, machine, say=say)
        embeddings = encode_prompts(one, placed, needed_prompts(recipe), say=say)
        model = load_denoiser(one, placed, recipe)
        latents.append(denoise(model, recipe, embeddings, None, say=say))
        clip, _ = decode_clip(model, placed, latents[-1], mode=config.decode, say=say)
        frames.append(clip)
        del model
        free_memory()
    error = np.square(frames[0].astype(np.float64) - frames[1]).mean()
    return Difference(
        prompt=recipe.prompt_used,
        seed=recipe.seed,
        size=size,
        frames=recipe.frames,
        steps=recipe.flow.steps,
        latents_sqnr_db=sqnr_db(latents[0], latents[1]),
        frames_psnr_db=math.inf if error == 0 else 10 * math.log10(255**2 / error),
    )


# ---- one part ----


def _quantize_part(
    source: Source, plain: Path, made: Path, part: str, device: str, config: QuantizeConfig
) -> Part:
    wanted = quantizable(source.family, part, config.keep_blocks)
    if not wanted:
        raise UserError(
            f"--keep-blocks {config.keep_blocks} leaves nothing of the {part} to quantise",
            hint=f"it has {source.family.transformer['num_layers']} blocks",
        )
    target = made / part
    target.mkdir()
    shutil.copy2(plain / part / "config.json", target / "config.json")
    layers, missing, parameters = [], set(wanted), 0
    shard: dict[str, Tensor] = {}
    files: dict[str, dict[str, Any]] = {}
    before = 0

    def flush() -> None:
        if not shard:
            return
        path = target / f"quantized-{len(files) + 1:05}.safetensors"
        try:
            save_file(shard, path)
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
        files[path.name] = {"sha256": hash_file(path), "bytes": path.stat().st_size}
        shard.clear()

    for name, tensor in _tensors(plain / part):
        before += tensor.nbytes
        parameters += tensor.numel()
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in wanted:
            missing.discard(layer)
            if tuple(tensor.shape) != wanted[layer]:
                raise UserError(
                    f"{plain / part}: {name} has the shape {tuple(tensor.shape)}, its config.json "
                    f"says {wanted[layer]}"
                )
            try:
                packed = pack(tensor.to(device), config.scheme)
            except ValueError as error:
                raise UserError(f"{plain / part}: {name} cannot be quantised: {error}") from None
            packed = {key: value.cpu().contiguous() for key, value in packed.items()}
            back = unpack(packed, config.scheme, tensor.shape[1])
            layers.append(
                Layer(name=layer, shape=wanted[layer], sqnr_db=sqnr_db(tensor.float(), back))
            )
            shard |= {f"{layer}.{key}": value for key, value in packed.items()}
        else:
            shard[name] = tensor.contiguous()
        if sum(value.nbytes for value in shard.values()) >= SHARD_BYTES:
            flush()
    flush()
    if missing:
        raise UserError(f"{plain / part} lacks the weight of {min(missing)}")
    about = {
        "format": FORMAT,
        "scheme": config.scheme,
        "layers": sorted(wanted),
        "files": files,
        "source": hash_parts(source.folder, (part,)),
    }
    write_json_whole(target / ABOUT, about)
    return Part(
        part=part,
        bytes_before=before,
        bytes_after=sum(table["bytes"] for table in files.values()),
        parameters=parameters,
        quantized=sum(rows * columns for rows, columns in wanted.values()),
        layers=tuple(layers),
    )


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every weight of a part, one at a time in memory, in the order of files and names."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                yield name, tensors.get_tensor(name)


# ---- folders ----


def _as_diffusers(source: Source, place: Path) -> Path:
    """The source itself, or a diffusers folder of Wan's own files."""
    if (source.folder / "model_index.json").is_file():
        for part in wan.PARTS:
            wan.part_files(source.folder, part)  # says in one sentence what is missing or cut
        return source.folder
    wan.save(wan.load(source.folder, dtype="bfloat16"), place)
    return place


def _copy_rest(plain: Path, made: Path, parts: tuple[str, ...]) -> None:
    made.mkdir()
    for name in ("model_index.json", wan.ABOUT):
        if (plain / name).is_file():
            shutil.copy2(plain / name, made / name)
    for name in ("scheduler", *wan.PARTS):
        if (plain / name).is_dir() and name not in parts:
            shutil.copytree(plain / name, made / name)


def _check_out(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / REPORT).is_file()):
        raise UserError(
            f"--out {out} is there and is no quantised model", hint="choose another --out"
        )


def _line(part: Part, scheme: str) -> str:
    worst = min(part.layers, key=lambda layer: layer.sqnr_db)
    group = f", groups of {GROUP}" if scheme == "int4" else ""
    return (
        f"{part.part}: {scheme}{group}, {len(part.layers)} layers, "
        f"{part.quantized / part.parameters:.0%} of the parameters; "
        f"{part.bytes_before / 1e6:,.1f} MB -> {part.bytes_after / 1e6:,.1f} MB; "
        f"worst layer {worst.sqnr_db:.1f} dB ({worst.name})"
    )


def _json_ready(report: Report) -> dict[str, Any]:
    """JSON knows no infinity: null stands for no error at all."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    table = {"format": REPORT_FORMAT} | to_table(report)
    return dict(json.loads(json.dumps(plain(table))))
