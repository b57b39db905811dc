"""`infer serve`: open the port, make the studio, show the page until Ctrl-C."""

import importlib.util
import os
import socket
import tempfile
import threading

from colibri.core.errors import UserError
from colibri.infer.config import ServeConfig
from colibri.infer.decode import Say
from colibri.infer.outputs import check_writable

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(config: ServeConfig, *, say: Say) -> None:
    """Serve the page until Ctrl-C. UserError for a missing gradio, a taken port, a wrong model."""
    check_gradio()
    port = free_port(config.host, config.port)
    check_writable(config.out)
    from colibri.infer.studio import Studio

    studio = Studio(config, say=say)
    say(studio.source.line())
    if studio.filters.uses:
        say(studio.filters.line())
    say(studio.line)
    with tempfile.TemporaryDirectory(prefix="colibri-serve-") as uploads:
        # Read when gradio is imported: it shall tell nobody, and clean up with us.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = uploads
        from colibri.infer.page import launch

        page, url = launch(studio, config.host, port)
        try:
            say(f"{url}  (Ctrl-C ends it)")
            if config.host not in LOOPBACK:
                say(f"Whoever can reach {config.host} can make videos and see those of this folder")
            threading.Event().wait()
        except KeyboardInterrupt:
            say("")
        finally:
            studio.close()
            page.close()


def check_gradio() -> None:
    """UserError where gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("infer serve needs gradio", hint="pip install 'colibri-infer[serve]'")


def free_port(host: str, port: int) -> int:
    """`port`, or a free one for 0. UserError where it is taken or `host` is no address here."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is not a port", hint="give one from 1 to 65535, or 0")
    try:
        ((family, *_, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror:
        raise UserError(f"--host {host} is not an address of this machine") from None
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port} cannot be listened on: {error.strerror}",
            hint="pass another --port, or --port 0 for a free one",
        ) from None
