"""Processes on this machine, joined as torchrun and `accelerate launch` join them."""

import multiprocessing
import socket
from collections.abc import Callable, Sequence
from typing import Any

FORK = multiprocessing.get_context("fork")


def run_joined(
    work: Callable[..., object], arguments: Sequence[tuple[Any, ...]], *, timeout_s: float
) -> list[int | None]:
    """Exit status of `work(environment, *arguments[rank])` in a process for each rank; None for one
    that had to be killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    joined |= {"WORLD_SIZE": str(len(arguments))}
    processes = [
        FORK.Process(target=work, args=(joined | {"RANK": str(rank)}, *own))
        for rank, own in enumerate(arguments)
    ]
    for process in processes:
        process.start()
    statuses = []
    for process in processes:
        process.join(timeout=timeout_s)
        statuses.append(process.exitcode)
        if process.exitcode is None:
            process.kill()
    return statuses
