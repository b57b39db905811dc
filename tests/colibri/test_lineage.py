"""From a video back to the rows that its model learned from."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.hashing import hash_text
from colibri.core.shards import SHARD_SCHEMA, write_json_whole, write_shard
from colibri.core.video import write_video
from colibri.core.wan.folder import hash_vae_of
from colibri.distill.encodings import (
    FORMAT,
    EncodedManifest,
    EncodedShard,
    write_manifest,
    write_text,
)
from colibri.infer.hashes import hash_parts
from colibri.infer.light import hash_decoder
from colibri.infer.recipe import DecoderUse, ModelUse
from colibri.umbrella.cli import main
from colibri.umbrella.lineage import Artefact, text, trace
from recipe_toys import write_clip
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, its student, the student's teacher and encodings, their shards."""
    root = tmp_path_factory.mktemp("chain")
    teacher, student = _model(root / "teacher", 1.0), _model(root / "student", 2.0)
    _model(root / "a model with the same VAE", 3.0)
    _shards(root / "curated")
    manifest = _encodings(root / "encoded", hash_vae_of(teacher))
    about = {
        "teacher_transformer": hash_parts(teacher, ("transformer",)),
        "vae_hash": hash_vae_of(teacher),
        "data_hash": manifest.data_hash,
        "rows": 2,
        "step": 9,
        "schedule": {"sigmas": [1.0, 0.9, 0.75, 0.0]},
        "config": {
            "teacher": "teacher",
            "terms": ["dmd"],
            "mode": "full",
            "rollout": "clip",
            "seed": 0,
        },
    }
    write_json_whole(student / "distill.json", about)
    use = ModelUse(
        source=str(student),
        revision=None,
        family="tiny-ti2v",
        text_encoder=hash_parts(student, ("text_encoder", "tokenizer")),
        transformer=hash_parts(student, ("transformer",)),
        vae=hash_vae_of(student),
    )
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    write_clip(root / "videos" / "a.mp4", frames, prompt="a red circle", model=use)
    light = DecoderUse(source="elsewhere", sha256=_decoder(root / "vae", hash_vae_of(teacher)))
    write_clip(
        root / "videos" / "light.mp4", frames, prompt="a red circle", model=use, decoder=light
    )
    return root


def _model(folder: Path, value: float) -> Path:
    write_json_whole(folder / "model_index.json", {"_class_name": "WanPipeline"})
    config = {"z_dim": 1, "latents_mean": [0.0], "latents_std": [1.0]}
    for part in ("transformer", "vae", "text_encoder", "tokenizer"):
        write_json_whole(folder / part / "config.json", config)
    for part, weight in (("transformer", value), ("vae", 0.5), ("text_encoder", 0.5)):
        save_file({"w": torch.tensor([weight])}, folder / part / "model.safetensors")
    return folder


def _decoder(run: Path, vae: str) -> str:
    """A light decoder in its training's folder; the hash that a recipe has of it."""
    table = {"teacher": {"id": "teacher", "hash": vae}, "training": {"step": 7, "seed": 3}}
    write_json_whole(run / "decoder" / "config.json", table)
    weights = {"w": torch.tensor([1.0])}
    save_file(weights, run / "decoder" / "diffusion_pytorch_model.safetensors")
    write_json_whole(run / "run.json", {"teacher_hash": vae, "clips": "curated"})
    return hash_decoder(run / "decoder")


def _shards(folder: Path) -> None:
    rows = [
        dict.fromkeys(SHARD_SCHEMA.names)
        | {
            "id": name,
            "source": "small-world",
            "video": f"{name}.mp4",
            "caption_original": f"The camera shows {caption}",
            "caption": caption,
            "licence": "apache-2.0",
        }
        for name, caption in (("one", "a red circle"), ("two", "a blue star"))
    ]
    shard = write_shard(folder / "data" / "shard-00000.parquet", rows, SHARD_SCHEMA)
    counts = {"in": 3, "kept": 2, "rejected": 1, "quarantined": 0}
    manifest = {
        "counts": counts,
        "captioner": {"name": "rules"},
        "inputs": {"small-world": {"world.csv": "0" * 64}},
        "shards": [{"path": shard.path, "sha256": shard.sha256, "rows": 2}],
    }
    write_json_whole(folder / "manifest.json", manifest)


def _encodings(folder: Path, vae: str) -> EncodedManifest:
    keys = [hash_text(caption, "") for caption in ("a red circle", "a blue star")]
    shard = EncodedShard(
        name="00000.safetensors",
        rows=("one", "two"),
        with_frame=(),
        content=hash_text("text", vae, *keys),
    )
    manifest = EncodedManifest(
        format=FORMAT,
        text_hash="text",
        vae_hash=vae,
        text_tokens=4,
        text_width=1,
        size=(64, 64),
        negative_prompt="",
        shards=(shard,),
        refused=(),
    )
    for kind in ("text", "first"):
        write_text(folder / kind / shard.name, {}, encoder="text", keys={}, captions={})
    write_manifest(folder, manifest)
    return manifest


