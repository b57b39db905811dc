"""Decoders from folders: ours, the Turbo-VAED family, TAEHV's previews, Wan's own VAE."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colibri.core.errors import UserError
from colibri.core.latents import check_safetensors
from colibri.core.wan import hub
from colibri.core.wan.decoder import LatentStats, hash_vae_folder
from colibri.core.wan.folder import load_network
from colibri.testbed.embedded import PREFIX, TEACHER, embedded_model
from colibri.vae import forms, taehv
from colibri.vae.decode import VideoDecoder
from colibri.vae.light import LightDecoder

WEIGHTS = "diffusion_pytorch_model.safetensors"
EMBEDDED = PREFIX + TEACHER
"""The tiny Wan VAE of the small world: the teacher where none is named."""
CONFIG_LAYOUTS = tuple(
    hub.Layout(mark=mark, files=(mark,)) for mark in ("vae/config.json", "config.json")
)
VAE_LAYOUTS = tuple(
    hub.Layout(mark=one.mark, files=(one.mark, one.mark.replace("config.json", "*.safetensors")))
    for one in CONFIG_LAYOUTS
)
"""A VAE on the hub, in a model's repository or in one of its own."""


def load_decoder(
    folder: str | Path,
    *,
    teacher: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> VideoDecoder:
    """A decoder from a diffusers folder, a model folder with a `vae` in it, TAEHV's weights, or
    `embedded:NAME`.

    With `teacher` a decoder that was trained for another VAE is refused. UserError in one sentence
    for what is missing, damaged or unknown.
    """
    path = _inside(folder)
    decoder = _preview(path) if path.is_file() else _from_config(path)
    if teacher is not None:
        from colibri.vae.adapter import check_teacher

        check_teacher(decoder.teacher, hash_vae_folder(teacher_folder(teacher)), str(teacher))
    core: Any = decoder.core
    core.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False)
    if isinstance(core, LightDecoder):
        forms.apply(core, forms.chosen(core, device))
    return decoder


def decoder_files(folder: str | Path) -> tuple[Path, ...]:
    """Config and weights that `load_decoder` reads. UserError where there are none."""
    path = _inside(folder)
    if path.is_file():
        return (path,)
    read_config(path)
    _check_weights(path)
    return (path / "config.json", *_files(path))


def load_teacher(source: str | Path, *, revision: str | None = None) -> Any:
    """A frozen `AutoencoderKLWan` in float32 from its folder, a model folder or a hub id."""
    from diffusers import AutoencoderKLWan

    path = teacher_folder(source, revision=revision)
    config = read_config(path)
    if config.get("_class_name") != "AutoencoderKLWan":
        raise UserError(
            f"{path} holds a {config.get('_class_name')}, not an AutoencoderKLWan",
            hint="a teacher has to be a Wan VAE",
        )
    _check_weights(path)
    vae = load_network(AutoencoderKLWan, path, torch_dtype=torch.float32)
    return vae.eval().requires_grad_(False)


def teacher_folder(
    source: str | Path, *, revision: str | None = None, weights: bool = True
) -> Path:
    """The local folder of a VAE: a folder, a model's folder, `embedded:NAME`, or a hub id, of which
    the VAE alone, or without `weights` its config, is fetched into the hub's cache."""
    path = _here(source)
    if not path.is_dir():
        if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
            raise UserError(f"there is no VAE folder {str(source)!r}")
        layouts = VAE_LAYOUTS if weights else CONFIG_LAYOUTS
        path = hub.fetch(str(source), layouts, revision=revision or None)
    return path / "vae" if (path / "vae" / "config.json").exists() else path


def _here(source: str | Path) -> Path:
    return embedded_model(str(source)) if str(source).startswith(PREFIX) else Path(source)


def _inside(source: str | Path) -> Path:
    """The decoder in a folder of its own, in a model folder, or the one TAEHV file of a folder."""
    path = _here(source)
    if not path.exists():
        raise UserError(f"there is no decoder folder {str(path)!r}")
    if path.is_file() or (path / "config.json").exists():
        return path
    if (path / "vae" / "config.json").exists():
        return path / "vae"
    found = sorted(path.glob("taew*.pth")) + sorted(path.glob("taew*.safetensors"))
    return found[0] if len(found) == 1 else path


def _from_config(path: Path) -> VideoDecoder:
    from colibri.vae.turbo import CLASSES, TurboConfig, TurboDecoder

    config = read_config(path)
    kind = config.get("_class_name")
    if kind == "LightVAE":
        from colibri.vae.adapter import LightVAE

        _check_weights(path)
        light: LightVAE = load_network(LightVAE, path)
        return light.video_decoder
    if kind == "AutoencoderKLWan":
        from colibri.vae.wan import WanCore

        vae = load_teacher(path)
        about = {"id": str(path), "revision": "", "hash": hash_vae_folder(path)}
        return VideoDecoder(core=WanCore(vae), stats=LatentStats.of(vae.config), teacher=about)
    if kind == taehv.CLASS:
        _check_weights(path)
        preview = taehv.load(config, _read(path))
        named = dict(config.get("teacher") or {})
        return VideoDecoder(core=preview, stats=preview.stats, teacher=named)
    if kind in CLASSES or "decoder_block_out_channels" in config:
        _check_weights(path)
        weights = _plain_names(_read(path))
        core = TurboDecoder(TurboConfig.of(config, frozenset(weights)))
        try:
            core.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(
                f"{path}: weights and config do not belong together: {_first_line(error)}"
            ) from None
        return VideoDecoder(core=core)
    raise UserError(
        f"{path} holds a {kind!r}, which is no decoder known here",
        hint=f"known: LightVAE, {taehv.CLASS}, AutoencoderKLWan, " + ", ".join(CLASSES),
    )


def _preview(path: Path) -> VideoDecoder:
    if path.suffix == ".safetensors":
        check_safetensors(path)
        weights = _load(path)
    else:
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch names no narrower family for a damaged pickle
            raise UserError(f"{path} cannot be read: {_first_line(error)}") from None
    if not isinstance(weights, dict):
        raise UserError(f"{path} holds no weights by name")
    core = taehv.PreviewDecoder.of(weights)
    return VideoDecoder(core=core, stats=core.stats)


def _plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names below `decoder.`; some files have the decoder alone, without that prefix."""
    inside = {
        key.removeprefix("decoder."): value
        for key, value in weights.items()
        if key.startswith("decoder.")
    }
    return inside or weights


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a folder. UserError where there is none, or it is no table."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} has no config.json", hint="give a diffusers folder or TAEHV's taew file"
        ) from None
    except ValueError:
        raise UserError(f"{path}/config.json is not JSON") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}/config.json is not a table")
    return config


def _check_weights(path: Path) -> None:
    files = _files(path)
    if not files:
        raise UserError(f"{path} holds no safetensors weights", hint=f"expected {WEIGHTS}")
    for file in files:
        check_safetensors(file)


def _read(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in _files(path):
        weights |= _load(file)
    return weights


def _files(path: Path) -> list[Path]:
    """diffusers' names, whole or sharded; else whatever there is."""
    named = sorted(path.glob("diffusion_pytorch_model*.safetensors"))
    return named or sorted(path.glob("*.safetensors"))


def _load(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
