"""A hub on this machine: a real HTTP server with ranges, a CDN beside it, and faults to order."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from colibri.core.wan import hub
from huggingface_hub import constants

COMMIT = "c" * 40
LARGE = (".zip", ".safetensors", ".pth", ".bin")


@dataclass
class HubServer:
    """What the server serves, how it misbehaves, and what it saw."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Repository, of data or of a model -> path -> content."""
    clips: dict[str, bytes] = field(default_factory=dict)
    commit: str = COMMIT
    version: str = "1"
    """Part of every ETag."""
    faults: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """File -> answers to give first: a status and headers."""
    cut: dict[str, int] = field(default_factory=dict)
    """File -> bytes after which each answer breaks off."""
    ranges: bool = True
    gated: bool = False
    bytes_per_s: float | None = None
    wrong_bytes: set[str] = field(default_factory=set)
    served: Counter[str] = field(default_factory=Counter)
    """File -> bytes of bodies."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """File and Range of each request for one."""
    logins: dict[str, set[str | None]] = field(default_factory=lambda: {"hub": set(), "cdn": set()})
    url: str = ""
    cdn: str = ""

    @contextmanager
    def standing_in(self, patch: pytest.MonkeyPatch, cache: Path, *, large: int) -> Iterator[None]:
        """Serve in the place of the real hub, with an own cache; files from `large` bytes on are
        fetched by us."""
        with self.serving():
            urls = self.url + "/{repo_id}/resolve/{revision}/{filename}"
            patch.setattr(constants, "ENDPOINT", self.url)
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", urls)
            patch.setattr(constants, "HF_HUB_CACHE", str(cache))
            patch.setattr(hub, "LARGE_BYTES", large)
            yield

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answer meanwhile; big files are redirected to a second server."""
        servers = []
        for place in ("hub", "cdn"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, place))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
            servers.append(server)
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
        try:
            yield
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()


def _handler(hub: HubServer, place: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.logins[place].add(self.headers.get("Authorization"))
            path = unquote(urlsplit(self.path).path)
            parts = path.strip("/").split("/")
            if path.startswith("/clips/"):
                return self.file(parts[-1], hub.clips.get(parts[-1]))
            if parts[0] == "api":
                what, revision = (*parts[4:6], "main")[:2] if parts[4:] else ("revision", "main")
                return self.api("/".join(parts[2:4]), what, revision)
            if parts[0] == "datasets":
                parts = parts[1:]
            repo, name = "/".join(parts[:2]), "/".join(parts[4:])
            content = hub.files.get(repo, {}).get(name)
            if content is not None and is_lfs(name) and place == "hub":
                headers = {"Location": f"{hub.cdn}{self.path}?sig=1", "X-Repo-Commit": hub.commit}
                headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
                headers["X-Linked-Size"] = str(len(content))
                self.answer(302, b"", headers)
            else:
                self.file(name, content)

        def api(self, repo: str, what: str, revision: str) -> None:
            if hub.gated:
                self.answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
            elif repo not in hub.files:
                self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", hub.commit, COMMIT):
                self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif what == "revision":
                about: dict[str, Any] = {"id": repo, "private": False, "tags": [], "downloads": 0}
                about["sha"] = hub.commit if revision == "main" else revision
                about["siblings"] = [
                    sibling(entry(name, body)) for name, body in sorted(hub.files[repo].items())
                ]
                self.answer(200, json.dumps(about).encode(), {})
            else:
                names = sorted(hub.files[repo])
                start = int(urlsplit(self.path).query.partition("cursor=")[2] or 0)
                page = [entry(name, hub.files[repo][name]) for name in names[start : start + 2]]
                page.insert(0, {"type": "directory", "path": "x", "oid": "0" * 40, "size": 0})
                link = f'<{hub.url}{self.path.split("&")[0]}&cursor={start + 2}>; rel="next"'
                headers = {"Link": link} if start + 2 < len(names) else {}
                self.answer(200, json.dumps(page).encode(), headers)

        def file(self, name: str, content: bytes | None) -> None:
            asked = self.headers.get("Range")
            hub.asked.append((name, asked))
            if hub.faults.get(name):
                status, headers = hub.faults[name].pop(0)
                return self.answer(status, b"", headers)
            if content is None:
                return self.answer(404, b"", {})
            if name in hub.wrong_bytes:
                content = content[:-1] + bytes([content[-1] ^ 1])
            etag = f'"{hub.version}-{hashlib.md5(content).hexdigest()}"'
            if self.command == "HEAD":
                etag = f'"{blob_id(content)}"'
            wanted = self.headers.get("If-Range")
            start, end, status, headers = 0, len(content), 200, {"ETag": etag}
            headers["X-Repo-Commit"] = hub.commit
            if asked and hub.ranges and wanted in (None, etag):
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start, end = int(first), min(end, int(last) + 1) if last else end
                if start >= len(content):
                    return self.answer(416, b"", {})
                status = 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            self.answer(status, content[start:end], headers, name)

        def answer(self, status: int, body: bytes, headers: dict[str, str], name: str = "") -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if name in hub.cut and len(body) > hub.cut[name]:
                body = body[: hub.cut[name]]
                self.close_connection = True
            step = 1 << 16
            for start in range(0, len(body), step):
                piece = body[start : start + step]
                try:
                    self.wfile.write(piece)
                except OSError:
                    return
                hub.served[name] += len(piece)
                if hub.bytes_per_s:
                    time.sleep(len(piece) / hub.bytes_per_s)

    return Handler


def is_lfs(name: str) -> bool:
    return name.endswith(LARGE) or "part_" in name


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(name: str, content: bytes) -> dict[str, Any]:
    """As the listing of a repository's files has it."""
    found: dict[str, Any] = {"type": "file", "path": name, "oid": blob_id(content)}
    found["size"] = len(content)
    if is_lfs(name):
        digest = hashlib.sha256(content).hexdigest()
        found["oid"] = "0" * 40
        found["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return found


def sibling(listed: dict[str, Any]) -> dict[str, Any]:
    """As a repository's own description has it."""
    found = {"rfilename": listed["path"], "size": listed["size"], "blobId": listed["oid"]}
    if lfs := listed.get("lfs"):
        found["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": 130}
    return found
