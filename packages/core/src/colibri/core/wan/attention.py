"""Block-causal attention in a stock `WanTransformer3DModel`: swapped processors and a rotary hook.

The model hands what its rotary embedding returns to every self-attention as an argument. In a
causal pass that is a `Pass`: it says which keys are seen and at which positions. An argument, not
a setting, so a block that checkpointing computes again sees what it saw. Outside causal passes the
processors are diffusers' own.
"""

# B batch  S tokens  N heads  D head width  T latent frames

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from colibri.core.errors import UserError
from colibri.core.wan.cache import KVCache
from colibri.core.wan.family import Causal

Rotary = tuple[Tensor, Tensor]
"""Cosines and sines (1, S, 1, D) in diffusers' form: each value twice."""
KeysValues = tuple[Tensor, Tensor]


class Pass(Protocol):
    """What self-attention asks in a causal forward pass."""

    def attend(
        self, layer: int, q_BSND: Tensor, k_BSND: Tensor, v_BSND: Tensor, backend: Any
    ) -> Tensor:
        """The attention's output (B, S, N, D); queries and keys come unrotated."""


@dataclass(eq=False, kw_only=True)
class CachedPass:
    """One block after what a cache holds. Collects the block's own keys and values."""

    cache: KVCache
    rotary: Rotary
    """For the held frames and the block, positions from 0."""
    collect: bool = False
    keep_graph: bool = False
    collected: dict[int, KeysValues] = field(default_factory=dict)

    def attend(
        self, layer: int, q_BSND: Tensor, k_BSND: Tensor, v_BSND: Tensor, backend: Any
    ) -> Tensor:
        """Every key is seen: those of later frames are not there yet."""
        if self.collect:
            own = (k_BSND, v_BSND) if self.keep_graph else (k_BSND.detach(), v_BSND.detach())
            self.collected[layer] = own
        if self.cache.layers:
            keys, values = self.cache.layers[layer]
            k_BSND = torch.cat([keys.read(k_BSND), k_BSND], dim=1)
            v_BSND = torch.cat([values.read(v_BSND), v_BSND], dim=1)
        q = rotate(q_BSND, tuple(part[:, -q_BSND.shape[1] :] for part in self.rotary))  # type: ignore[arg-type]
        return _attend(q, rotate(k_BSND, self.rotary), v_BSND, backend)

    def taken(self) -> list[KeysValues]:
        """What was collected, by layer. Ends the collecting: checkpointing computes again later."""
        layers = [self.collected[layer] for layer in sorted(self.collected)]
        self.collect, self.collected = False, {}
        return layers


