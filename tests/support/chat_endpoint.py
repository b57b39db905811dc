"""A chat endpoint that follows a script: good answers, and every way in which real ones fail.

Run as a program it serves until it is killed:
    python chat_endpoint.py --port P --log FILE [--plan NAME] [--delay S] [--die-after N]
Each request's key facts are appended to FILE as a JSON line.
"""

import argparse
import hashlib
import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from colibri.core.captions.rewrite import rewrite
from colibri.core.captions.rules import check, violates
from colibri.core.errors import RowError


def fences(text: str) -> list[str]:
    """What stands between the fences of a prompt."""
    return [part.split("</caption>")[0].strip() for part in text.split("<caption>")[1:]]


def good_rewrite(original: str) -> str:
    try:
        return rewrite(original)
    except RowError:
        return "A person walks."


def verdict(original: str, caption: str) -> str:
    """What an honest judge with the rules at hand says."""
    table: dict[str, Any] = {
        f"R{index}": {"verdict": "ok", "evidence": ""} for index in range(1, 7)
    }
    found = check(original, caption)
    for rule in violates(found):
        text = next(finding.text for finding in found if finding.rule == rule)
        table[rule] = {"verdict": "broken", "evidence": text}
    return json.dumps(table | {"fluency": "good", "coverage": "full"})


class Script:
    """Decides what one request gets. Counts requests by their content."""

    def __init__(self, plan: str, delay_s: float, die_after: int | None) -> None:
        self.plan, self.delay_s, self.die_after = plan, delay_s, die_after
        self.count = 0
        self.tries: dict[str, int] = {}
        self.lock = threading.Lock()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body."""
        content = json.dumps(body["messages"]) + str(body.get("seed"))
        digest = hashlib.sha256(content.encode()).hexdigest()
        with self.lock:
            self.count += 1
            self.tries[digest] = self.tries.get(digest, 0) + 1
            attempt = self.tries[digest]
            if self.die_after is not None and self.count > self.die_after:
                os._exit(9)
        if self.delay_s:
            # Late and out of order, but the same for the same request.
            time.sleep(self.delay_s * random.Random(digest).random())
        lot = int(digest[:4], 16) % 10
        text = self.text(body, lot)
        if self.plan == "rough" and attempt <= 2:
            if lot == 0:
                return 429, {"Retry-After": "0.1"}, b'{"error": {"message": "slow down"}}'
            if lot == 1:
                return 500, {}, b"<html>oops</html>"
            if lot == 2:
                return 200, {}, b"this is no JSON at all"
            if lot == 3:
                return 200, {}, b'{"choices": []}'
            if lot == 4:
                return 200, {"Content-Length": "100000"}, b'{"choi'
        return 200, {}, completion(text, body)

    def text(self, body: dict[str, Any], lot: int) -> str:
        messages = body["messages"]
        user = next(m["content"] for m in messages if m["role"] == "user")
        if not isinstance(user, str):
            assert user[0]["image_url"]["url"].startswith("data:image/")
            return "A person walks across a square. A tree stands beside the path."
        found = fences(user)
        if body.get("response_format"):
            if self.plan == "rough" and lot == 5 and body["seed"] % 2:
                return '{"R1": {"verdict": "ok"'
            first, second = found
            swapped = user.startswith("Rewritten")
            return verdict(second, first) if swapped else verdict(first, second)
        if self.plan == "nonsense":
            return "zyx qpr the camera zooms I think " + str(lot)
        repaired = any(m["role"] == "assistant" for m in messages)
        if self.plan in ("rough", "stubborn") and lot in (6, 7) and not repaired:
            return "The video shows " + good_rewrite(found[0])
        if self.plan == "stubborn":
            return "We see " + good_rewrite(found[0])
        if self.plan == "same":
            return "A man walks."
        return good_rewrite(found[0])


def completion(text: str, body: dict[str, Any]) -> bytes:
    return json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": len(text.split())},
        }
    ).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def serve(port: int, script: Script, log: str | None, key: str | None) -> Server:
    """A running server; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            body = json.loads(raw)
            if key is not None and self.headers.get("Authorization") != f"Bearer {key}":
                self.reply(401, {}, b'{"error": {"message": "wrong key"}}')
                return
            if log is not None:
                line = json.dumps({"digest": hashlib.sha256(raw).hexdigest(), "body": body})
                with open(log, "a", encoding="utf-8") as file:
                    file.write(line + "\n")
            self.reply(*script.answer(body))

        def reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            headers = {"Content-Length": str(len(content))} | headers
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            if int(headers["Content-Length"]) != len(content):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    return Server(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--plan", default="good")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--log")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    script = Script(arguments.plan, arguments.delay, arguments.die_after)
    server = serve(arguments.port, script, arguments.log, arguments.key)
    print(server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
