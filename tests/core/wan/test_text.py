"""Prompts to embeddings, against diffusers."""

import logging

import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.wan import WanModel
from colibri.core.wan.text import clean_prompt, encode_text, word_tokenizer


def test_embeddings_are_those_of_the_pipeline_and_zero_after_the_end(ti2v: WanModel) -> None:
    from diffusers import WanPipeline

    pipeline = WanPipeline(
        tokenizer=ti2v.tokenizer,
        text_encoder=ti2v.text_encoder,
        vae=ti2v.vae,
        scheduler=None,
        transformer=ti2v.transformer,
    )
    prompts = ["a red circle", "", "a  red &amp; blue\n square"]
    with torch.no_grad():
        theirs, _ = pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=512
        )
    ours = encode_text(ti2v.tokenizer, ti2v.text_encoder, prompts)
    assert ours.shape == (3, 512, 64)
    assert torch.equal(ours, theirs)
    assert [row.any(dim=1).sum() for row in ours] == [4, 1, 6]  # words and the end
    assert not ours[0, 4:].any()


def test_a_long_prompt_is_cut_and_said(ti2v: WanModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encode_text(ti2v.tokenizer, ti2v.text_encoder, ["a red circle"], max_tokens=4)
        assert not caplog.records
        encode_text(ti2v.tokenizer, ti2v.text_encoder, ["a red circle moves left"], max_tokens=4)
    assert "cut to 4 tokens" in caplog.text


def test_no_prompt_is_refused(ti2v: WanModel) -> None:
    with pytest.raises(UserError, match="no prompt"):
        encode_text(ti2v.tokenizer, ti2v.text_encoder, [])


def test_prompts_are_cleaned() -> None:
    assert clean_prompt("  a\tred &amp;amp; blue\n\n circle ") == "a red & blue circle"


def test_the_word_tokenizer_has_umt5s_special_ids() -> None:
    tokenizer = word_tokenizer(["red", "circle"])
    assert tokenizer("Red circle, left").input_ids == [3, 4, 2, 2, 1]
    assert tokenizer.pad_token_id == 0
    assert tokenizer.eos_token_id == 1