@dataclass(frozen=True, eq=False, kw_only=True)
class WholePass:
    """A whole clip block by block in each layer, just as a cached rollout sees it.

    No mask and no (S, S) memory: each block is one call of the attention backend. With `clean` the
    clip stands twice, first clean, then noisy; noisy blocks see the clean ones before them.
    """

    causal: Causal
    frames: int
    tokens: int
    """Of a latent frame."""
    clean: bool
    rotary: Rotary
    """For `frames` frames; positions count what is seen, so it may be more than needed."""

    def attend(
        self, layer: int, q_BSND: Tensor, k_BSND: Tensor, v_BSND: Tensor, backend: Any
    ) -> Tensor:
        """Positions are those of the frames among the seen ones."""
        outputs = []
        for half in range(2 if self.clean else 1):
            for start, end in self.causal.blocks(self.frames):
                own = slice(
                    (half * self.frames + start) * self.tokens,
                    (half * self.frames + end) * self.tokens,
                )
                past = [frame for frame in self.causal.seen(start, end) if frame < start]
                k, v = (
                    torch.cat([_of(x, past, self.tokens), x[:, own]], 1) for x in (k_BSND, v_BSND)
                )
                rotary = tuple(part[:, : k.shape[1]] for part in self.rotary)
                last = tuple(part[:, -(end - start) * self.tokens :] for part in rotary)
                q = rotate(q_BSND[:, own], last)  # type: ignore[arg-type]
                outputs.append(_attend(q, rotate(k, rotary), v, backend))  # type: ignore[arg-type]
        return torch.cat(outputs, dim=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskedPass:
    """A whole clip under one dense mask: the definition, for comparison and for short clips.

    Positions are those in the clip, so it equals a cached rollout until a frame behind a sink is
    evicted.
    """

    mask_SS: Tensor
    """True where the row's token sees the column's."""
    rotary: Rotary

    def attend(
        self, layer: int, q_BSND: Tensor, k_BSND: Tensor, v_BSND: Tensor, backend: Any
    ) -> Tensor:
        """By PyTorch's own attention: few backends take a mask."""
        return _attend(
            rotate(q_BSND, self.rotary),
            rotate(k_BSND, self.rotary),
            v_BSND,
            "native",
            mask=self.mask_SS,
        )


class Prompt:
    """A text whose cross-attention keys and values are computed once, for many passes.

    Without gradients only, and of one state of the weights: make a new one after an update.
    """

    def __init__(self, text_BLD: Tensor, layers: Sequence[KeysValues]) -> None:
        self.text_BLD = text_BLD
        self.layers = tuple(layers)

    @classmethod
    @torch.no_grad()
    def of(cls, model: Any, text_BLD: Tensor) -> "Prompt":
        """Of embeddings (B, L, D) by the model's own projections."""
        text = text_BLD.to(model.device, model.dtype)
        hidden = model.condition_embedder.text_embedder(text)
        layers = []
        for block in model.blocks:
            _, keys, values = project(block.attn2, None, hidden)
            layers.append((keys, values))
        return cls(text_BLD, layers)


class CausalAttention(WanAttnProcessor):
    """Self-attention that follows a `Pass` where it is given one."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        if rotary_emb is None or isinstance(rotary_emb, tuple):
            return super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
        q, k, v = project(attn, hidden_states, hidden_states)
        return project_out(attn, self._attend(rotary_emb, q, k, v), q)

    @torch.compiler.disable
    def _attend(self, one: Pass, q_BSND: Tensor, k_BSND: Tensor, v_BSND: Tensor) -> Tensor:
        """Beside a compiled block: what is seen differs by layer and by block."""
        return one.attend(self.layer, q_BSND, k_BSND, v_BSND, self._attention_backend)


class PromptAttention(WanAttnProcessor):
    """Cross-attention that takes a `Prompt`'s keys and values where there is one."""

    def __init__(self, layer: int, passes: "Passes") -> None:
        super().__init__()
        self.layer = layer
        self.passes = passes

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        prompt = self.passes.prompt
        if prompt is None or torch.is_grad_enabled():
            return super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
        q, _, _ = project(attn, hidden_states, None)
        return project_out(attn, self._attend(prompt, q), q)

    @torch.compiler.disable
    def _attend(self, prompt: Prompt, q_BSND: Tensor) -> Tensor:
        """Beside a compiled block: keys and values are the layer's own."""
        k_BSND, v_BSND = prompt.layers[self.layer]
        return _attend(q_BSND, k_BSND, v_BSND, self._attention_backend)


class Passes:
    """The hook on a model's rotary embedding: what the next forward pass is."""

    def __init__(self) -> None:
        self.current: Pass | None = None
        self.prompt: Prompt | None = None

    def __call__(self, module: nn.Module, inputs: Any, output: Rotary) -> Any:
        """A forward hook: None keeps the module's own output."""
        return self.current

    @contextlib.contextmanager
    def using(self, one: Pass, prompt: Prompt | None) -> Iterator[None]:
        """Inside, the model's forward passes are of this form."""
        before = (self.current, self.prompt)
        self.current, self.prompt = one, prompt
        try:
            yield
        finally:
            self.current, self.prompt = before


def make_causal(model: Any) -> Passes:
    """Give a `WanTransformer3DModel` causal processors, once; its other passes stay as they were.

    Weights, their names and saved files do not change. UserError for a model with image input or
    with patches of several latent frames.
    """
    for hook in model.rope._forward_hooks.values():
        if isinstance(hook, Passes):
            return hook
    if model.blocks[0].attn2.add_k_proj is not None:
        raise UserError("a Wan model with an image encoder's input cannot be made causal")
    if model.config.patch_size[0] != 1:
        raise UserError("a causal model needs patches of one latent frame")
    passes = Passes()
    for layer, block in enumerate(model.blocks):
        for attn, own in (
            (block.attn1, CausalAttention(layer)),
            (block.attn2, PromptAttention(layer, passes)),
        ):
            own._attention_backend = attn.processor._attention_backend
            attn.set_processor(own)
    model.rope.register_forward_hook(passes)
    return passes


def rotate(x_BSND: Tensor, rotary: Rotary) -> Tensor:
    """Rotary embedding as diffusers' WanAttnProcessor applies it: pairs of neighbours."""
    cos, sin = rotary[0][..., 0::2], rotary[1][..., 1::2]
    one, two = x_BSND.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([one * cos - two * sin, one * sin + two * cos], dim=-1)
    return turned.flatten(-2).type_as(x_BSND)


def dense_mask(causal: Causal, frames: int, tokens: int, *, clean: bool = False) -> Tensor:
    """(S, S), True where the row's token sees the column's. `clean` as in `WholePass`."""
    sees_TT = torch.zeros(frames, frames, dtype=torch.bool)
    own_TT = torch.zeros(frames, frames, dtype=torch.bool)
    for start, end in causal.blocks(frames):
        sees_TT[start:end, list(causal.seen(start, end))] = True
        own_TT[start:end, start:end] = True
    if clean:
        nothing = torch.zeros_like(sees_TT)
        sees_TT = torch.cat(
            [
                torch.cat([sees_TT, nothing], dim=1),
                torch.cat([sees_TT & ~own_TT, own_TT], dim=1),
            ]
        )
    return sees_TT.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)


