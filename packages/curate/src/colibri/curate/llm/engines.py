"""The doors to a language model: chat endpoints, vLLM in Ray actors or Ray Data, transformers."""

import os
from dataclasses import dataclass
from typing import Literal

from colibri.core.captions.chat import Backend, ChatEndpoint, Patience
from colibri.core.errors import UserError

Engine = Literal["rules", "vllm", "openai", "transformers"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """One language model: where it runs and how it is asked."""

    revision: str | None = None
    """Commit, tag or branch of the model on the hub. Without it: whatever the hub calls main."""
    endpoint: str | None = None
    """openai: base URL of a chat endpoint, e.g. http://localhost:8000/v1; key in OPENAI_API_KEY."""
    temperature: float = 0.0
    """Of the first try."""
    repair_temperature: float = 0.5
    """Of repairs, which would otherwise say the same again."""
    max_tokens: int = 320
    """Longest answer, in tokens."""
    in_flight: int = 256
    """Questions asked at once."""
    timeout_s: float = 600.0
    """openai: longest wait for one answer."""
    give_up_s: float = 300.0
    """openai: the run ends when the endpoint has not answered for this long."""
    through: Literal["actors", "ray-data"] = "actors"
    """vllm: engines in long-lived Ray actors, or ray.data.llm, which starts them for each turn."""
    replicas: int | None = None
    """vllm: engines side by side. Without it: as many as the GPUs hold."""
    tensor_parallel: int = 1
    """vllm: GPUs of one engine."""
    max_model_len: int = 4096
    """vllm, transformers: longest prompt and answer together, in tokens."""
    quantization: str | None = None
    """vllm: e.g. awq, gptq, fp8. Without it: as the weights say."""
    gpu_memory_utilization: float = 0.90
    """vllm: share of each GPU's memory."""
    dtype: str = "auto"
    """Of weights and activations: auto, bfloat16, float16, float32."""
    batch_invariant: bool = False
    """vllm: answers that do not depend on what runs beside them; slower, and not on every GPU."""
    eager: bool = False
    """vllm: no graph capture; starts sooner, runs slower."""
    batch_size: int = 16
    """transformers, ray-data: rows in one batch."""


def check_engine(kind: Engine, config: EngineConfig, flag: str) -> None:
    """UserError for settings below `flag` that cannot work, before anything is loaded."""
    if kind == "openai" and not config.endpoint:
        raise UserError("the openai engine needs an address", hint=f"pass {flag}.endpoint URL")
    if kind != "openai" and config.endpoint:
        raise UserError(f"{flag}.endpoint is only for the openai engine", hint="leave it out")
    for name in ("in_flight", "max_tokens", "tensor_parallel", "batch_size"):
        if getattr(config, name) < 1:
            raise UserError(f"{flag}.{name.replace('_', '-')} has to be at least 1")
    if config.replicas is not None and config.replicas < 1:
        raise UserError(f"{flag}.replicas has to be at least 1")
    if not 0 <= config.temperature <= 2 or not 0 <= config.repair_temperature <= 2:
        raise UserError(f"{flag}.temperature lies in [0, 2]")


def open_backend(kind: Engine, model: str, config: EngineConfig) -> Backend:
    """Start or reach a model. Call it inside a Ray session and a running event loop."""
    if kind == "openai":
        assert config.endpoint is not None
        patience = Patience(give_up_s=config.give_up_s, timeout_s=config.timeout_s)
        return ChatEndpoint(config.endpoint, in_flight=config.in_flight, patience=patience)
    if kind == "transformers":
        from colibri.curate.llm.transformers_engine import TransformersBackend

        return TransformersBackend(model, config)
    if kind == "vllm":
        from colibri.curate.llm.vllm_engine import RayDataBackend, VllmActors

        if config.batch_invariant:
            os.environ["VLLM_BATCH_INVARIANT"] = "1"
        if config.through == "ray-data":
            return RayDataBackend(model, config)
        return VllmActors(model, config)
    raise UserError(f"there is no language model behind {kind!r}")


def reproducibility(kind: Engine, config: EngineConfig) -> str:
    """What may be promised of this engine's answers when they are asked for again."""
    if kind == "rules":
        return "deterministic"
    if kind == "vllm" and config.batch_invariant:
        return "batch-invariant: the same answers on the same hardware and versions"
    if kind == "transformers":
        return "seeded: the same answers on the same hardware, versions and batches"
    return "seeded, best effort: a sampling seed is sent, but batches may change an answer"
