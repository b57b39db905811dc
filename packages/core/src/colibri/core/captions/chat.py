"""Chat with a language model: a request has a key, and its answer is bound to that key.

Knows the wire format of chat endpoints and what their failures mean; knows nothing of captions.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from colibri.core.errors import RowError, UserError
from colibri.core.hashing import hash_json

Message = Mapping[str, Any]
"""{"role": ..., "content": text or a list of parts}, as chat endpoints take them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How an answer is drawn."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int | None = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One question to a model. `schema`, a JSON schema, asks for an answer of that form."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    revision: str | None = None
    schema: Mapping[str, Any] | None = None
    attempt: int = 0

    def key(self) -> str:
        """The same on every machine: hash of model, revision, prompt, sampling, attempt."""
        return hash_json(asdict(self))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model said. `finish` is stop, or length when it was cut at `max_tokens`."""

    text: str
    finish: str
    prompt_tokens: int
    output_tokens: int


class Backend(Protocol):
    """Something that answers requests, many at a time.

    `answer` raises RowError where this one request cannot be answered, UserError where none can.
    """

    async def answer(self, request: Request) -> Answer: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long failures of an endpoint are borne."""

    attempts: int = 6
    """Tries of one request while others come through; then the request itself is given up."""
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    give_up_s: float = 300.0
    """Without any answer for this long the endpoint counts as down."""
    timeout_s: float = 600.0
    """Of one request."""


class ChatEndpoint:
    """Any OpenAI-compatible chat endpoint: `vllm serve`, others. Its key comes from OPENAI_API_KEY.

    Waits out 408, 409, 429, 5xx, broken connections and answers that are no JSON, with growing
    pauses or as long as Retry-After says. 400, 413 and 422 condemn the request (`request_refused`);
    401, 403 and 404 end the run.
    """

    def __init__(self, endpoint: str, *, in_flight: int, patience: Patience | None = None) -> None:
        import openai

        self._openai = openai
        self._endpoint = endpoint
        self._patience = patience or Patience()
        self._slots = asyncio.Semaphore(in_flight)
        self._client = openai.AsyncOpenAI(
            base_url=endpoint,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            max_retries=0,
            timeout=self._patience.timeout_s,
        )
        self._last_success = time.monotonic()
        self._random = random.Random()  # spreads retries; decides no result

    async def answer(self, request: Request) -> Answer:
        """The endpoint's answer. RowError: request_refused, engine_failed."""
        async with self._slots:
            failures, began = 0, time.monotonic()
            while True:
                try:
                    answer = await self._ask(request)
                except _Trouble as trouble:
                    # Only where others come through meanwhile is the request itself to blame.
                    failures += self._last_success >= began
                    if failures >= self._patience.attempts:
                        raise RowError("engine_failed", f"{trouble}, {failures} times") from None
                    self._check_up(trouble)
                    await asyncio.sleep(self._pause(failures, trouble.wait_s))
                else:
                    self._last_success = time.monotonic()
                    return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _pause(self, failures: int, asked_s: float | None) -> float:
        patience = self._patience
        wait = min(patience.longest_wait_s, patience.first_wait_s * 2 ** max(0, failures - 1))
        return max(asked_s or 0.0, wait * self._random.uniform(0.5, 1.0))

    def _check_up(self, trouble: "_Trouble") -> None:
        if time.monotonic() - self._last_success > self._patience.give_up_s:
            silence = f"has not answered for {self._patience.give_up_s:.0f} s"
            raise UserError(
                f"{self._endpoint} {silence}: {trouble}",
                hint="finished requests are kept; run the same command again once it is up",
            )

    async def _ask(self, request: Request) -> Answer:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": list(request.messages),
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "max_tokens": request.sampling.max_tokens,
        }
        if request.sampling.seed is not None:
            body["seed"] = request.sampling.seed
        if request.schema is not None:
            form = {"name": "answer", "schema": dict(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        openai = self._openai
        try:
            response = await self._client.chat.completions.with_raw_response.create(**body)
            text = response.text
        except openai.APIStatusError as error:
            raise self._judged(error) from None
        except openai.APIConnectionError as error:  # timeouts included
            raise _Trouble(f"no answer ({error.__cause__ or error})") from None
        try:
            return _answer_of(json.loads(text))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise _Trouble(f"an answer that is no chat completion ({error!r:.120})") from None

    def _judged(self, error: Any) -> Exception:
        status: int = error.status_code
        said = str(error.message).replace("\n", " ")[:300]
        if status in (401, 403):
            return UserError(
                f"{self._endpoint} refuses the key (HTTP {status})", hint="set OPENAI_API_KEY"
            )
        if status == 404:
            return UserError(
                f"{self._endpoint} does not know this model or path (HTTP 404: {said})",
                hint="check the endpoint, which usually ends in /v1, and the model's name",
            )
        if status in (408, 409, 425, 429) or status >= 500:
            return _Trouble(f"HTTP {status}", _seconds(error.response.headers.get("retry-after")))
        return RowError("request_refused", f"HTTP {status}: {said}")


class _Trouble(Exception):
    """A failure that may pass."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


def _seconds(header: str | None) -> float | None:
    try:
        return min(600.0, float(header or ""))
    except ValueError:
        return None


def _answer_of(body: dict[str, Any]) -> Answer:
    choice = body["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise TypeError("content is no text")
    usage = body.get("usage") or {}
    return Answer(
        text=text,
        finish="length" if choice.get("finish_reason") == "length" else "stop",
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
    )