def _kinds(found: Artefact) -> list[str]:
    return [found.kind, *(kind for link in found.parents for kind in _kinds(link.parent))]


def test_a_video_leads_to_its_source_rows(chain: Path) -> None:
    found = trace(chain / "videos" / "a.mp4", [chain])
    assert _kinds(found) == ["video", "student", "model", "encodings", "shards", "data set"]
    said = text(found)
    assert "by hash of every caption and image" in said
    assert "row one  small-world  one.mp4" in said
    assert "3 in = 2 kept + 1 rejected + 0 quarantined" in said


def test_a_video_leads_to_its_light_decoder_the_decoders_teacher_and_clips(chain: Path) -> None:
    (_, decoder) = trace(chain / "videos" / "light.mp4", [chain]).parents
    assert decoder.by == "hash of its config and weights"
    assert decoder.parent.path == str(chain / "vae" / "decoder")
    assert decoder.parent.facts == ("7 steps, seed 3",)
    teacher, clips = decoder.parent.parents
    assert (teacher.by, teacher.parent.kind) == ("hash of its VAE", "model")
    assert teacher.parent.hashes["vae"] == hash_vae_of(chain / "teacher")
    assert (clips.by, clips.parent.path) == ("name", str(chain / "curated"))
    assert [row["id"] for row in clips.parent.rows] == ["one", "two"]


def test_a_decoder_is_known_by_its_hash_and_not_by_its_name(chain: Path, tmp_path: Path) -> None:
    shutil.copytree(chain / "vae" / "decoder", tmp_path / "decoder")
    config = tmp_path / "decoder" / "config.json"
    write_json_whole(config, json.loads(config.read_text()) | {"training": {"step": 8}})
    (_, decoder) = trace(chain / "videos" / "light.mp4", [tmp_path]).parents
    assert decoder.parent.path is None
    assert decoder.parent.facts[0].startswith("asked for as elsewhere: not among the folders")


def test_a_teacher_is_known_by_its_transformer(chain: Path, tmp_path: Path) -> None:
    (teacher, data) = trace(chain / "student", [chain]).parents
    assert teacher.by == "hash of its transformer"
    assert teacher.parent.path == str(chain / "teacher")
    assert teacher.parent.hashes["transformer"] == wan.hash_part(chain / "teacher", "transformer")
    assert data.parent.kind == "encodings"
    shutil.copytree(chain / "student", tmp_path / "student")
    shutil.copytree(chain / "a model with the same VAE", tmp_path / "other")
    (teacher, _) = trace(tmp_path / "student", [tmp_path]).parents
    assert teacher.parent.path is None
    assert set(teacher.parent.hashes) == {"transformer", "vae"}


def test_a_folder_or_a_file_in_it_is_where_the_walk_can_begin(chain: Path) -> None:
    weights = chain / "student" / "transformer" / "model.safetensors"
    assert _kinds(trace(weights, [chain]))[0] == "student"
    assert _kinds(trace(chain / "encoded", [chain])) == ["encodings", "shards", "data set"]


def test_a_parent_is_known_by_its_hash_and_not_by_its_name(chain: Path, tmp_path: Path) -> None:
    found = trace(chain / "videos" / "a.mp4", [tmp_path])
    (link,) = found.parents
    assert link.parent.path is None
    assert "not among the folders that were searched" in link.parent.facts[0]


def test_rows_that_have_changed_since_are_told(chain: Path, tmp_path: Path) -> None:
    table = json.loads((chain / "encoded" / "manifest.json").read_text())
    table["shards"][0]["content"] = "another"
    for kind in ("text", "first"):
        write_text(tmp_path / kind / "00000.safetensors", {}, encoder="text", keys={}, captions={})
    write_json_whole(tmp_path / "manifest.json", table)
    (link,) = trace(tmp_path, [chain]).parents
    assert link.by == "row ids; captions or images have changed since"


def test_json_holds_every_row(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lineage", str(chain / "encoded"), "--among", str(chain), "--json"]
    assert main(arguments) == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in table["parents"][0]["of"]["rows"]] == ["one", "two"]


def test_bad_input_is_one_sentence(chain: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello")
    with pytest.raises(UserError, match="is nothing that the chain has made"):
        trace(note)
    with pytest.raises(UserError, match="there is no file"):
        trace(tmp_path / "none.mp4")
    with pytest.raises(UserError, match="check --among"):
        trace(note, [tmp_path / "none"])
    plain = tmp_path / "plain.mp4"
    write_video(plain, iter(np.zeros((2, 64, 64, 3), np.uint8)), fps=Fraction(8))
    with pytest.raises(UserError, match="holds no recipe of infer"):
        trace(plain)
