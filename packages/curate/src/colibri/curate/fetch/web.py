"""GET by byte ranges, with retries. Knows nothing of zips, data sets or files on disk.

The token goes to the endpoint's own scheme, host and port; a redirect elsewhere goes without it.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import httpx2

import colibri.curate
from colibri.core.errors import UserError

ATTEMPTS = 6
"""Failures in a row, without a single byte between them, after which a file is given up."""
LONGEST_WAIT_S = 600.0
"""A server that asks to wait longer ends the command."""
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_log = logging.getLogger(__name__)


class HttpRefused(UserError):
    """The server said no for good. `status` is the HTTP status."""

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Changed(Exception):
    """The file behind a URL is no longer the one whose ETag is known."""


class RangeIgnored(UserError):
    """The server answers a request for a few bytes with the whole file."""


class Stopped(Exception):
    """Another download failed, or the user stopped the command."""


class _TryAgain(Exception):
    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Web:
    """Connections, the token, and the patience. Safe to use from several threads."""

    def __init__(
        self, endpoint: str, token: str | None, *, sleep: Callable[[float], None] | None = None
    ) -> None:
        if urlsplit(endpoint).scheme not in ("http", "https"):
            raise UserError(f"HF_ENDPOINT {endpoint} is not a URL", hint="write https://host")
        self.endpoint = endpoint.rstrip("/")
        self._token = (token or "").strip()
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(60, connect=15),
            headers={
                "Accept-Encoding": "identity",
                "User-Agent": f"colibri-curate/{colibri.curate.__version__}",
            },
        )
        self._targets: dict[str, str] = {}
        """URL -> where it last redirected to, so that a presigned address is asked for once."""
        self._stop = threading.Event()
        self._sleep = sleep or self._wait

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def stop(self) -> None:
        """Make every download under way raise Stopped soon."""
        self._stop.set()

    def json(self, url: str) -> tuple[object, str | None]:
        """A JSON answer, and the URL of its next page."""
        answer: list[tuple[object, str | None]] = []

        def get() -> None:
            with self._open(url, {}) as response:
                _check_status(response, url, bool(self._token))
                try:
                    response.read()
                    following = response.links.get("next", {}).get("url")
                    answer.append((response.json(), urljoin(url, following) if following else None))
                except ValueError:
                    raise UserError(f"{_shown(url)} did not answer with JSON") from None

        self._retrying(url, get, lambda: 0)
        return answer[0]

    def read(
        self,
        url: str,
        start: int,
        end: int | None,
        sink: Callable[[bytes], object],
        *,
        etag: str | None = None,
        on_etag: Callable[[str | None], None] | None = None,
    ) -> int:
        """Hand bytes [start, end) of a URL to `sink` in order, however often the line breaks.

        `end` None means the end of the file. `etag` is the version that the bytes have to come
        from; `on_etag` hears it before the first byte. Returns the position after the last byte.
        Raises Changed, RangeIgnored, HttpRefused, and UserError when the server stays away.
        """
        at, last, version = start, end, etag

        def attempt() -> None:
            nonlocal at, last, version
            ranged = at > 0 or end is not None
            headers = {}
            if ranged:
                headers["Range"] = f"bytes={at}-" if last is None else f"bytes={at}-{last - 1}"
                if version and not version.startswith("W/"):
                    headers["If-Range"] = version
            with self._open(url, headers) as response:
                if response.status_code in (412, 416):
                    raise Changed
                _check_status(response, url, bool(self._token))
                found = response.headers.get("ETag")
                if version and found and found != version:
                    raise Changed
                total = _check_range(response, url, at if ranged else None)
                if last is None:
                    last = total
                if version is None:
                    version = found
                    if on_etag:
                        on_etag(found)
                for chunk in response.iter_raw():
                    if self._stop.is_set():
                        raise Stopped
                    piece = chunk if last is None else chunk[: last - at]
                    sink(piece)
                    at += len(piece)
                    if at == last:
                        return
                if last is not None and at < last:
                    raise _TryAgain("the answer was cut short")
                last = at

        while last is None or at < last:
            self._retrying(url, attempt, lambda: at)
        return at

    def _retrying(self, url: str, action: Callable[[], None], done: Callable[[], int]) -> None:
        failures, before = 0, done()
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return action()
            except (_TryAgain, httpx2.TransportError) as error:
                if done() > before:
                    failures, before = 0, done()
                failures += 1
                why = str(error) or type(error).__name__
                if failures == ATTEMPTS:
                    raise UserError(
                        f"{_shown(url)} failed {ATTEMPTS} times in a row ({why})",
                        hint="run the same command again later; it goes on from here",
                    ) from None
                wait_s = getattr(error, "after_s", None)
                if wait_s is None:
                    wait_s = float(min(60, 2 ** (failures - 1)))
                elif wait_s > LONGEST_WAIT_S:
                    raise UserError(
                        f"{urlsplit(url).netloc} asks to wait {wait_s:.0f} s",
                        hint="run the same command again then; it goes on from here",
                    ) from None
                _log.warning("%s: %s; again in %.0f s", _shown(url), why, wait_s)
                self._sleep(wait_s)

    @contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[httpx2.Response]:
        """The answer after all redirects."""
        target = self._targets.get(url, url)
        for _ in range(10):
            sent = dict(headers)
            if self._token and _origin(target) == _origin(self.endpoint):
                sent["Authorization"] = f"Bearer {self._token}"
            try:
                request = self._client.build_request("GET", target, headers=sent)
            except httpx2.InvalidURL:
                raise UserError(f"{_shown(target)!r} is not a URL") from None
            response = self._client.send(request, stream=True, follow_redirects=False)
            try:
                if response.status_code in _REDIRECTS and "Location" in response.headers:
                    target = _redirected(target, response.headers["Location"])
                elif response.status_code in (400, 401, 403, 410) and url in self._targets:
                    # A presigned address has run out: ask for a new one.
                    self._targets.pop(url, None)
                    target = url
                else:
                    if target != url and response.is_success:
                        self._targets[url] = target
                    yield response
                    return
            finally:
                response.close()
        raise UserError(f"{_shown(url)} redirects in a circle")

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)


def _check_status(response: httpx2.Response, url: str, has_token: bool) -> None:
    status = response.status_code
    if status in _AGAIN:
        raise _TryAgain(f"HTTP {status}", _retry_after(response.headers.get("Retry-After")))
    if status in (401, 403):
        hint = "the repository is gated, private or misspelt: set HF_TOKEN to a token that may read"
        if has_token:
            hint = "the token in HF_TOKEN may not read it: ask for access on the repository's page"
        raise HttpRefused(status, f"{_shown(url)} is not open to us (HTTP {status})", hint=hint)
    if status in (404, 410):
        hint = "check --revision and the name, or it was removed"
        raise HttpRefused(status, f"there is no {_shown(url)} (HTTP {status})", hint=hint)
    if status not in (200, 206):
        raise HttpRefused(status, f"{_shown(url)} answers with HTTP {status}")


def _check_range(response: httpx2.Response, url: str, at: int | None) -> int | None:
    """The size of the whole file, where it is told. `at` is None when no range was asked for."""
    if response.status_code == 200:
        if at is not None:
            raise RangeIgnored(
                f"{urlsplit(str(response.url)).netloc} ignores byte ranges, so {_shown(url)} "
                "would be sent whole for each clip in it",
                hint="use another HF_ENDPOINT, or --whole",
            )
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if at is None or match is None or int(match[1]) != at:
        raise UserError(f"{_shown(url)} answers with other bytes than those asked for")
    return None if match[3] == "*" else int(match[3])


def _retry_after(value: str | None) -> float | None:
    """Seconds, from a number of seconds or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _redirected(target: str, location: str) -> str:
    following = urljoin(target, location)
    allowed = ("https",) if urlsplit(target).scheme == "https" else ("http", "https")
    if urlsplit(following).scheme not in allowed:
        raise UserError(f"{_shown(target)} redirects to {_shown(following)}, which is not safe")
    return following


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _shown(url: str) -> str:
    """A URL without its query and login, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
