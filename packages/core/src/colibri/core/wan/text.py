"""Prompts to text embeddings, as diffusers' WanPipeline makes them."""

import functools
import html
import importlib
import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from colibri.core.errors import UserError

TEXT_TOKENS = 512
"""Length that the released Wan models were trained with (Wan-Video wan/configs/shared_config.py,
text_len)."""

log = logging.getLogger(__name__)


@torch.no_grad()
def encode_text(
    tokenizer: Any,
    encoder: Any,
    prompts: Sequence[str],
    *,
    max_tokens: int = TEXT_TOKENS,
) -> Tensor:
    """Embeddings (B, max_tokens, width) in the encoder's dtype, zero after each prompt's end.

    A longer prompt is cut, which is said once a prompt.
    """
    if not prompts:
        raise UserError("there is no prompt to encode")
    texts = [clean_prompt(prompt) for prompt in prompts]
    tokens = tokenizer(
        texts,
        padding="max_length",
        max_length=max_tokens,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    lengths = tokens.attention_mask.gt(0).sum(dim=1)
    for text, length in zip(texts, lengths.tolist(), strict=True):
        if length == max_tokens and len(tokenizer(text).input_ids) > max_tokens:
            log.warning("a prompt is cut to %d tokens: %.60s...", max_tokens, text)
    mask = tokens.attention_mask.to(encoder.device)
    hidden_BLD: Tensor = encoder(tokens.input_ids.to(encoder.device), mask).last_hidden_state
    inside = torch.arange(max_tokens, device=hidden_BLD.device) < lengths[:, None].to(
        hidden_BLD.device
    )
    return torch.where(inside[..., None], hidden_BLD, 0)


def clean_prompt(text: str) -> str:
    """Mend broken Unicode (with ftfy), undo HTML entities, single spaces."""
    fix = _ftfy()
    if fix:
        text = fix(text)
    elif not text.isascii():
        _say_no_ftfy()
    text = html.unescape(html.unescape(text))
    return re.sub(r"\s+", " ", text).strip()


def word_tokenizer(words: Iterable[str]) -> Any:
    """A tokenizer with one token a word or mark, lower case, for the tiny models' small language.

    Ids as UMT5 has them: `<pad>` 0, `</s>` 1 at the end of each text, `<unk>` 2, then `words` in
    their order.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([*special, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_TOKENS,
    )


@functools.cache
def _ftfy() -> Any:
    try:
        return importlib.import_module("ftfy").fix_text
    except ImportError:
        return None


@functools.cache
def _say_no_ftfy() -> None:
    log.warning("ftfy is not installed: broken Unicode in a prompt reaches the model as it is")
