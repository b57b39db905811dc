"""A language model for recaptioning: in this process by transformers, or behind an endpoint."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from colibri.core.captions.chat import Answer, ChatEndpoint, Patience, Request
from colibri.core.errors import UserError
from colibri.infer.models import Machine

Ask = Callable[[Request], Answer]


@contextlib.contextmanager
def endpoint(url: str) -> Iterator[Ask]:
    """A chat endpoint, its key from OPENAI_API_KEY. UserError where it stays silent for 20 s."""
    try:
        import openai  # noqa: F401
    except ImportError:
        raise UserError(
            "a chat endpoint needs the openai package", hint="pip install 'colibri-infer[endpoint]'"
        ) from None
    with asyncio.Runner() as runner:
        chat = ChatEndpoint(url, in_flight=1, patience=Patience(give_up_s=20.0))
        try:
            yield lambda request: runner.run(chat.answer(request))
        finally:
            runner.run(chat.close())


@contextlib.contextmanager
def local(name: str, machine: Machine) -> Iterator[Ask]:
    """A causal language model by transformers, a folder or a hub id; gone afterwards."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        loaded: Any = AutoModelForCausalLM.from_pretrained(name, dtype=machine.dtype)
    except (OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"--recap {name} cannot be loaded: {said}",
            hint="give auto, off, rules, a folder, a hub id or http://...",
        ) from None
    model = loaded.to(machine.device).eval()

    def ask(request: Request) -> Answer:
        inputs = tokenizer.apply_chat_template(
            list(request.messages),
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        ).to(machine.device)
        choice: dict[str, Any] = {"do_sample": False}
        if request.sampling.temperature > 0:
            choice = {"do_sample": True, "temperature": request.sampling.temperature}
        if machine.device.startswith("cuda"):
            choice["cache_implementation"] = "static"  # lets transformers compile the decoding
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(request.sampling.seed or 0)
            output = model.generate(
                **inputs,
                max_new_tokens=request.sampling.max_tokens,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                **choice,
            )
        length = inputs["input_ids"].shape[1]
        said = output[0, length:]
        ended = len(said) < request.sampling.max_tokens or bool(said[-1] == tokenizer.eos_token_id)
        return Answer(
            text=tokenizer.decode(said, skip_special_tokens=True),
            finish="stop" if ended else "length",
            prompt_tokens=length,
            output_tokens=len(said),
        )

    yield ask
