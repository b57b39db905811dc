"""One row of modulation a latent frame instead of one a token, for transformers of the TI2V form.

There all tokens of a frame have one timestep, and a row a token in float32 is the largest thing
that a pass holds. The same numbers up to the rounding of smaller products.
"""

# B batch  T latent frames  N tokens of a frame  S = T * N  D width

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor


def set_frame_rows(model: Any, on: bool) -> None:
    """Let a `WanTransformer3DModel` keep a row a frame, or not. A pass with one timestep for all
    tokens is as before."""
    if found := model.__dict__.pop("_frame_rows", None):
        found.remove()
    tokens_a_frame = [1]
    changed: list[tuple[Any, Callable[..., Any]]] = [(block, _block) for block in model.blocks]
    for module, forward in (*changed, (model.condition_embedder, _embedder)):
        module.__dict__.pop("forward", None)
        if on:
            module.forward = functools.partial(forward, module, module.forward, tokens_a_frame)
    if not on:
        return

    def note(module: Any, args: Any, given: dict[str, Any]) -> None:
        x_BCTHW = given["hidden_states"]
        _, rows, columns = module.config.patch_size
        tokens_a_frame[0] = (x_BCTHW.shape[3] // rows) * (x_BCTHW.shape[4] // columns)

    model.__dict__["_frame_rows"] = model.register_forward_pre_hook(note, with_kwargs=True)


def _embedder(
    module: Any,
    whole: Any,
    tokens_a_frame: list[int],
    timestep: Tensor,
    text: Tensor,
    image: Tensor | None = None,
    timestep_seq_len: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    if timestep_seq_len is None:
        result: tuple[Tensor, Tensor, Tensor, Tensor | None] = whole(timestep, text, image)
        return result
    count = tokens_a_frame[0]
    frames = timestep_seq_len // count
    temb_BTD, rows_BTE, text, image = whole(timestep[::count], text, image, timestep_seq_len=frames)
    return temb_BTD.repeat_interleave(count, dim=1), rows_BTE, text, image


def _block(
    module: Any,
    whole: Any,
    tokens_a_frame: list[int],
    x_BSD: Tensor,
    text_BLD: Tensor,
    rows: Tensor,
    rotary: Any,
) -> Tensor:
    """A block with rows (B, T, 6, D); with others, (B, 6, D), as it was."""
    if rows.ndim != 4:
        result: Tensor = whole(x_BSD, text_BLD, rows, rotary)
        return result
    table = module.scale_shift_table.unsqueeze(0) + rows.float()
    shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.split(1, dim=2)  # (B, T, 1, D)
    frames = (rows.shape[1], tokens_a_frame[0])

    def modulated(norm: Any, scale: Tensor, shift: Tensor) -> Tensor:
        by_frame = norm(x_BSD.float()).unflatten(1, frames)
        return (by_frame * (1 + scale) + shift).flatten(1, 2).type_as(x_BSD)

    def added(change_BSD: Tensor, gate: Tensor) -> Tensor:
        gated = change_BSD.unflatten(1, frames) * gate
        return (x_BSD.float() + gated.flatten(1, 2)).type_as(x_BSD)

    x_BSD = added(module.attn1(modulated(module.norm1, scale, shift), None, None, rotary), gate)
    normal = module.norm2(x_BSD.float()).type_as(x_BSD)
    x_BSD = x_BSD + module.attn2(normal, text_BLD, None, None)
    change = module.ffn(modulated(module.norm3, ffn_scale, ffn_shift))
    return added(change.float(), ffn_gate)
