"""Nodes around `colibri.infer.session`: load, read the text, sample, decode, save.

Only ComfyUI's forms are known here: its inputs, its images, its progress bar and output folder.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from colibri.infer.config import LookConfig
from colibri.infer.session import Decoded, Sampled, Session, SessionConfig, Text, save

log = logging.getLogger("colibri.comfyui")

OWN = "as the model says"
Inputs = dict[str, dict[str, tuple[Any, ...]]]


class ColibriLoader:
    """A model: a folder, a hub id, or, with nothing named, the small test model."""

    CATEGORY = "Colibri"
    FUNCTION = "load"
    RETURN_TYPES = ("COLIBRI_MODEL",)
    RETURN_NAMES = ("model",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        text = ("STRING", {"default": ""})
        return {
            "required": {"model": text},
            "optional": {
                "revision": text,
                "decoder": text,
                "vram": text,
                "device": text,
                "dtype": (["auto", "bfloat16", "float16", "float32"],),
                "decode": (["auto", "whole", "chunks", "tiles", "cpu"],),
                "safety": text,
            },
        }

    def load(
        self,
        model: str,
        revision: str = "",
        decoder: str = "",
        vram: str = "",
        device: str = "",
        dtype: str = "auto",
        decode: str = "auto",
        safety: str = "",
    ) -> tuple[Session]:
        """Finds the model and fetches what is missing; weights are read when they are needed."""
        config = SessionConfig(
            model=model.strip() or None,
            revision=revision.strip() or None,
            decoder=decoder.strip() or None,
            vram=vram.strip() or None,
            device=device.strip() or None,
            dtype=None if dtype == "auto" else dtype,  # type: ignore[arg-type]
            decode=decode,  # type: ignore[arg-type]
            safety=tuple(filter(None, (name.strip() for name in safety.split(",")))),
        )
        return (Session(config, say=log.info),)


class ColibriText:
    """What the video shall show."""

    CATEGORY = "Colibri"
    FUNCTION = "encode"
    RETURN_TYPES = ("COLIBRI_TEXT",)
    RETURN_NAMES = ("text",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        lines = {"multiline": True, "default": ""}
        return {
            "required": {"model": ("COLIBRI_MODEL",), "prompt": ("STRING", lines)},
            "optional": {
                "negative_prompt": ("STRING", lines),
                "recap": (["auto", "rules", "off"],),
            },
        }

    def encode(
        self, model: Session, prompt: str, negative_prompt: str = "", recap: str = "auto"
    ) -> tuple[tuple[Text, str]]:
        """The text encoder is gone again afterwards."""
        text = Text(prompt=prompt, negative_prompt=negative_prompt or None)
        model.encode(text, recap=recap)
        return ((text, recap),)


class ColibriSampler:
    """Latents of one video; with an image, a video that begins with it."""

    CATEGORY = "Colibri"
    FUNCTION = "sample"
    RETURN_TYPES = ("COLIBRI_LATENTS",)
    RETURN_NAMES = ("latents",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        def whole(most: int) -> tuple[Any, ...]:
            return ("INT", {"default": 0, "min": 0, "max": most, "tooltip": f"0: {OWN}"})

        return {
            "required": {
                "model": ("COLIBRI_MODEL",),
                "text": ("COLIBRI_TEXT",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1}),
            },
            "optional": {
                "image": ("IMAGE",),
                "steps": whole(1000),
                "width": whole(8192),
                "height": whole(8192),
                "frames": whole(10_000),
                "guidance": ("FLOAT", {"default": -1.0, "min": -1.0, "max": 30.0, "step": 0.1}),
                "sampler": ([OWN, "unipc", "euler", "lcm"],),
            },
        }

    def sample(
        self,
        model: Session,
        text: tuple[Text, str],
        seed: int,
        image: torch.Tensor | None = None,
        steps: int = 0,
        width: int = 0,
        height: int = 0,
        frames: int = 0,
        guidance: float = -1.0,
        sampler: str = OWN,
    ) -> tuple[Sampled]:
        """Zeros, and a guidance below 0, leave a setting to the model."""
        words, recap = text
        default = model.source.family.defaults
        look = LookConfig(
            steps=steps or None,
            size=(height or default.height, width or default.width),
            frames=frames or None,
            guidance=None if guidance < 0 else guidance,
            sampler=None if sampler == OWN else sampler,
            recap=recap,
        )
        first = None if image is None else _uint8(image[0])
        return (model.sample(words, look, seed=seed, image=first, on_step=_progress()),)


class ColibriDecode:
    """Frames of latents, as ComfyUI's images, and their rate."""

    CATEGORY = "Colibri"
    FUNCTION = "decode"
    RETURN_TYPES = ("IMAGE", "FLOAT", "COLIBRI_VIDEO")
    RETURN_NAMES = ("images", "fps", "video")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        return {"required": {"model": ("COLIBRI_MODEL",), "latents": ("COLIBRI_LATENTS",)}}

    def decode(self, model: Session, latents: Sampled) -> tuple[torch.Tensor, float, Decoded]:
        """Images (frames, height, width, 3) in [0, 1]."""
        video = model.decode(latents)
        images = torch.from_numpy(video.frames.astype(np.float32) / 255)
        return images, float(video.recipe.fps), video


class ColibriSave:
    """An MP4 with its recipe inside, as `infer t2v` writes it."""

    CATEGORY = "Colibri"
    FUNCTION = "save"
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("file",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        folder = ("STRING", {"default": "colibri"})
        return {"required": {"video": ("COLIBRI_VIDEO",), "folder": folder}}

    def save(self, video: Decoded, folder: str) -> dict[str, Any]:
        """A relative folder is one of ComfyUI's output folder."""
        file = str(save(video, _outputs() / folder))
        return {"ui": {"text": [file]}, "result": (file,)}


def _uint8(image_HWC: torch.Tensor) -> np.ndarray:
    """A picture of ComfyUI, in [0, 1], as Colibri's; what is beside red, green, blue goes."""
    scaled = (image_HWC[..., :3].float() * 255).round().clamp(0, 255)
    return scaled.to(torch.uint8).cpu().numpy()


def _progress() -> Callable[[Any], None] | None:
    """ComfyUI's bar, where this runs in ComfyUI."""
    try:
        from comfy.utils import ProgressBar
    except ImportError:
        return None
    bars: list[Any] = []

    def on_step(step: Any) -> None:
        if not bars:
            bars.append(ProgressBar(step.steps))
        bars[0].update(1)

    return on_step


def _outputs() -> Path:
    """ComfyUI's output folder; the working folder elsewhere."""
    try:
        import folder_paths
    except ImportError:
        return Path()
    return Path(folder_paths.get_output_directory())


NODE_CLASS_MAPPINGS: dict[str, type] = {
    one.__name__: one
    for one in (ColibriLoader, ColibriText, ColibriSampler, ColibriDecode, ColibriSave)
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "ColibriLoader": "Colibri: model",
    "ColibriText": "Colibri: text",
    "ColibriSampler": "Colibri: sampler",
    "ColibriDecode": "Colibri: decode",
    "ColibriSave": "Colibri: save video",
}
