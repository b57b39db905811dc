"""`vae encode`: latents kept on disk, whole or not at all, and training that reads them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core.errors import UserError
from colibri.core.geometry import Codec
from colibri.core.latents import read_latents, write_latents
from colibri.core.shards import SHARD_SCHEMA, write_shard
from colibri.core.video import write_video
from colibri.core.wan.decoder import LatentStats, hash_vae_folder, to_pixels
from colibri.testbed.footage import big_buck_bunny
from colibri.vae.batches import Examples
from colibri.vae.cli import main
from colibri.vae.clips import Cut, open_source, read_cut
from colibri.vae.config import EncodeConfig, LossConfig
from colibri.vae.encode import encode, plan
from colibri.vae.train import train
from colibri.vae.wan import WanCore

from .conftest import small_training

CODEC = Codec(time=4, space=8, channels=16)


def _encoding(vae_folder: Path, out: Path, **changes: Any) -> EncodeConfig:
    plain: dict[str, Any] = {"count": 5, "cuts": 2, "frames": 5, "crop": (32, 32), "shard": 4}
    return EncodeConfig(teacher=str(vae_folder), out=out, device="cpu", **(plain | changes))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Killed(Exception):
    pass


def _kill(_shard: int) -> None:
    raise Killed


def test_kept_latents_are_those_of_their_cut(
    teacher: Any, vae_folder: Path, tmp_path: Path
) -> None:
    done = encode(_encoding(vae_folder, tmp_path))
    assert (done.shards, done.cuts, done.kept, done.refused) == (3, 10, 10, 0)
    found = read_latents(
        tmp_path / "shards" / "000001.safetensors", vae_hash=hash_vae_folder(vae_folder)
    )
    assert found.codec == CODEC
    source = open_source(None, None, "train")
    for key, table in found.recipe["cuts"].items():
        cut = Cut(**{name: table[name] for name in Cut.__dataclass_fields__})
        pixels = to_pixels(read_cut(source, cut, 5, (32, 32)))
        raw = teacher.encode(pixels).latent_dist.mode()
        expected = LatentStats.of(teacher.config).normalise(raw)[0]
        torch.testing.assert_close(found.latents[key], expected, rtol=0, atol=1e-5)


def test_a_killed_run_goes_on_to_the_same_bytes(vae_folder: Path, tmp_path: Path) -> None:
    encode(_encoding(vae_folder, tmp_path / "a"))
    with pytest.raises(Killed):
        encode(_encoding(vae_folder, tmp_path / "b"), after_shard=_kill)
    assert not (tmp_path / "b" / "manifest.json").exists()
    first = tmp_path / "b" / "shards" / "000000.safetensors"
    written = first.stat().st_mtime_ns
    encode(_encoding(vae_folder, tmp_path / "b"))
    assert first.stat().st_mtime_ns == written
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_training_from_kept_latents_is_training_from_clips(
    vae_folder: Path, tmp_path: Path
) -> None:
    encode(_encoding(vae_folder, tmp_path / "latents"))
    trained = train(small_training(vae_folder, tmp_path / "a", latents=tmp_path / "latents"))
    again = train(
        small_training(vae_folder, tmp_path / "b", latents=tmp_path / "latents", stop_after=2)
    )
    assert again.folder is None
    again = train(small_training(vae_folder, tmp_path / "b", latents=tmp_path / "latents"))
    assert trained.sha256 is not None
    assert again.sha256 == trained.sha256
    facts = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[0])
    assert facts["kl"] > 0
    assert set(facts) == {"step", "l1", "temporal", "features", "kl", "loss"}


def test_unreadable_clips_are_counted_and_the_run_goes_on(vae_folder: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(big_buck_bunny(), clips / "good.mp4")
    (clips / "broken.mp4").write_bytes(b"no video")
    done = encode(_encoding(vae_folder, tmp_path / "out", clips=clips, count=None))
    assert (done.cuts, done.kept, done.refused) == (4, 2, 2)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["kept"], manifest["refused"]) == (2, 2)
    assert str(tmp_path) not in "".join(
        data.decode("latin-1") for data in _files(tmp_path / "out").values()
    )
    config = small_training(vae_folder, tmp_path / "run", clips=clips, latents=tmp_path / "out")
    assert train(config).folder is not None
    # other clips than those that were encoded
    shutil.move(clips / "broken.mp4", clips / "zzz.mp4")
    shutil.move(clips / "good.mp4", clips / "b.mp4")
    with pytest.raises(UserError, match="give the --clips that were encoded"):
        train(replace(config, out=tmp_path / "moved"))
    shutil.rmtree(clips)
    clips.mkdir()
    (clips / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="2 cuts can be used, 2 for unreadable_video: not a video"):
        encode(_encoding(vae_folder, tmp_path / "none", clips=clips, count=None))


def _folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        frames = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        write_video(folder / name, frames, fps=25)
    return folder


def _kept(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Shard and latents of the one cut of each clip."""
    kept = {}
    for entry in json.loads((folder / "manifest.json").read_text())["shards"]:
        found = read_latents(folder / entry["path"])
        for key, table in found.recipe["cuts"].items():
            assert table["clip"] not in kept
            kept[table["clip"]] = entry["path"], found.latents[key].numpy().tobytes()
    return kept


