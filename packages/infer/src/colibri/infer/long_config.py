"""What `infer long` can be told. A model's causal form and schedule stand in its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from colibri.core.config import Names, Size
from colibri.infer.config import DType, Flag

Store = Literal["same", "int8", "fp8"]
Switch = Literal["recache", "keep"]


@dataclass(frozen=True, kw_only=True)
class LongConfig:
    """A video of any length by a causal student, block after block."""

    prompt: str | None = None
    """What the video shows."""
    prompts_at: Path | None = None
    """What it shows when: a text file with a line a prompt, `0s: ...`, `12.5s: ...`, `1:30: ...`
    (# begins a remark)."""
    seconds: float = 10.0
    """Length; the last block is made whole."""
    image: Path | None = None
    """The first frame, for models whose first block is one latent frame."""
    seed: int = 0
    """Of the video."""
    out: Path = Path("out/videos")
    """Folder of the video, or its file, ending in .mp4. While it is made NAME.growing.mp4 can be
    played."""
    model: str | None = None
    """A diffusers folder or hub id of a causal student. Without it: the embedded tiny one."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    size: Size | None = None
    """Width x height. Without it: the model's own."""
    fps: int | None = None
    """Frames a second. Without it: the model's own."""
    switch: Switch = "recache"
    """At a new prompt: compute the key cache again from the frames in it (follows the prompt
    sooner), or keep it."""
    window: int | None = None
    """Latest latent frames that a block sees, its own among them. Without it: as the model was
    trained."""
    sink: int | None = None
    """First latent frames of the video that every block sees. Without it: as the model was
    trained."""
    cache: Store = "same"
    """Numbers of the key cache: same as the model's, or one byte each."""
    decoder: str | None = None
    """A light decoder instead of the model's own, as for infer t2v."""
    safety: Names = ()
    """Filters of prompts and frames, as for infer t2v."""
    recap: str = "auto"
    """Rewrite prompts under the caption rules of the training first, as for infer t2v."""
    recap_model: str = "Qwen/Qwen2.5-3B-Instruct"
    """The model that a chat endpoint is asked for."""
    lora: Names = ()
    """LoRA files, PATH or PATH:SCALE, separated by commas."""
    attention: str | None = None
    """Attention backend of diffusers. Without it: flash where it is installed and can be used."""
    compile: Flag = False
    """torch.compile, block by block of the network, once for all lengths: a slower first block of
    the video, faster others."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps, ... Without it: a GPU where there is one."""
    dtype: DType | None = None
    """Of the text encoder and the transformer. Without it: bfloat16 on a GPU, float32 on a CPU."""
    vae_dtype: DType = "float32"
    """Of the video decoder and encoder."""
    save_every_s: float = 60.0
    """Seconds of work between saves of the key cache, which a killed run goes on from; blocks
    since then are read again, not made again."""
    keep_latents: Flag = False
    """Keep the latents in NAME.blocks once the video is written."""
    plan: Flag = False
    """Print what would be done and stop."""
