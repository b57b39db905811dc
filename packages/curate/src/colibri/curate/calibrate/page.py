"""Label rows on a page that this machine serves to itself.

Bound to 127.0.0.1; the address holds a random token, and any other path is not found. Captions are
hostile text: everything passes through jinja2's escaping, and the page's policy allows only its own
script and no outside address.
"""

import base64
import hmac
import io
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import parse_qs

from jinja2 import Environment, Template
from PIL import Image

from colibri.core.captions.rules import RULES
from colibri.core.errors import UserError
from colibri.curate.calibrate.journal import Session
from colibri.curate.calibrate.sample import LabelRow
from colibri.curate.report.page import RULE_NAMES, diff, shown

SHOWN_CHARACTERS = 10_000
MARKED_WORDS = 90_000
"""Most words of one text times words of the other for which differences are marked: the search is
quadratic, and worse where words repeat; 0.4 s at most here."""

FORM_BYTES = 10_000
FRAME_SIZE = (960, 640)


def label_on_page(session: Session, *, port: int, announce: Callable[[str], None]) -> None:
    """Serve until the person finishes or presses Ctrl-C; `announce` gets the address.

    `port` 0 takes a free one. UserError when the port is taken.
    """
    try:
        server = LabelServer(session, port=port)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on port {port}: {error}", hint="use --port 0") from None
    announce(server.url)
    try:
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


class LabelServer(ThreadingHTTPServer):
    """Threads, because browsers open connections ahead that a single one would wait for."""

    daemon_threads = True

    def __init__(self, session: Session, *, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.session = session
        self.path = f"/{secrets.token_urlsafe(24)}/"
        self.url = f"http://127.0.0.1:{self.server_port}{self.path}"
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self.template: Template = environment.from_string(
            (files("colibri.curate.calibrate") / "page.html").read_text(encoding="utf-8")
        )

    def render(self, nonce: str, *, finished: bool = False) -> str:
        """The page of the next row, or of the end."""
        row = None if finished else self.session.next_row()
        before, after = _texts(row) if row else ("", "")
        return self.template.render(
            nonce=nonce,
            finished=finished,
            row=row,
            before=before,
            after=after,
            frame=frame_uri(row.frame) if row else "",
            done=self.session.done,
            total=self.session.total,
            rules=[(rule, RULE_NAMES[rule], index) for index, rule in enumerate(RULES, start=1)],
        )


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    server_version = "curate"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        if self._is_allowed():
            self._send_page()

    def do_POST(self) -> None:
        if not self._is_allowed():
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= FORM_BYTES:
            self._send_text(HTTPStatus.BAD_REQUEST, "the form is missing or too long")
            return
        form = parse_qs(self.rfile.read(length).decode("utf-8", errors="replace"))
        answer = form.get("answer", [""])[0]
        if answer == "finish":
            self._send_page(finished=True)
            threading.Thread(target=self.server.shutdown).start()
            return
        try:
            if answer == "undo":
                self.server.session.undo()
            else:
                row_id = form.get("id", [""])[0]
                self.server.session.answer(row_id, answer, form.get("rule", []))
        except UserError as error:
            self._send_text(HTTPStatus.BAD_REQUEST, f"not saved: {error}")
            return
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", self.server.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal belongs to the person, and the address is a secret."""

    def _is_allowed(self) -> bool:
        """Refuses other paths, and other host names, behind which a foreign page could stand."""
        known = hmac.compare_digest(self.path.encode(), self.server.path.encode())
        if known and self.headers.get("Host") in self.server.hosts:
            return True
        self._send_text(HTTPStatus.NOT_FOUND, "not found")
        return False

    def _send_page(self, *, finished: bool = False) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; img-src data:; style-src 'nonce-{nonce}'; "
            f"script-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'"
        )
        page = self.server.render(nonce, finished=finished)
        self._send(HTTPStatus.OK, "text/html", page, {"Content-Security-Policy": policy})

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain", text + "\n", {})

    def _send(self, status: HTTPStatus, kind: str, text: str, headers: dict[str, str]) -> None:
        body = text.encode("utf-8", errors="replace")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def _texts(row: LabelRow) -> tuple[str, str]:
    """Original and caption, with their differences marked unless they are very long."""
    before, after = shown(row.original, SHOWN_CHARACTERS), shown(row.caption, SHOWN_CHARACTERS)
    if len(before.split()) * len(after.split()) > MARKED_WORDS:
        return before, after
    return diff(before, after)


def frame_uri(frame: bytes | None) -> str:
    """The frame drawn again as a JPEG in a data address; empty where there is none to draw."""
    if not frame:
        return ""
    target = io.BytesIO()
    try:
        with Image.open(io.BytesIO(frame)) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    picture.thumbnail(FRAME_SIZE)
    picture.save(target, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode()