def test_a_clip_that_was_added_is_encoded_and_those_before_it_stay(
    vae_folder: Path, tmp_path: Path
) -> None:
    clips = _folder_of(tmp_path / "clips", "b.mp4", "c.mp4")
    config = _encoding(vae_folder, tmp_path / "out", clips=clips, count=None, cuts=1, shard=1)
    encode(config)
    before = _kept(config.out)
    _folder_of(clips, "a.mp4")
    assert encode(config).kept == 3
    after = _kept(config.out)
    assert after.keys() == {"a.mp4", "b.mp4", "c.mp4"}
    assert {name: after[name] for name in before} == before
    # the cut of a clip does not depend on the others
    encode(replace(config, out=tmp_path / "at-once"))
    at_once = _kept(tmp_path / "at-once")
    assert all(at_once[name][1] == latents for name, (_, latents) in after.items())
    run = small_training(vae_folder, tmp_path / "run", clips=clips, latents=config.out)
    assert train(run).folder is not None


def test_clips_that_are_gone_or_of_another_folder_are_one_sentence(
    vae_folder: Path, tmp_path: Path
) -> None:
    clips = _folder_of(tmp_path / "clips", "b.mp4", "c.mp4")
    config = _encoding(vae_folder, tmp_path / "out", clips=clips, count=None, cuts=1)
    encode(config)
    other = _folder_of(tmp_path / "other" / "clips", "c.mp4", "d.mp4")
    with pytest.raises(
        UserError, match=r"'b\.mp4', which is not among these clips; choose another"
    ):
        encode(replace(config, clips=other))
    run = small_training(vae_folder, tmp_path / "run", clips=other, latents=config.out)
    with pytest.raises(
        UserError, match=r"'b\.mp4', which is not among these clips; give the --clips"
    ):
        train(run)


def test_a_shard_of_other_clips_is_not_taken_for_its_own(vae_folder: Path, tmp_path: Path) -> None:
    config = _encoding(vae_folder, tmp_path, count=2, cuts=1, shard=1)
    encode(config)
    shards = tmp_path / "shards"
    shutil.copy(shards / "000000.safetensors", shards / "000001.safetensors")
    with pytest.raises(UserError, match="holds cuts of other clips"):
        encode(config)


