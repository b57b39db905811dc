"""What `infer` can be told. A model's defaults (steps, size, ...) stand in its folder, not here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from colibri.core.config import Names, Size

DType = Literal["float32", "bfloat16", "float16"]
Scheme = Literal["int8", "int8-dynamic", "fp8", "int4"]
DecodeMode = Literal["auto", "whole", "chunks", "tiles", "cpu"]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """Where the model is, and what it runs on."""

    model: str | None = None
    """A diffusers folder, a hub id, or a family's name. Without it: the embedded tiny model."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ... Without it: a GPU where there is one."""
    dtype: DType | None = None
    """Of the text encoder and the transformer. Without it: bfloat16 on a GPU, float32 on a CPU."""
    vae_dtype: DType = "float32"
    """Of the video decoder and encoder."""
    vram: str | None = None
    """Memory that may be used, in GB (16, 12, 8, 6, ...), or auto: what is free. A plan is made
    from it and printed before anything loads. Without it: auto on a GPU, no plan on a CPU."""
    decode: DecodeMode = "auto"
    """How latents become frames. auto: whole at first; out of memory it steps down to chunks (the
    same frames), tiles (nearly the same), and the CPU."""


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """How videos are sampled. A setting without a value is as the model folder says."""

    negative_prompt: str | None = None
    """What it shall not show; for guidance other than 1. Without it: the model's own."""
    steps: int | None = None
    """Sampling steps. Without it: as the model folder says."""
    sampler: str | None = None
    """unipc, euler, or lcm (also called consistency) for few-step students. Without it: as the
    model folder says."""
    shift: float | None = None
    """Shift of the noise schedule. Without it: as the model folder says."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is without and costs half. Without it: as the model folder
    says."""
    size: Size | None = None
    """Width x height. Without it: the model's own."""
    frames: int | None = None
    """Frames of the video. Without it: the model's own."""
    fps: int | None = None
    """Frames a second. Without it: the model's own."""
    recap: str = "auto"
    """Rewrite the prompt under the caption rules of the training first. auto: by the embedded rule
    engine for students and the tiny model, where a rule is broken; off; rules; a language model
    (hub id or folder); or a chat endpoint (http://...)."""
    recap_model: str = "Qwen/Qwen2.5-3B-Instruct"
    """The model that a chat endpoint is asked for."""
    lora: Names = ()
    """LoRA files, PATH or PATH:SCALE, separated by commas."""
    attention: str | None = None
    """Attention backend of diffusers: native, flash, sage, _native_cudnn, aiter_fa2_hub, ...
    Without it: flash where flash-attn is installed and can be used, else PyTorch's own."""
    compile: Flag = False
    """torch.compile, block by block: slower first step, faster others."""


@dataclass(frozen=True, kw_only=True)
class WantedConfig:
    """What is to be made, and where it goes."""

    prompt: str | None = None
    """What the video shows."""
    prompts_file: Path | None = None
    """Many: a text file with a prompt a line (# begins a comment), or .jsonl with objects of
    prompt and, as wanted, negative_prompt, seed and image."""
    seed: int = 0
    """Of the first video; each further one of a prompt has the next seed."""
    num_videos: int = 1
    """Videos of each prompt."""
    out: Path = Path("out/videos")
    """Folder of the videos, or a file that ends in .mp4 where there is one video."""
    preview: int = 0
    """Every so many steps show the video so far: a rough picture, NAME.preview.png beside the
    video until that is there. 0: never."""
    keep_latents: Flag = False
    """Keep the latents once the video is written."""
    plan: Flag = False
    """Print what would be done and stop."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What turns latents into frames."""

    decoder: str | None = None
    """A light decoder instead of the model's own: a folder (from `vae train`, of the Turbo-VAED
    family, with TAEHV's file) or a hub id. Without it, or own: the model's own."""


@dataclass(frozen=True, kw_only=True)
class AfterConfig:
    """What is done with decoded frames."""

    interpolate: Names = ()
    """Put a frame between each two and double the frames a second: blend, or MODULE:NAME of your
    own; named twice, separated by a comma, twice."""
    upscale: Names = ()
    """Enlarge the frames: lanczos doubles them, or MODULE:NAME of your own."""


@dataclass(frozen=True, kw_only=True)
class SafetyConfig:
    """What is refused."""

    safety: Names = ()
    """Filters of prompts and frames: words:FILE refuses prompts with one of its words, MODULE:NAME
    is your own. Without it: none."""


# Fields of the last base come first, in --help too.
@dataclass(frozen=True, kw_only=True)
class RenderConfig(
    MachineConfig, SafetyConfig, AfterConfig, DecoderConfig, LookConfig, WantedConfig
):
    """Prompts in, videos out."""


