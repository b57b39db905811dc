"""Model families as data: sizes, defaults and configs of Wan models. Needs no torch.

Configs are diffusers' and transformers' own, as dicts. `colibri.core.wan` loads, builds and saves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from colibri.core.errors import UserError
from colibri.core.geometry import Codec, LatentShape, VideoShape

if TYPE_CHECKING:
    from colibri.core.wan.decoder import LatentStats


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """How a model is run when nothing else is said."""

    sampler: str = "unipc"
    steps: int = 50
    guidance: float = 5.0
    """Standard CFG, u + w (c - u); 1 is without CFG."""
    shift: float = 5.0
    frames: int = 121
    height: int = 704
    width: int = 1280
    fps: int = 24
    text_tokens: int = 512
    """Tokens that a prompt is padded or cut to; diffusers calls it max_sequence_length."""
    negative_prompt: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Causal:
    """How a causal student cuts a clip and what a block sees; all in latent frames."""

    first_block: int = 1
    """Frames of the first block; 1 lets a given image be it."""
    block: int = 3
    """Frames of every later block."""
    sink: int = 0
    """First frames of the clip that every block sees, however far away."""
    window: int | None = None
    """Latest frames that a block sees, its own among them and the sink's not; None: all."""
    past: Literal["clean", "last_step"] = "clean"
    """How later blocks see a finished one. clean: without noise, which takes one more pass a block
    (Self-Forcing). last_step: as it went into its last step, whose pass leaves it in the cache."""

    def __post_init__(self) -> None:
        if self.first_block < 1 or self.block < 1 or self.sink < 0:
            raise UserError(
                f"causal blocks of {self.first_block} and {self.block} frames with a sink of "
                f"{self.sink} are not possible",
                hint="first_block and block have to be 1 or more, sink 0 or more",
            )
        if self.window is not None and self.window < max(self.first_block, self.block):
            raise UserError(
                f"a causal window of {self.window} frames does not hold a block of "
                f"{max(self.first_block, self.block)}",
                hint="the window includes the block itself",
            )

    def blocks(self, frames: int) -> tuple[tuple[int, int], ...]:
        """(start, end) of each block of a clip. UserError where `frames` ends inside a block."""
        rest = frames - self.first_block
        if rest < 0 or rest % self.block:
            lower = self.first_block + max(rest, 0) // self.block * self.block
            raise UserError(
                f"{frames} latent frames do not end with a causal block ({self.first_block}, then "
                f"{self.block} each)",
                hint=f"use {lower} or {lower + self.block}",
            )
        starts = [0, *range(self.first_block, frames, self.block)]
        return tuple(zip(starts, [*starts[1:], frames], strict=True))

    def seen(self, start: int, end: int) -> tuple[int, ...]:
        """Frames that the block of frames `start` to `end` (without) sees, in order.

        Their places in this tuple are their positions in time.
        """
        oldest = 0 if self.window is None else end - self.window
        if oldest <= self.sink:
            return tuple(range(end))
        return (*range(self.sink), *range(oldest, end))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFamily:
    """One form of Wan model and how it is run."""

    name: str
    repo: str | None = None
    """Hub id of the diffusers folder."""
    expand_timesteps: bool
    """True for TI2V: image to video by a clean first latent frame at timestep 0."""
    transformer: Mapping[str, Any]
    """Config of `WanTransformer3DModel`."""
    vae: Mapping[str, Any]
    """Config of `AutoencoderKLWan`."""
    text_encoder: Mapping[str, Any]
    """Config of `UMT5EncoderModel`."""
    defaults: Defaults
    sizes: tuple[tuple[int, int], ...] = ()
    """Sizes it was trained for, (height, width): what `geometry.swapped_size_hint` knows."""
    causal: Causal | None = None
    """Of a student that makes a video block after block."""

    @property
    def codec(self) -> Codec:
        """Frames a latent, pixels a latent, latent channels."""
        return codec_of(self.vae)

    @property
    def patch(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns in a token."""
        return cast(tuple[int, int, int], tuple(self.transformer["patch_size"]))

    @property
    def stats(self) -> "LatentStats":
        """Latent means and stds, from the VAE's config."""
        from colibri.core.wan.decoder import LatentStats

        return LatentStats.of(self.vae)

    @property
    def video(self) -> VideoShape:
        """The default video."""
        default = self.defaults
        return VideoShape(frames=default.frames, height=default.height, width=default.width)

    def latent_shape(self, video: VideoShape) -> LatentShape:
        """Latents of `video`; UserError names the size that codec and patch cannot divide."""
        return LatentShape.of(video, self.codec, self.patch)

    def tokens(self, video: VideoShape) -> int:
        """Transformer tokens of `video`."""
        return self.latent_shape(video).tokens(self.patch)


def codec_of(vae: Mapping[str, Any]) -> Codec:
    """The codec of an `AutoencoderKLWan` config; what it leaves out is as in Wan2.1."""
    return Codec(
        time=vae.get("scale_factor_temporal", 4),
        space=vae.get("scale_factor_spatial", 8),
        channels=vae.get("z_dim", 16),
    )


# ---- the released families ----
# Transformer and VAE configs and flow shifts: huggingface/diffusers
# scripts/convert_wan_to_diffusers.py@7d56827. Steps, guidance, frames, fps and size: Wan-Video
# wan/configs (wan_ti2v_5B.py; shared_config.py) and diffusers' WanPipeline defaults.

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""Wan's own: wan/configs/shared_config.py, sample_neg_prompt."""

UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
"""google/umt5-xxl, the encoder of every Wan model."""

# Latent statistics, as in the released vae/config.json: Wan-Video/Wan2.2 wan/modules/vae2_2.py and
# the defaults of diffusers' AutoencoderKLWan (Wan2.1).
# fmt: off
WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542,
    0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109,
    0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899,
    -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344,
    0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804,
    0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999,
    0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
WAN21_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715,
    0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
WAN21_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526,
    2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on

_WAN_TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "attention_head_dim": 128,
    "num_layers": 30,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
}

