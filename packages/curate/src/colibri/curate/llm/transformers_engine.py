"""A causal language model of the transformers library, in this process, in small batches."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from colibri.core.captions.chat import Answer, Request
from colibri.core.errors import RowError, UserError
from colibri.core.hashing import hash_text
from colibri.curate.llm.batched import Batched
from colibri.curate.llm.engines import EngineConfig


class TransformersBackend(Batched):
    """`AutoModelForCausalLM`, on a GPU where there is one.

    Text only; a schema binds it no more than the prompt does.
    """

    def __init__(self, model: str, config: EngineConfig) -> None:
        super().__init__(self._batch, most=config.batch_size)
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise UserError(
                f"the transformers engine is not installed ({error})",
                hint="pip install 'colibri-curate[transformers]'",
            ) from None
        self._torch: Any = torch
        self._longest = config.max_model_len
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                model, revision=config.revision, padding_side="left"
            )
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model, revision=config.revision, dtype=config.dtype
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"{model} cannot be loaded: {str(error).strip().splitlines()[0]}",
                hint="check --model and its revision; a gated model needs HF_TOKEN",
            ) from None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = loaded.to(device).eval()
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token

    async def _batch(
        self, requests: Mapping[str, Request]
    ) -> Sequence[tuple[str, Answer | RowError]]:
        return await asyncio.to_thread(self._generate, requests)

    def _generate(self, requests: Mapping[str, Request]) -> list[tuple[str, Answer | RowError]]:
        answers: list[tuple[str, Answer | RowError]] = []

        def alike(entry: tuple[str, Request]) -> tuple[float, float, int]:
            sampling = entry[1].sampling
            return sampling.temperature, sampling.top_p, sampling.max_tokens

        for _, group in groupby(sorted(requests.items(), key=alike), key=alike):
            answers += self._generate_alike(list(group))
        return answers

    def _generate_alike(
        self, group: list[tuple[str, Request]]
    ) -> list[tuple[str, Answer | RowError]]:
        torch, tokenizer = self._torch, self._tokenizer
        answers: list[tuple[str, Answer | RowError]] = []
        prompts, keys = [], []
        for key, request in group:
            messages = list(request.messages)
            if any(not isinstance(message["content"], str) for message in messages):
                error = "the transformers engine reads no pictures; use openai or vllm"
                answers.append((key, RowError("request_refused", error)))
                continue
            prompt = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
            if length + request.sampling.max_tokens > self._longest:
                error = f"{length} tokens and the answer do not fit into {self._longest}"
                answers.append((key, RowError("request_refused", error)))
                continue
            prompts.append(prompt)
            keys.append(key)
        if not keys:
            return answers
        sampling = group[0][1].sampling
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self._model.device)
        torch.manual_seed(int(hash_text(*keys)[:15], 16))
        choice: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            choice = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
            }
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=sampling.max_tokens,
                pad_token_id=tokenizer.pad_token_id,
                **choice,
            )
        start = inputs["input_ids"].shape[1]
        for key, mask, tokens in zip(keys, inputs["attention_mask"], output, strict=True):
            said = tokens[start:]
            ends = (said == tokenizer.eos_token_id).nonzero()
            finished = len(ends) > 0
            said = said[: int(ends[0])] if finished else said
            text = tokenizer.decode(said, skip_special_tokens=True)
            answer = Answer(
                text=text,
                finish="stop" if finished else "length",
                prompt_tokens=int(mask.sum()),
                output_tokens=len(said),
            )
            answers.append((key, answer))
        return answers