@dataclass(frozen=True, kw_only=True)
class T2vConfig(RenderConfig):
    """Text to video."""


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The first frame."""

    image: Path | None = None
    """The first frame; scaled and cropped at its centre where its size is another."""


@dataclass(frozen=True, kw_only=True)
class I2vConfig(RenderConfig, ImageConfig):
    """Image and text to video."""


@dataclass(frozen=True, kw_only=True)
class PageConfig:
    """Where the page is, and where its videos go."""

    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1: this machine alone; 0.0.0.0: whoever can reach it."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    out: Path = Path("out/videos")
    """Folder of the videos; those that are there are the page's history."""
    preview: int = 1
    """Every so many steps show the video so far. 0: never."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig(MachineConfig, SafetyConfig, AfterConfig, DecoderConfig, LookConfig, PageConfig):
    """A page in the browser; prompt, image, seed and steps are asked there."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig(AfterConfig):
    """Finish a render from its latents. What is not given is as its recipe says."""

    model: str | None = None
    """Where the model is now. Without it: where the recipe says."""
    revision: str | None = None
    """Branch, tag or commit of a hub id. Without it: as the recipe says."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ... Without it: a GPU where there is one."""
    vae_dtype: DType | None = None
    """Of the video decoder. Without it: as the recipe says."""
    decode: DecodeMode = "auto"
    """How latents become frames. auto: whole at first; out of memory it steps down to chunks (the
    same frames), tiles (nearly the same), and the CPU."""
    decoder: str | None = None
    """A light decoder's folder or hub id; own: the model's own. Without it: as the recipe says."""

    out: Path | None = None
    """The video's file, ending in .mp4. Without it: beside the latents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """Weights of another layout into a model folder."""

    out: Path | None = None
    """The model folder; one that is there is replaced."""
    base: str | None = None
    """Model that brings what one file lacks: text encoder, tokenizer, VAE; that a LoRA is for."""
    form: Literal["hummingbird-xt", "fastwan", "self-forcing", "longlive"] | None = None
    """Of a released student: its steps and, where it makes videos block by block, its blocks."""
    timesteps: Names = ()
    """A student's steps before the shift, such as 1000,750,500."""
    shift: float | None = None
    """Of --timesteps; without it 1, which leaves them as they are."""
    scale: float = 1.0
    """Of a LoRA."""
    dtype: DType = "bfloat16"
    """Of the text encoder and the transformer."""
    vae_dtype: DType = "float32"
    """Of the video decoder and encoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DoctorConfig:
    """What this machine can do."""

    device: str | None = None
    """cpu, cuda, cuda:1, ... Without it: a GPU where there is one."""
    json: Flag = False
    """Print JSON."""
    save: bool = True
    """Save the device's profile, which generation uses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoConfig:
    """What a model is; with `vram` also where everything would live."""

    model: str | None = None
    """A diffusers folder, a hub id, or a family's name, of which nothing is fetched then. Without
    it: the embedded tiny model."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    vram: Names = ()
    """Plan for so much memory, in GB: 16, or several with commas."""
    scheme: Scheme | None = None
    """Plan as if `infer quantize` had made the model."""
    decoder: str | None = None
    """Describe this light decoder too, and plan with it: a folder or a hub id."""
    device: str = "cuda"
    """Plan for a GPU (it need not be here), or for a CPU."""
    dtype: DType = "bfloat16"
    """Of the text encoder and the transformer."""
    vae_dtype: DType = "float32"
    """Of the video decoder and encoder."""
    size: Size | None = None
    """Width x height. Without it: the model's own."""
    frames: int | None = None
    """Frames of the video. Without it: the model's own."""
    guidance: float | None = None
    """Classifier-free guidance. Without it: as the model folder says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayConfig:
    """Make a video's frames again."""

    model: str | None = None
    """Where the model is now. Without it: where the recipe says."""
    revision: str | None = None
    """Branch, tag or commit of a hub id. Without it: as the recipe says."""
    decoder: str | None = None
    """Where the light decoder is now. Without it: where the recipe says."""
    device: str | None = None
    """cpu, cuda, ... Without it: a GPU where there is one."""


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    """What is measured, how often, and where the figures go."""

    prompt: str = "a red circle moves left over a blue background"
    """What the video shows."""
    seed: int = 0
    """Of the video."""
    repeats: int = 3
    """Warm runs after the cold one."""
    json: Path = Path("out/bench.json")
    """Where the figures go as JSON."""


@dataclass(frozen=True, kw_only=True)
class BenchConfig(MachineConfig, DecoderConfig, LookConfig, RunsConfig):
    """One prompt, rendered again and again; nothing of the video is kept."""


@dataclass(frozen=True, kw_only=True)
class QuantizeOnlyConfig:
    """What is quantised, how, and where to."""

    scheme: Scheme = "int8"
    """int8: half of bfloat16, nearly the same frames. int8-dynamic: the same weights, activations
    rounded too, faster where the device multiplies int8. fp8: e4m3. int4: a quarter, in groups of
    64."""
    out: Path | None = None
    """Folder of the quantised model. Without it: out/FAMILY-SCHEME."""
    parts: Names = ("text_encoder", "transformer")
    """What is quantised."""
    keep_blocks: int = 1
    """Blocks at each end of the transformer that stay as they are."""
    compare: bool = True
    """Render one video with source and result, and tell how far it has moved."""
    prompt: str = "a red circle moves left over a blue background"
    """What the compared video shows."""
    seed: int = 0
    """Of the compared video."""


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig(MachineConfig, LookConfig, QuantizeOnlyConfig):
    """A model folder with few-bit weights; size, frames and steps are of the compared video."""