WAN22_TI2V_5B = ModelFamily(
    name="wan2.2-ti2v-5b",
    repo="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    expand_timesteps=True,
    transformer=_WAN_TRANSFORMER
    | {"num_attention_heads": 24, "in_channels": 48, "out_channels": 48, "ffn_dim": 14336},
    vae={
        "base_dim": 160,
        "decoder_base_dim": 256,
        "z_dim": 48,
        "dim_mult": (1, 2, 4, 4),
        "num_res_blocks": 2,
        "attn_scales": (),
        "temperal_downsample": (False, True, True),
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_temporal": 4,
        "scale_factor_spatial": 16,
        "latents_mean": WAN22_MEAN,
        "latents_std": WAN22_STD,
    },
    text_encoder=UMT5_XXL,
    defaults=Defaults(negative_prompt=NEGATIVE_PROMPT),
    sizes=((704, 1280),),
)

WAN21_T2V_1_3B = ModelFamily(
    name="wan2.1-t2v-1.3b",
    repo="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    expand_timesteps=False,
    transformer=_WAN_TRANSFORMER
    | {"num_attention_heads": 12, "in_channels": 16, "out_channels": 16, "ffn_dim": 8960},
    vae={
        "base_dim": 96,
        "z_dim": 16,
        "dim_mult": (1, 2, 4, 4),
        "num_res_blocks": 2,
        "attn_scales": (),
        "temperal_downsample": (False, True, True),
        "scale_factor_temporal": 4,
        "scale_factor_spatial": 8,
        "latents_mean": WAN21_MEAN,
        "latents_std": WAN21_STD,
    },
    text_encoder=UMT5_XXL,
    defaults=Defaults(
        shift=3.0, frames=81, height=480, width=832, fps=16, negative_prompt=NEGATIVE_PROMPT
    ),
    sizes=((480, 832),),
)

# ---- the tiny pair: the same two forms, small enough to train on two cores ----

_TINY_TRANSFORMER = _WAN_TRANSFORMER | {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 4,
    "ffn_dim": 512,
    "text_dim": 64,
}
_TINY_TEXT_ENCODER = UMT5_XXL | {
    "vocab_size": 256,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
}
_TINY_VAE = {
    "z_dim": 16,
    "num_res_blocks": 1,
    "attn_scales": (),
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 8,
    "latents_mean": (0.0,) * 16,
    "latents_std": (1.0,) * 16,
}
_TINY_DEFAULTS = Defaults(
    shift=3.0, frames=17, height=64, width=64, fps=8, guidance=5.0, text_tokens=64
)

TINY_TI2V = ModelFamily(
    name="tiny-ti2v",
    expand_timesteps=True,
    transformer=_TINY_TRANSFORMER,
    # Two halvings in space and the patch make 8; residual blocks need equal last widths.
    vae=_TINY_VAE
    | {
        "base_dim": 16,
        "decoder_base_dim": 32,
        "dim_mult": (1, 2, 2),
        "temperal_downsample": (True, True),
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
    },
    text_encoder=_TINY_TEXT_ENCODER,
    defaults=_TINY_DEFAULTS,
    sizes=((64, 64),),
)

TINY_T2V = ModelFamily(
    name="tiny-t2v",
    expand_timesteps=False,
    transformer=_TINY_TRANSFORMER,
    vae=_TINY_VAE
    | {"base_dim": 16, "dim_mult": (1, 2, 4, 4), "temperal_downsample": (False, True, True)},
    text_encoder=_TINY_TEXT_ENCODER,
    defaults=_TINY_DEFAULTS,
    sizes=((64, 64),),
)

FAMILIES = {family.name: family for family in (WAN22_TI2V_5B, WAN21_T2V_1_3B, TINY_TI2V, TINY_T2V)}
