"""Tokens a second of `curate`'s recaption phase against the bare engine, same model, same run.

Bare means the same requests, sent to the same engine with the same number in flight, and nothing
else: no rules, no repairs, no cache, no rows. Both are measured in the steady state, without the
first fifth and the last tenth of the answers, in turns, several times.

    python benchmarks/curate_llm.py                        an endpoint of 50 ms on this machine
    python benchmarks/curate_llm.py --endpoint URL --model NAME
    python benchmarks/curate_llm.py --vllm --model Qwen/Qwen2.5-7B-Instruct     (on a GPU)
"""

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import numpy as np
from colibri.core.captions import prompts
from colibri.core.captions.chat import Answer, Backend, ChatEndpoint, Request
from colibri.core.captions.language import tokenize
from colibri.core.shards import write_json_whole
from colibri.curate.cluster import ray_session
from colibri.curate.llm import conversations
from colibri.curate.llm.ask import Asker, converse
from colibri.curate.llm.cache import RequestCache
from colibri.curate.llm.conversations import Model
from colibri.curate.llm.engines import Engine, EngineConfig, open_backend
from colibri.testbed import captions
from colibri.testbed.world import random_scene

SERVER = """
import asyncio, json, sys
latency = float(sys.argv[1])
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = next(int(l.split(b":")[1]) for l in head.lower().split(b"\\r\\n")
                          if l.startswith(b"content-length"))
            body = json.loads(await reader.readexactly(length))
            text = body["messages"][1]["content"].split("<caption>")[1].split("</caption>")[0]
            await asyncio.sleep(latency)
            answer = json.dumps({"id": "x", "object": "chat.completion", "created": 0,
                "model": "m", "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": text.strip()}}],
                "usage": {"prompt_tokens": 400, "completion_tokens": len(text.split())}}).encode()
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
                         b"Content-Length: %d\\r\\n\\r\\n" % len(answer) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Captions that a rewriter may leave as they are, so that both sides do the same requests."""
    rng = np.random.default_rng(seed)
    return [
        {"id": str(index), "caption_original": f"{captions.plain(random_scene(rng), rng)} {index}"}
        for index in range(count)
    ]


class Clocked:
    """A backend that notes when each answer came, and how many tokens it had."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.marks: list[tuple[float, int]] = []

    async def answer(self, request: Request) -> Answer:
        answer = await self._backend.answer(request)
        self.marks.append((time.perf_counter(), answer.output_tokens))
        return answer

    async def close(self) -> None:
        return

    def steady_rate(self) -> float:
        """Output tokens a second between the first fifth and the last tenth of the answers."""
        first, last = len(self.marks) // 5, len(self.marks) * 9 // 10
        seconds = self.marks[last][0] - self.marks[first][0]
        return sum(tokens for _, tokens in self.marks[first + 1 : last + 1]) / seconds


async def bare(backend: Backend, model: Model, work: list[dict[str, Any]], in_flight: int) -> float:
    """The engine alone."""
    clocked, limit = Clocked(backend), asyncio.Semaphore(in_flight)

    async def one(row: dict[str, Any]) -> None:
        messages = prompts.rewrite_messages(row["caption_original"])
        async with limit:
            await clocked.answer(model.request(messages, row["caption_original"], 0))

    await asyncio.gather(*map(one, work))
    return clocked.steady_rate()


async def ours(
    backend: Backend, model: Model, work: list[dict[str, Any]], in_flight: int, cache: Path
) -> tuple[float, float]:
    """The phase as `curate run` does it; its rate, and its own engine-idle share."""
    clocked = Clocked(backend)
    cache.unlink(missing_ok=True)
    ask = Asker(clocked, RequestCache(cache))

    def talk(row: dict[str, Any]) -> Awaitable[dict[str, Any]]:
        return conversations.rewrite(row, ask, model)

    async for _ in converse(iter(work), talk, in_flight=in_flight):
        pass
    return clocked.steady_rate(), ask.traffic.line(time.monotonic())["engine_idle"]


async def measure(arguments: argparse.Namespace, endpoint: str | None) -> dict[str, Any]:
    engine = EngineConfig(
        endpoint=endpoint, in_flight=arguments.in_flight, max_tokens=arguments.max_tokens
    )
    kind: Engine = "vllm" if arguments.vllm else "openai"
    backend = open_backend(kind, arguments.model, engine)
    if endpoint is not None:
        assert isinstance(backend, ChatEndpoint)
    model = Model(
        backend=kind,
        name=arguments.model,
        revision=None,
        temperature=0.0,
        repair_temperature=0.5,
        max_tokens=arguments.max_tokens,
        seed=0,
    )
    cache = Path(arguments.cache)
    found: dict[str, list[float]] = {"bare": [], "ours": [], "ratio": [], "engine_idle": []}
    await bare(backend, model, rows(2 * arguments.in_flight, 10_000), arguments.in_flight)
    for turn in range(arguments.turns):
        work = rows(arguments.rows, turn)
        first = await bare(backend, model, work, arguments.in_flight)
        again = rows(arguments.rows, turn + 1000)  # other rows: a prefix cache helps neither
        second, idle = await ours(backend, model, again, arguments.in_flight, cache)
        for name, value in zip(found, (first, second, second / first, idle), strict=True):
            found[name].append(value)
        print(f"turn {turn}: bare {first:,.0f}, ours {second:,.0f} tokens/s, {second / first:.3f}")
    await backend.close()
    return {name: statistics.median(values) for name, values in found.items()} | {"turns": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--endpoint")
    parser.add_argument("--vllm", action="store_true", help="vLLM in Ray actors, on a GPU")
    parser.add_argument("--model", default="scripted")
    parser.add_argument("--latency", type=float, default=0.05, help="of the scripted endpoint, s")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--cache", default="/tmp/colibri-bench-requests.sqlite")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/curate_llm.json"))
    arguments = parser.parse_args()
    tokenize("The word lists are read before anything is measured.")
    server = None
    if arguments.vllm:
        with ray_session(None, None):
            result = asyncio.run(measure(arguments, None))
    else:
        endpoint = arguments.endpoint
        if endpoint is None:
            command = [sys.executable, "-c", SERVER, str(arguments.latency)]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        try:
            result = asyncio.run(measure(arguments, endpoint))
        finally:
            if server is not None:
                server.kill()
    settings = {name: str(value) for name, value in vars(arguments).items()}
    result |= {"settings": settings, "includes": "requests, rules, request cache, rows"}
    print(
        f"ratio to the bare engine {result['ratio']:.3f}, engine idle {result['engine_idle']:.2%}"
    )
    result |= {"date": time.strftime("%Y-%m-%d"), "machine": platform.platform()}
    write_json_whole(arguments.out, result)
    print(json.dumps({name: result[name] for name in ("bare", "ours", "ratio")}))


if __name__ == "__main__":
    main()
