"""Models of a hub: sizes first, only what is needed, continued after a kill, offline; a real HTTP
server stands for the hub."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.wan import hub as colibri_hub
from hub_server import COMMIT, HubServer
from huggingface_hub import constants

MODEL, ORIGINAL = "me/model", "me/original"
BIG = "transformer/diffusion_pytorch_model.safetensors"
NEEDED = {
    "model_index.json": b"{}",
    "colibri.json": b"{}",
    "scheduler/scheduler_config.json": b"{}",
    "tokenizer/tokenizer.json": b"{}",
    "tokenizer/spiece.model": b"words",
    "text_encoder/model-00001-of-00002.safetensors": b"first" * 500,
    "text_encoder/model-00002-of-00002.safetensors": b"second" * 500,
    "text_encoder/model.safetensors.index.json": b"{}",
    "vae/config.json": b'{"z_dim": 16}',
    "vae/diffusion_pytorch_model.safetensors": b"vae" * 1000,
    BIG: bytes(range(256)) * 4000,
}
UNUSED = {
    "README.md": b"# A model",
    "assets/teaser.mp4": b"video" * 1000,
    "text_encoder/pytorch_model.bin": b"pickle" * 1000,
    "text_encoder/model.fp16.safetensors": b"half" * 1000,
    "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors": b"half" * 1000,
    "transformer/model.onnx": b"onnx",
    "vae/flax_model.msgpack": b"flax",
    "wan-Q4_0.gguf": b"gguf",
}
OWN = {
    "config.json": b"{}",
    "diffusion_pytorch_model-00001-of-00001.safetensors": b"x" * 1000,
    "diffusion_pytorch_model.safetensors.index.json": b"{}",
    "Wan2.1_VAE.pth": b"vae",
    "models_t5_umt5-xxl-enc-bf16.pth": b"text",
    "google/umt5-xxl/tokenizer.json": b"{}",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    server.files = {
        MODEL: NEEDED | UNUSED,
        ORIGINAL: OWN | {"assets/logo.png": b"png", "examples/x.pth": b"no"},
    }
    with server.standing_in(monkeypatch, tmp_path / "hub", large=100_000):
        yield server


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_only_what_is_needed_is_fetched_once_and_its_size_is_said_first(hub: HubServer) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        assert not any(hub.served[name] for name in NEEDED)
        said.append(text)

    folder = wan.find_folder(MODEL, say=say)
    assert contents(folder) == NEEDED
    assert folder.name == COMMIT
    size = sum(map(len, NEEDED.values())) / 1e6
    (line,) = said
    assert line.startswith(
        f"{MODEL} at cccccccccccc: {len(NEEDED)} files, {size:.1f} MB; {size:.1f} MB "
    )
    assert hub.served[BIG] == len(NEEDED[BIG])
    hub.served.clear()
    assert wan.find_folder(MODEL, say=said.append) == folder
    assert not any(hub.served[name] for name in NEEDED)
    assert len(said) == 1


def test_of_wans_own_layout_weights_and_tokenizer_are_fetched(hub: HubServer) -> None:
    assert contents(wan.find_folder(ORIGINAL)) == OWN


def test_a_revision_is_kept_and_a_wrong_one_named(hub: HubServer) -> None:
    old = wan.find_folder(MODEL)
    hub.commit = "d" * 40
    hub.files[MODEL]["vae/config.json"] = b'{"z_dim": 48}'
    new = wan.find_folder(MODEL)
    assert (new.name, (new / "vae/config.json").read_bytes()) == ("d" * 40, b'{"z_dim": 48}')
    assert wan.find_folder(MODEL, revision=COMMIT) == old
    assert (old / "vae/config.json").read_bytes() == b'{"z_dim": 16}'
    assert hub.served[BIG] == len(NEEDED[BIG])  # the same bytes are fetched once
    with pytest.raises(UserError, match="me/model has no revision 'nowhere'"):
        wan.find_folder(MODEL, revision="nowhere")


def test_a_killed_download_goes_on_where_it_was(hub: HubServer, tmp_path: Path) -> None:
    hub.files[MODEL][BIG] = os.urandom(1 << 20) * 60
    hub.bytes_per_s = 60_000_000
    code = (
        "from colibri.core import wan; from colibri.core.wan import hub;"
        f"wan.find_folder({MODEL!r}, say=print)"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hub")}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    blobs = tmp_path / "hub" / "models--me--model" / "blobs"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and not any(
        path.stat().st_size > 15e6 for path in blobs.glob("*.incomplete")
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (part,) = blobs.glob("*.incomplete")
    had = part.stat().st_size
    hub.bytes_per_s = None
    time.sleep(0.5)  # answers to the dead process run out
    hub.served.clear()
    hub.asked.clear()
    said: list[str] = []
    folder = wan.find_folder(MODEL, say=said.append)
    assert (folder / BIG).read_bytes() == hub.files[MODEL][BIG]
    assert (BIG, f"bytes={had}-") in hub.asked
    assert hub.served[BIG] == len(hub.files[MODEL][BIG]) - had
    told = re.search(r"; ([\d.]+) MB to fetch into ", said[0])
    assert told is not None
    left = len(hub.files[MODEL][BIG]) - had  # and the small files
    assert float(told[1]) == pytest.approx(left / 1e6, abs=0.2)
    assert not list(blobs.glob("*.incomplete*"))


def test_a_broken_line_is_said_and_the_next_run_goes_on(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults[BIG] = [(500, {})] * 20
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with pytest.raises(UserError, match=r"was broken off: .*the same command goes on from here"):
        wan.find_folder(MODEL)
    hub.faults.clear()
    assert contents(wan.find_folder(MODEL)) == NEEDED


def test_other_bytes_than_promised_are_refused(hub: HubServer) -> None:
    hub.wrong_bytes.add(BIG)
    with pytest.raises(UserError, match="came with other bytes than the hub's hash promises"):
        wan.find_folder(MODEL)
    hub.wrong_bytes.clear()
    assert contents(wan.find_folder(MODEL)) == NEEDED


def test_the_token_goes_to_the_hub_alone(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    wan.find_folder(MODEL)
    assert "Bearer hf_secretsecret" in hub.logins["hub"]
    assert hub.logins["cdn"] == {None}


def test_a_full_disk_is_said_before_anything_is_fetched(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(colibri_hub.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        UserError, match=r"needs 1\.0 MB more, and .* has 0\.0 MB free; set HF_HOME"
    ):
        wan.find_folder(MODEL)
    assert not any(hub.served[name] for name in NEEDED)


# ---- no hub ----


def test_offline_what_was_fetched_is_used(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, own = wan.find_folder(MODEL), wan.find_folder(ORIGINAL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert wan.find_folder(MODEL) == folder
    assert wan.find_folder(MODEL, revision=COMMIT) == folder
    assert wan.find_folder(ORIGINAL) == own
    with pytest.raises(UserError, match=r"me/other is not here, .*: HF_HUB_OFFLINE is set; its pl"):
        wan.find_folder("me/other")
    (folder / "vae/config.json").unlink()
    with pytest.raises(UserError, match="me/model is not here, or not wholly"):
        wan.find_folder(MODEL)


def test_a_hub_that_cannot_be_reached_is_done_without(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wan.find_folder(MODEL)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert wan.find_folder(MODEL) == folder
    with pytest.raises(UserError, match=r"me/other is not here, .* the hub cannot be reached"):
        wan.find_folder("me/other")


def test_a_refusal_says_what_to_do(hub: HubServer) -> None:
    with pytest.raises(UserError, match="the hub has no such model; it may be misspelt, or priv"):
        wan.find_folder("me/nothing")
    hub.files["me/notes"] = {"README.md": b"# Notes"}
    with pytest.raises(UserError, match=r"me/notes holds nothing of what is .*config\.json"):
        wan.find_folder("me/notes")
    hub.gated = True
    with pytest.raises(UserError, match=r"who accept its terms; .* HF_TOKEN"):
        wan.find_folder(MODEL)
