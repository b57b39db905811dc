"""vLLM inside the run: engines in long-lived Ray actors, or through ray.data.llm.

An engine that dies is started again and its questions return to it; a question that ends its engine
again and again is given up.
"""

import asyncio
import base64
import io
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from colibri.core.captions.chat import Answer, Request
from colibri.core.errors import RowError, UserError
from colibri.curate.llm.batched import Batched
from colibri.curate.llm.engines import EngineConfig

log = logging.getLogger(__name__)

CRASHES = 3
"""Engine deaths after which a question is given up; from the second on it is asked alone."""


def engine_arguments(config: EngineConfig, *, on_gpu: bool) -> dict[str, Any]:
    """What vLLM is started with."""
    whole: dict[str, Any] = {}
    if not on_gpu:
        # vLLM 0.32 on a CPU dies over a seeded request whose prompt it reads in pieces.
        longest = max(8192, config.max_model_len)
        whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": longest}
    return {
        **whole,
        "revision": config.revision,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "quantization": config.quantization,
        "enforce_eager": config.eager,
        "enable_prefix_caching": True,
    }


class Engine:
    """One vLLM engine; lives in a Ray actor and answers many questions at once."""

    def __init__(self, model: str, arguments: dict[str, Any]) -> None:
        from transformers import AutoTokenizer
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._renderer: Any = AutoTokenizer.from_pretrained(model, revision=arguments["revision"])
        self._engine: Any = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **arguments))
        self._asked = 0

    async def ready(self) -> bool:
        """True once the model is loaded."""
        return True

    async def answer(self, request: Request) -> Answer | RowError:
        """One answer; RowError where vLLM refuses the question, e.g. for its length."""
        self._asked += 1
        try:
            prompt = self._prompt(request.messages)
            last = None
            async for output in self._engine.generate(prompt, _sampling(request), str(self._asked)):
                last = output
        except ValueError as error:
            return RowError("request_refused", str(error).strip()[:300])
        assert last is not None
        said = last.outputs[0]
        return Answer(
            text=said.text,
            finish="length" if said.finish_reason == "length" else "stop",
            prompt_tokens=len(last.prompt_token_ids or ()),
            output_tokens=len(said.token_ids),
        )

    def _prompt(self, messages: Sequence[Mapping[str, Any]]) -> Any:
        plain, pictures = [], []
        for message in messages:
            parts = message["content"]
            if not isinstance(parts, str):
                pictures += [_picture(part) for part in parts if part["type"] == "image_url"]
                parts = [
                    {"type": "image"} if part["type"] == "image_url" else part for part in parts
                ]
            plain.append({**message, "content": parts})
        text = self._renderer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        if not pictures:
            tokens = self._renderer(text, add_special_tokens=False)["input_ids"]
            return {"prompt_token_ids": list(tokens)}
        return {"prompt": text, "multi_modal_data": {"image": pictures}}


def _sampling(request: Request) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    form = None if request.schema is None else StructuredOutputsParams(json=dict(request.schema))
    return SamplingParams(
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        max_tokens=request.sampling.max_tokens,
        seed=request.sampling.seed,
        structured_outputs=form,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _picture(part: Mapping[str, Any]) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].split(",", 1)[1])))


