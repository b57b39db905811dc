"""Encoding once, resuming, noticing what changed; batches and their order."""

import io
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape
from colibri.core.hashing import hash_file
from colibri.core.shards import SHARD_SCHEMA, read_rows, write_shard
from colibri.core.wan.decoder import encode_video
from colibri.core.wan.text import encode_text
from colibri.distill.config import EncodeConfig, TrainConfig
from colibri.distill.data import Encoded, Order, positions
from colibri.distill.embedded import write_embedded
from colibri.distill.encode import encode, fit_image
from colibri.distill.encodings import cut
from colibri.distill.train import train
from PIL import Image
from safetensors.torch import load_file

SHAPE = LatentShape(channels=16, frames=3, height=4, width=4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedded(tmp_path_factory.mktemp("shards"), rows=7)


@pytest.fixture
def config(shards: Path, folder: str, tmp_path: Path) -> EncodeConfig:
    return EncodeConfig(
        shards=shards, out=tmp_path / "encoded", model=folder, size=(32, 32), shard_rows=3, batch=2
    )


def _open(path: Path, *, clips: bool = False) -> Encoded:
    from colibri.core.wan.family import TINY_TI2V

    return Encoded(path, codec=TINY_TI2V.codec, shape=SHAPE, text_width=64, clips=clips)


def _clips(path: Path) -> dict[str, torch.Tensor]:
    (file,) = (path / "clips").iterdir()
    return load_file(file)


def _hashes(path: Path) -> dict[str, str]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return {file.relative_to(path).as_posix(): hash_file(file) for file in files}


def _changed(shards: Path, target: Path, change: Any) -> Path:
    rows = [dict(row) for row in read_rows(shards / "data" / "00000.parquet")]
    change(rows)
    write_shard(target / "data" / "00000.parquet", rows, SHARD_SCHEMA)
    return target


def test_rows_are_what_the_encoders_say(config: EncodeConfig, folder: str) -> None:
    made = encode(config)
    assert (made.encoded, made.found) == (7, 0)
    assert max(len(shard.rows) for shard in made.manifest.shards) <= 3
    model = wan.load(folder, parts=("tokenizer", "text_encoder", "vae"))
    rows = list(read_rows(config.shards / "data" / "00000.parquet"))
    data = _open(config.out)
    for row in rows:
        of = data.batch((row["id"],), given=(True,), device="cpu")
        words = encode_text(model.tokenizer, model.text_encoder, [row["caption"]], max_tokens=64)
        torch.testing.assert_close(of.text_BLD, words, rtol=1e-5, atol=1e-6)
        with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
            small = picture.resize((32, 32), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.asarray(small).copy()).float() / 127.5 - 1
        latent = encode_video(model.vae, pixels.permute(2, 0, 1)[None, :, None])
        torch.testing.assert_close(of.first_BCTHW, latent, rtol=1e-4, atol=1e-4)
        assert of.clean_first is not False


def test_stopped_and_resumed_gives_the_same_bytes(config: EncodeConfig, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    before = 0

    def stop(done: int, found: int, refused: int) -> None:
        nonlocal before
        before = done
        if done >= 3:
            raise Stop

    with pytest.raises(Stop):
        encode(config, on_shard=stop)
    with pytest.raises(UserError, match="no finished encodings"):
        _open(config.out)
    again = encode(config)
    assert (again.encoded, again.found) == (7 - before, before)
    assert 3 <= before < 7
    whole = replace(config, out=tmp_path / "whole")
    encode(whole)
    assert _hashes(config.out) == _hashes(whole.out)
    assert encode(config).encoded == 0


def test_a_changed_caption_is_encoded_again_and_no_other(
    config: EncodeConfig, shards: Path, tmp_path: Path
) -> None:
    before = encode(config).manifest

    def change(rows: list[dict[str, Any]]) -> None:
        rows[4]["caption"] = "a red circle moves left"

    other = _changed(shards, tmp_path / "changed", change)
    after = encode(replace(config, shards=other))
    assert (after.encoded, after.found) == (1, 6)
    assert after.manifest.data_hash != before.data_hash


def test_an_added_row_changes_its_own_shard_alone() -> None:
    ids = [f"row {index}" for index in range(400)]
    before = cut(ids, 16)
    assert [row for part in before.values() for row in part] == ids
    assert max(map(len, before.values())) == 16
    after = cut([*ids[:40], "another", *ids[40:]], 16)
    changed = [name for name, rows in after.items() if before.get(name) != rows]
    assert len(changed) <= 3
    assert len(before.keys() - cut(ids[:-1], 16).keys()) == 1


def test_an_added_row_is_encoded_and_no_other(
    config: EncodeConfig, shards: Path, tmp_path: Path
) -> None:
    less = _changed(shards, tmp_path / "less", lambda rows: rows.pop(3))
    assert encode(replace(config, shards=less)).encoded == 6
    after = encode(config)
    assert (after.encoded, after.found) == (1, 6)
    held = {shard.name for shard in after.manifest.shards}
    for kind, more in (("text", {"null.safetensors"}), ("first", set())):
        assert {path.name for path in (config.out / kind).iterdir()} == held | more
    _open(config.out)


def test_a_folder_with_the_same_rows_keeps_its_shards(config: EncodeConfig) -> None:
    """Also one whose shards are cut in another way."""
    before = encode(replace(config, shard_rows=4)).manifest
    after = encode(config)
    assert after.manifest == before
    assert after.encoded == 0


def test_processes_share_the_shards_and_write_what_one_does(
    config: EncodeConfig, tmp_path: Path
) -> None:
    encode(config)
    out = tmp_path / "two"
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from colibri.distill.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [
        *("encode", "--shards", config.shards, "--out", out, "--model", config.model),
        *("--size", "32x32", "--shard-rows", 3, "--batch", 2, "--device", "cpu"),
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [one.communicate(timeout=300)[0] for one in started]
    assert [one.returncode for one in started] == [0, 0]
    assert all("encoded now 7, found 0" in text for text in said)
    assert _hashes(out) == _hashes(config.out)


def test_clips_follow_their_videos(config: EncodeConfig, tmp_path: Path) -> None:
    """Videos that appear are encoded, one that changes is encoded again, and no other."""
    full = write_embedded(tmp_path / "full", rows=3, videos=True)
    names = [row["video"] for row in read_rows(full / "data" / "00000.parquet")]
    bare = replace(config, shards=write_embedded(tmp_path / "bare", rows=3), clips=9, shard_rows=8)
    absent = encode(bare).manifest
    with pytest.raises(UserError, match="clips of no row"):
        _open(config.out, clips=True)

    there = replace(bare, videos=full)
    found = encode(there).manifest
    assert found.data_hash != absent.data_hash
    assert len(_open(config.out, clips=True).rows) == 3
    before = _clips(config.out)

    shutil.copy(full / names[1], full / names[0])
    changed = encode(there).manifest
    assert changed.data_hash != found.data_hash
    ids = [row["id"] for row in read_rows(full / "data" / "00000.parquet")]
    after = _clips(config.out)
    assert torch.equal(after[ids[0]], before[ids[1]])
    assert all(torch.equal(after[row], before[row]) for row in ids[1:])
    assert encode(there).manifest == changed


def test_another_encoder_is_noticed(
    config: EncodeConfig, settings: TrainConfig, family: Any, tmp_path: Path
) -> None:
    from colibri.core.wan.text import word_tokenizer

    encode(config)
    for part, message in (("vae", "another VAE"), ("text_encoder", "another text encoder")):
        model = wan.build(family, seed=0, tokenizer=word_tokenizer(["a"]))
        other = wan.build(family, seed=1, parts=(part,))
        setattr(model, part, getattr(other, part))
        if part == "text_encoder":
            model.tokenizer = wan.load(settings.teacher, parts=("tokenizer",)).tokenizer
        wan.save(model, tmp_path / part)
        assert encode(replace(config, model=str(tmp_path / part), out=tmp_path / "x")).found == 0
        with pytest.raises(UserError, match=message):
            train(
                replace(
                    settings,
                    teacher=str(tmp_path / part),
                    encoded=config.out,
                    out=tmp_path / "out",
                )
            )


def test_broken_rows_are_refused_with_a_reason(
    config: EncodeConfig, shards: Path, tmp_path: Path
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["caption"] = "  "
        rows[1]["image"] = {"bytes": b"no picture", "path": None}
        rows[2]["image"] = None
        rows[3]["split"] = "held-out"

    other = _changed(shards, tmp_path / "broken", change)
    ids = [row["id"] for row in read_rows(other / "data" / "00000.parquet")]
    manifest = encode(replace(config, shards=other)).manifest
    assert set(manifest.refused) == {f"{ids[0]}: no caption", f"{ids[1]}: image cannot be read"}
    data = _open(config.out)
    assert set(data.rows) == {ids[2], *ids[4:]}
    assert data.with_frame == set(ids[4:])
    of = data.batch((ids[2], ids[4]), given=(True, True), device="cpu")
    assert of.given_B.tolist() == [False, True]


def test_frames_that_are_asked_for_and_not_there_are_told(
    config: EncodeConfig, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def bare(rows: list[dict[str, Any]], count: int) -> None:
        for row in rows[:count]:
            row["image"] = None

    some, none = (
        _changed(shards, tmp_path / str(count), lambda rows, count=count: bare(rows, count))
        for count in (3, 7)
    )
    encode(replace(config, shards=some))
    data = _open(config.out)
    data.check_frames(0.5)
    assert "3 of 7 rows have no first frame: 28.6 % of samples are image to" in caplog.text
    with pytest.raises(UserError, match=r"3 rows without a first frame, and --p-i2v 1 needs one"):
        data.check_frames(1)
    encode(replace(config, shards=none))
    data = _open(config.out)
    data.check_frames(0)
    with pytest.raises(UserError, match=r"no row with a first frame, and --p-i2v 0\.5 asks for"):
        data.check_frames(0.5)


def test_missing_and_cut_files_are_refused(config: EncodeConfig, tmp_path: Path) -> None:
    encode(config)
    first, second = encode(config).manifest.shards[:2]
    path = config.out / "text" / second.name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="cut off"):
        _open(config.out)
    assert encode(config).encoded == len(second.rows)
    _open(config.out)
    (config.out / "first" / first.name).unlink()
    with pytest.raises(UserError, match="no file"):
        _open(config.out)
    with pytest.raises(UserError, match="no curated shards"):
        encode(replace(config, shards=tmp_path))
    with pytest.raises(UserError, match="height 30"):
        encode(replace(config, size=(30, 32)))


def test_a_row_that_comes_twice_is_refused(
    config: EncodeConfig, shards: Path, tmp_path: Path
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[1]["id"] = rows[0]["id"]

    with pytest.raises(UserError, match="comes twice"):
        encode(replace(config, shards=_changed(shards, tmp_path / "twice", change)))


def test_images_are_cut_around_the_middle() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, format="PNG")
    assert (fit_image(buffer.getvalue(), height=10, width=10) == 1).all()


def test_an_epoch_has_each_row_once_in_a_fresh_order() -> None:
    rows = tuple("abcdefgh")
    order = Order(rows, seed=0, stream=0)
    epochs = [[order.at(8 * epoch + index) for index in range(8)] for epoch in range(3)]
    assert all(sorted(epoch) == list(rows) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    late = Order(rows, seed=0, stream=0)
    assert late.at(19) == epochs[2][3]
    assert [Order(rows, seed=0, stream=1).at(i) for i in range(8)] != epochs[0]


@pytest.mark.parametrize(("world", "batch", "accumulate"), [(1, 8, 1), (2, 4, 1), (2, 1, 4)])
def test_an_updates_samples_do_not_depend_on_the_split(
    world: int, batch: int, accumulate: int
) -> None:
    found = [
        position
        for micro in range(accumulate)
        for rank in range(world)
        for position in positions(
            5, micro=micro, rank=rank, world=world, batch=batch, accumulate=accumulate
        )
    ]
    assert found == list(range(40, 48))


def test_embedded_rows_are_curated_shards(shards: Path) -> None:
    table = pq.read_table(shards / "data" / "00000.parquet")
    assert table.schema.equals(SHARD_SCHEMA)
    assert table.num_rows == 7
    assert len(set(table["id"].to_pylist())) == 7
