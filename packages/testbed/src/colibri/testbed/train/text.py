"""The tiny text side: a tokenizer learnt from captions and a two-layer UMT5 encoder."""

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from colibri.testbed import captions
from colibri.testbed.train.bank import bank_scene
from colibri.testbed.world import Scene

LENGTH = 512
"""Tokens that a Wan pipeline pads every prompt to."""

_BRIEF = (captions.terse, captions.terse, captions.terse, captions.plain, captions.short)
_WORDY = (captions.long, captions.camera_heavy, captions.first_person)


def batch_captions(scenes: Sequence[Scene], rng: np.random.Generator) -> list[str]:
    """One caption a scene; an eighth of the batches are wordy, so that most stay cheap."""
    styles = _WORDY if rng.random() < 0.125 else _BRIEF
    return [styles[int(rng.integers(len(styles)))](scene, rng) for scene in scenes]


def tiny_tokenizer(seed: int = 0, *, scenes: int = 1500) -> PreTrainedTokenizerFast:
    """Lower-case words and word pieces, 768 at most, learnt from captions of every style."""
    rng = np.random.default_rng([seed, 11])
    texts = [
        style(bank_scene(seed, index), rng)
        for index in range(scenes)
        for style in (captions.terse, captions.plain, captions.short, *_WORDY)
    ]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=768,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789.,'-"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=LENGTH,
    )


def tiny_text_encoder() -> UMT5EncoderModel:
    """0.4 M parameters, width 128."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=768,
            d_model=128,
            d_kv=32,
            num_heads=4,
            d_ff=256,
            num_layers=2,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def embed(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel
) -> tuple[Tensor, Tensor]:
    """Embeddings (B, L, D) and a bias (B, 1, 1, L) on attention logits.

    A Wan pipeline pads embeddings with zeros to 512 tokens and attends to all of them. Attention
    over n equal tokens is attention over one whose logit is raised by log n: the same result from
    far fewer tokens.
    """
    tokens = tokenizer(
        list(texts), padding=True, truncation=True, max_length=LENGTH - 1, return_tensors="pt"
    )
    mask = tokens.attention_mask
    known = encoder(tokens.input_ids, mask).last_hidden_state * mask[..., None]
    one_more = torch.cat([known, known.new_zeros(len(known), 1, known.shape[2])], 1)
    real = torch.cat([mask, mask.new_zeros(len(mask), 1)], 1).bool()
    padded = LENGTH - mask.sum(1, keepdim=True)
    here = real.shape[1] - mask.sum(1, keepdim=True)
    bias = torch.where(real, 0.0, torch.log(padded / here))
    return one_more, bias[:, None, None]
