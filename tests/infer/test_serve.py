"""`infer serve` in a real browser, driven through Chromium's DevTools pipe."""

import json
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colibri.core.errors import UserError
from colibri.infer.cli import main
from colibri.infer.recipe import read_video
from colibri.infer.serve import check_gradio, free_port
from PIL import Image


def test_without_gradio_one_sentence_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve"]) == 2
    said = capsys.readouterr().err
    assert said == "error: infer serve needs gradio; pip install 'colibri-infer[serve]'\n"
    monkeypatch.undo()
    check_gradio()


def test_a_port_is_checked_before_any_weight_is_loaded() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port} cannot be listened on: Address"):
            free_port("127.0.0.1", port)
    assert free_port("127.0.0.1", 0) > 1023
    with pytest.raises(UserError, match="--port 70000 is not a port"):
        free_port("127.0.0.1", 70000)
    with pytest.raises(UserError, match="--host no such is not an address of this machine"):
        free_port("no such", 0)


ON_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in zip((3, 4), ends):
    os.dup2(end, number)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Starts Chromium with the pipe where it looks for it."""


class Browser:
    """One page of a headless Chromium, spoken to through a pipe."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        flags += ["--disable-background-networking", "--remote-debugging-pipe"]
        flags += [f"--user-data-dir={profile}", "--window-size=1400,1400", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_3_AND_4, str(theirs_in), str(theirs_out), program, *flags],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._read, self._count, self._session = b"", 0, ""
        self.asked: list[str] = []
        """Every address that the page has asked for."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        self._count += 1
        message: dict[str, object] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str, *, seconds: float = 120) -> Any:
        """The script's value, once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.value(script):
                return found
            time.sleep(0.05)
        text = self.value("document.body.innerText")
        raise AssertionError(f"never true: {script}\n{text}")

    def type(self, selector: str, text: str) -> None:
        self.value(f"(e => {{ e.focus(); e.select() }})(document.querySelector({selector!r}))")
        self.call("Input.insertText", text=text)

    def upload(self, selector: str, path: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._in)
        os.close(self._out)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], 90)
            assert ready, "the browser is silent"
            read = os.read(self._in, 1 << 20)
            assert read, "the browser has ended"
            self._read += read
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed and could not be")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def address(ti2v: Path, out: Path) -> Iterator[str]:
    """The page's address, of a server in a process of its own."""
    flags = ["--model", str(ti2v), "--device", "cpu", "--port", "0", "--out", str(out)]
    flags += ["--frames", "5", "--size", "48x32", "--steps", "3", "--guidance", "1"]
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "colibri.infer", "serve", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if found := re.match(r"(http://127\.0\.0\.1:\d+/) ", line):
            yield found[1]
            break
    else:
        pytest.fail(f"the server ended: {said}")
    server.terminate()
    server.communicate(timeout=120)


STATUS = "document.querySelector('#status textarea').value"
MAKE = "document.querySelector('#make').click()"


@pytest.mark.slow
def test_a_person_makes_videos_on_the_page(
    address: str, browser: Browser, out: Path, tmp_path: Path
) -> None:
    browser.call("Page.navigate", url=address)
    browser.until("!!document.querySelector('#status textarea')")
    browser.until("document.querySelector('#steps input')?.value === '3'")

    # an empty prompt
    browser.until("!!document.querySelector('#make')")
    browser.value(MAKE)
    assert browser.until(STATUS) == "Error: the prompt is empty; say what the video shows"

    # from text, with pictures on the way
    browser.value(
        """
        window.pictures = new Set()
        new MutationObserver(() => {
            const image = document.querySelector('#preview img')
            if (image) window.pictures.add(image.src)
        }).observe(document.body, {subtree: true, childList: true, attributes: true})
        """
    )
    browser.type("#prompt textarea", "a red <b>circle</b>")
    browser.type("#seed input", "7")
    browser.value(MAKE)
    browser.until(f"{STATUS}.startsWith('Done')")
    (made,) = out.glob("*.mp4")
    recipe, _ = read_video(made)
    assert (recipe.prompt, recipe.seed, recipe.flow.steps) == ("a red <b>circle</b>", 7, 3)
    assert json.loads(made.with_suffix(".json").read_text())["fingerprint"] == recipe.fingerprint
    assert {path.suffix for path in out.iterdir()} == {".mp4", ".json"}
    browser.until("document.querySelector('#video video')?.videoWidth === 48")
    assert browser.value("window.pictures.size") >= 1
    browser.until("document.querySelectorAll('#history video, #history img').length === 1")
    assert "seed 7, 48x32, 5 frames" in browser.value(
        "document.querySelector('#facts textarea').value"
    )

    # from an image
    image = tmp_path / "first.png"
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(image)
    browser.upload("#image input[type=file]", image)
    browser.until("!!document.querySelector('#image img')")
    browser.value(MAKE)
    browser.until(f"{STATUS}.startsWith('Done') && !{STATUS}.includes({made.name!r})")
    (second,) = set(out.glob("*.mp4")) - {made}
    recipe, _ = read_video(second)
    assert recipe.image is not None
    assert np.array_equal(np.array(Image.open(out / recipe.image)), np.array(Image.open(image)))

    # the older one again, from the history
    browser.until("document.querySelectorAll('#history video, #history img').length === 2")
    browser.type("#prompt textarea", "another")
    browser.value("[...document.querySelectorAll('#history button')].at(-1).click()")
    browser.until(f"{STATUS}.endsWith({made.name!r})")
    assert (
        browser.value("document.querySelector('#prompt textarea').value") == "a red <b>circle</b>"
    )

    elsewhere = [url for url in browser.asked if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == ["about:blank"] * len(elsewhere)