class _Replica:
    """One actor and how many questions are at it."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.load = actor, 0


class VllmActors:
    """vLLM engines in Ray actors of this run, each with its GPUs; the least busy one is asked."""

    def __init__(self, model: str, config: EngineConfig) -> None:
        import ray

        self._ray: Any = ray
        self._model, self._config = model, config
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if 0 < gpus < config.tensor_parallel:
            raise UserError(
                f"an engine over {config.tensor_parallel} GPUs does not fit on {gpus}",
                hint="lower --llm.tensor-parallel",
            )
        self._on_gpu = gpus > 0
        count = config.replicas or max(1, gpus // config.tensor_parallel)
        self._replicas = [_Replica(self._start()) for _ in range(count)]
        self._restarting = asyncio.Lock()
        self._alone = asyncio.Lock()
        self._deaths_in_a_row, self._answered = 0, False

    async def answer(self, request: Request) -> Answer:
        """An engine's answer. RowError: request_refused, engine_crash, engine_failed."""
        crashes = 0
        while crashes < CRASHES:
            if crashes:
                async with self._alone:  # so that only the culprit is there when it dies again
                    answer = await self._ask(request)
            else:
                answer = await self._ask(request)
            if isinstance(answer, RowError):
                raise answer
            if answer is not None:
                self._deaths_in_a_row, self._answered = 0, True
                return answer
            crashes += 1
        raise RowError("engine_crash", f"this question ended its engine {CRASHES} times")

    async def close(self) -> None:
        """End the engines and give their GPUs back."""
        for replica in self._replicas:
            self._ray.kill(replica.actor)

    def _start(self) -> Any:
        config = self._config
        share = {"num_gpus": config.tensor_parallel} if self._on_gpu else {"num_cpus": 1}
        actor = self._ray.remote(Engine).options(max_concurrency=config.in_flight + 1, **share)
        return actor.remote(self._model, engine_arguments(config, on_gpu=self._on_gpu))

    async def _ask(self, request: Request) -> Answer | RowError | None:
        """The answer, or None when the engine died over it."""
        replica = min(self._replicas, key=lambda candidate: candidate.load)
        actor, loaded = replica.actor, False
        replica.load += 1
        try:
            await actor.ready.remote()
            loaded = True
            answer: Answer | RowError = await actor.answer.remote(request)
            return answer
        except self._ray.exceptions.RayError as error:
            if not _is_death(error):
                return RowError("engine_failed", _last_line(error))
            if not loaded and not self._answered:
                raise UserError(
                    f"vLLM does not start with {self._model}: {_last_line(error)}",
                    hint="check --model, its revision, and --llm.max-model-len against the memory",
                ) from None
            await self._restart(replica, actor, error)
            return None
        finally:
            replica.load -= 1

    async def _restart(self, replica: _Replica, dead: Any, error: Exception) -> None:
        async with self._restarting:
            if replica.actor is not dead:
                return  # another question found it first
            self._deaths_in_a_row += 1
            if self._deaths_in_a_row > 2 * CRASHES:
                raise UserError(
                    f"vLLM with {self._model} keeps dying: {_last_line(error)}",
                    hint="finished requests are kept; mend it and run the same command again",
                )
            log.warning("an engine died and is started again: %s", _last_line(error))
            self._ray.kill(dead)
            replica.actor = self._start()


def _is_death(error: BaseException) -> bool:
    import ray

    if isinstance(error, ray.exceptions.RayActorError):
        return True
    return type(getattr(error, "cause", None)).__name__ == "EngineDeadError"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


class RayDataBackend(Batched):
    """vLLM through ray.data.llm. Each turn of all rows is a pass that starts the engines anew."""

    def __init__(self, model: str, config: EngineConfig) -> None:
        super().__init__(self._pass, most=1_000_000, linger_s=1.0)
        import ray

        self._model, self._config = model, config
        self._on_gpu = ray.cluster_resources().get("GPU", 0) > 0

    async def _pass(
        self, requests: Mapping[str, Request]
    ) -> Sequence[tuple[str, Answer | RowError]]:
        return await asyncio.to_thread(self._run, requests)

    def _run(self, requests: Mapping[str, Request]) -> list[tuple[str, Answer | RowError]]:
        import ray
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        config = self._config
        resource = {"GPU": config.tensor_parallel} if self._on_gpu else {"CPU": 1}
        arguments = engine_arguments(config, on_gpu=self._on_gpu)
        arguments["distributed_executor_backend"] = "mp" if config.tensor_parallel > 1 else "uni"
        processor = build_processor(
            vLLMEngineProcessorConfig(
                model_source=self._model,
                engine_kwargs={
                    name: value for name, value in arguments.items() if value is not None
                },
                concurrency=config.replicas or 1,
                batch_size=config.batch_size,
                placement_group_config={"bundles": [resource]},
                should_continue_on_error=True,
                log_engine_metrics=False,
            ),
            preprocess=_question,
            postprocess=_reply,
        )
        items = [{"key": key, "request": _as_json(request)} for key, request in requests.items()]
        rows = processor(ray.data.from_items(items)).iter_rows()
        return [(row["key"], _read_reply(row, requests[row["key"]])) for row in rows]


def _as_json(request: Request) -> str:
    sampling: dict[str, Any] = {
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "max_tokens": request.sampling.max_tokens,
        "seed": request.sampling.seed,
    }
    if request.schema is not None:
        sampling["structured_outputs"] = {"json": dict(request.schema)}
    return json.dumps({"messages": list(request.messages), "sampling": sampling})


def _question(row: dict[str, Any]) -> dict[str, Any]:
    request = json.loads(row["request"])
    return {
        "key": row["key"],
        "messages": request["messages"],
        "sampling_params": request["sampling"],
    }


def _reply(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": row["key"],
        "text": row.get("generated_text"),
        "error": row.get("__inference_error__"),
        "prompt_tokens": row.get("num_input_tokens"),
        "output_tokens": row.get("num_generated_tokens"),
    }


def _read_reply(row: dict[str, Any], request: Request) -> Answer | RowError:
    if row["error"] or row["text"] is None:
        return RowError("engine_failed", str(row["error"] or "no text")[:300])
    tokens = int(row["output_tokens"] or 0)
    return Answer(
        text=row["text"],
        finish="length" if tokens >= request.sampling.max_tokens else "stop",
        prompt_tokens=int(row["prompt_tokens"] or 0),
        output_tokens=tokens,
    )