def _of(x_BSND: Tensor, frames: Sequence[int], tokens: int) -> Tensor:
    """Tokens of these frames: at most two stretches, the sink and the window."""
    stretches = []
    first = 0
    for index in range(1, len(frames) + 1):
        if index == len(frames) or frames[index] != frames[index - 1] + 1:
            stretches.append(x_BSND[:, frames[first] * tokens : (frames[index - 1] + 1) * tokens])
            first = index
    return torch.cat(stretches, dim=1) if stretches else x_BSND[:, :0]


def project(attn: Any, x: Tensor | None, source: Tensor | None) -> tuple[Any, Any, Any]:
    """Queries of `x`, keys and values of `source` (B, S, N, D), normalised; None where none."""
    q = k = v = None
    if getattr(attn, "fused_projections", False):
        if not attn.is_cross_attention:
            q, k, v = attn.to_qkv(x).chunk(3, dim=-1)
        else:
            q = None if x is None else attn.to_q(x)
            k, v = (None, None) if source is None else attn.to_kv(source).chunk(2, dim=-1)
    else:
        q = None if x is None else attn.to_q(x)
        k, v = (None, None) if source is None else (attn.to_k(source), attn.to_v(source))
    q = None if q is None else attn.norm_q(q).unflatten(2, (attn.heads, -1))
    if k is not None and v is not None:
        k = attn.norm_k(k).unflatten(2, (attn.heads, -1))
        v = v.unflatten(2, (attn.heads, -1))
    return q, k, v


def _attend(
    q_BSND: Tensor, k_BSND: Tensor, v_BSND: Tensor, backend: Any, mask: Tensor | None = None
) -> Tensor:
    out: Tensor = dispatch_attention_fn(q_BSND, k_BSND, v_BSND, attn_mask=mask, backend=backend)
    return out


def project_out(attn: Any, out_BSND: Tensor, q: Tensor) -> Tensor:
    out: Tensor = attn.to_out[1](attn.to_out[0](out_BSND.flatten(2, 3).type_as(q)))
    return out
