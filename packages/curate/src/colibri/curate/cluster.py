"""Ray for the time of a run: one of our own on this machine, or a cluster that is there already."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from colibri.core.errors import UserError


@contextlib.contextmanager
def ray_session(address: str | None, cpus: int | None) -> Iterator[None]:
    """A connected Ray. UserError when nothing answers at `address`."""
    if address:
        _check_answers(address)
        _use_token()
    import ray

    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(
                address=address or "local",
                num_cpus=None if address else cpus,
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster answers at {address}: {error}",
                hint="start one with `ray start --head`; where it asks for a token, put that into "
                "~/.ray/auth_token or RAY_AUTH_TOKEN; or leave --ray-address out",
            ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # `auto`, or a name that Ray resolves
        return
    try:
        socket.create_connection((host or "127.0.0.1", int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address}: {error}",
            hint="start one with `ray start --head`, or leave --ray-address out",
        ) from None


def _use_token() -> None:
    """`ray start` guards a cluster with a token; a driver sends it only when told to, beforehand.

    Source: Ray 2.60, ray-security/token-auth.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if os.environ.get("RAY_AUTH_TOKEN") or path.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