def test_segments_of_one_video_are_told_apart(vae_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(big_buck_bunny(), tmp_path / "data" / "bunny.mp4")
    empty = dict.fromkeys(SHARD_SCHEMA.names) | {"video": "bunny.mp4", "split": "train"}
    rows = [empty | {"id": str(n), "start_s": float(n), "num_frames": 9} for n in (3, 1)]
    write_shard(tmp_path / "shards" / "data" / "train-0.parquet", rows, SHARD_SCHEMA)
    clips = {"clips": tmp_path / "shards", "data_root": tmp_path / "data"}
    config = _encoding(vae_folder, tmp_path / "out", **clips, count=None, cuts=1)
    encode(config)
    before = _kept(config.out)
    assert before.keys() == {"1", "3"}
    write_shard(tmp_path / "shards" / "data" / "train-0.parquet", rows[::-1], SHARD_SCHEMA)
    encode(config)
    assert _kept(config.out) == before
    run = small_training(vae_folder, tmp_path / "run", **clips, latents=config.out)
    assert train(run).folder is not None


def test_a_changed_clip_is_noticed(vae_folder: Path, tmp_path: Path) -> None:
    latents = tmp_path / "latents"
    encode(_encoding(vae_folder, latents, count=2, cuts=1))
    path = latents / "shards" / "000000.safetensors"
    found = read_latents(path)
    cuts = found.recipe["cuts"]
    for table in cuts.values():
        table["pixels"] = "0" * 64
    write_latents(path, found.latents, codec=CODEC, vae_hash=found.vae_hash, recipe={"cuts": cuts})
    with pytest.raises(UserError, match="not the pixels that were encoded"):
        train(small_training(vae_folder, tmp_path / "run", latents=latents))


def test_latents_that_do_not_fit_are_one_sentence(
    teacher: Any, vae_folder: Path, tmp_path: Path
) -> None:
    from diffusers import AutoencoderKLWan

    latents = tmp_path / "latents"
    with pytest.raises(UserError, match="make them with vae encode"):
        train(small_training(vae_folder, tmp_path / "a", latents=latents))
    with pytest.raises(Killed):
        encode(_encoding(vae_folder, latents), after_shard=_kill)
    with pytest.raises(UserError, match="run the same vae encode again"):
        train(small_training(vae_folder, tmp_path / "b", latents=latents))
    with pytest.raises(UserError, match="another cuts"):
        encode(_encoding(vae_folder, latents, cuts=1))
    encode(_encoding(vae_folder, latents))
    with pytest.raises(UserError, match="pass --frames 5 --crop 32x32"):
        train(small_training(vae_folder, tmp_path / "c", latents=latents, frames=9))
    other = tmp_path / "other"
    torch.manual_seed(9)
    AutoencoderKLWan(**dict(teacher.config)).save_pretrained(other)
    with pytest.raises(UserError, match="was encoded by another VAE"):
        train(small_training(other, tmp_path / "d", latents=latents))
    with pytest.raises(UserError, match="another vae_hash"):
        encode(_encoding(other, latents))


def test_the_command_tells_its_plan_and_counts(
    vae_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["encode", "--teacher", str(vae_folder), "--out", str(tmp_path / "x"), "--count", "3"]
    words += ["--frames", "5", "--crop", "32x32"]
    assert main([*words, "--plan"]) == 0
    assert "16x2x4x4 a cut" in capsys.readouterr().out
    assert not (tmp_path / "x").exists()
    assert main(words) == 0
    assert "3 = 3 kept + 0 refused" in capsys.readouterr().out


def test_without_clips_or_a_teacher_cuts_are_as_large_as_the_small_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", "--out", str(tmp_path), "--count", "2", "--device", "cpu"]) == 0
    assert "2 = 2 kept + 0 refused" in capsys.readouterr().out
    assert json.loads((tmp_path / "encode.json").read_text())["crop"] == [64, 64]
    assert "24x5x8x8 a cut" in plan(EncodeConfig())
    assert "24x5x32x32 a cut" in plan(EncodeConfig(clips=big_buck_bunny().parent))


def test_a_teacher_without_a_config_is_one_sentence(vae_folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(vae_folder, bare)
    (bare / "config.json").unlink()
    for command in (plan, encode):
        with pytest.raises(UserError, match=r"has no config\.json"):
            command(_encoding(bare, tmp_path / "out"))


# ---- latents that a video model made ----


def _made(vae_folder: Path, folder: Path, frames: int = 3) -> Path:
    generator = torch.Generator().manual_seed(0)
    for index in range(2):
        trajectory = torch.randn(4, 16, frames, 6, 5, generator=generator)
        write_latents(
            folder / f"{index}.latents.safetensors",
            {"clip": trajectory},
            codec=CODEC,
            vae_hash=hash_vae_folder(vae_folder),
        )
    return folder


def test_made_latents_train_towards_what_the_teacher_decodes(
    vae_folder: Path, tmp_path: Path
) -> None:
    made = _made(vae_folder, tmp_path / "made")
    only = {"made": made, "made_share": 1.0, "losses": LossConfig(teacher_output=1.0)}
    train(small_training(vae_folder, tmp_path / "run", steps=30, **only))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    facts = [json.loads(line) for line in lines]
    assert "kl" not in facts[0]  # no encoder had a part in it
    assert facts[-1]["l1"] < 0.9 * facts[0]["l1"]
    # unclamped and clamped target differ little: the teacher's video is the clip
    assert facts[0]["l1"] == pytest.approx(facts[0]["teacher_output"], rel=0.1)


def test_made_latents_come_in_between_clips(vae_folder: Path, tmp_path: Path) -> None:
    made = _made(vae_folder, tmp_path / "made")
    train(small_training(vae_folder, tmp_path / "run", steps=12, made=made, made_share=0.5))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    encoded = ["kl" in json.loads(line) for line in lines]
    assert 0 < sum(encoded) < 12


def test_made_latents_are_cropped_anywhere(teacher: Any, vae_folder: Path, tmp_path: Path) -> None:
    rows = torch.arange(6.0)[:, None].expand(16, 2, 6, 4)  # each row holds its number
    write_latents(
        tmp_path / "made" / "x.safetensors",
        {"one": rows, "other": rows},
        codec=CODEC,
        vae_hash=hash_vae_folder(vae_folder),
    )
    config = small_training(vae_folder, tmp_path, made=tmp_path / "made", made_share=0.25)
    examples = Examples(config, WanCore(teacher), hash_vae_folder(vae_folder))
    stats = LatentStats.of(teacher.config)
    made = [batch for _, (batch,) in examples.steps(0, 60) if batch.clip is None]
    tops = {round(float(stats.normalise(batch.latents)[0, 0, 0, 0, 0])) for batch in made}
    assert tops == {0, 1, 2}


def test_made_latents_that_do_not_fit_are_one_sentence(vae_folder: Path, tmp_path: Path) -> None:
    short = _made(vae_folder, tmp_path / "short", frames=1)
    with pytest.raises(UserError, match="no latents of at least 2x4x4"):
        train(small_training(vae_folder, tmp_path / "a", made=short))
    foreign = tmp_path / "foreign"
    write_latents(
        foreign / "x.safetensors", {"clip": torch.zeros(16, 3, 6, 6)}, codec=CODEC, vae_hash="f00"
    )
    with pytest.raises(UserError, match="was encoded by another VAE"):
        train(small_training(vae_folder, tmp_path / "b", made=foreign))
