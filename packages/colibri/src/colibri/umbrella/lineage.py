"""Where a file comes from: walk from a video to its model, teacher, encodings, shards, source rows.

Every artefact of the chain carries the hashes of what it was made from. A parent is the artefact
among some folders whose content has that hash; a name alone is never enough where a hash is known.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colibri.core.errors import UserError
from colibri.core.hashing import hash_file, hash_text
from colibri.core.shards import read_rows

MODEL, STUDENT, QUANTIZED = "model_index.json", "distill.json", "quantization.json"
NO_DECODER = ("transformer", "text_encoder", "tokenizer")
ROW = ("id", "source", "video", "member", "caption_original", "caption", "image", "licence")


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One thing of the chain, and what it was made from."""

    kind: str
    path: str | None
    """Where it lies; None where it was not found."""
    facts: tuple[str, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    parents: tuple["Link", ...] = ()
    rows: tuple[dict[str, Any], ...] = ()
    """Of shards: the source rows that were learned from."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """From an artefact to a parent."""

    role: str
    by: str
    """How the parent was recognised: what has the same hash, or `name` where none is recorded."""
    parent: Artefact


def trace(file: Path, among: Sequence[Path] | None = None) -> Artefact:
    """The artefact that `file` is or lies in, with its parents as far as they are found.

    UserError where there is no such file or folder, or it is nothing of the chain.
    """
    if not file.exists():
        raise UserError(f"there is no file {file}")
    for folder in among or ():
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}", hint="check --among")
    walker = _Walker(tuple(among or (_around(file),)))
    if file.suffix.lower() == ".mp4":
        return walker.video(file)
    for folder in (file, *file.absolute().parents)[:4]:
        if found := walker.folder(folder):
            return found
    raise UserError(
        f"{file} is nothing that the chain has made",
        hint="give a video of infer, or a folder of curate, distill, vae or infer quantize",
    )


def text(artefact: Artefact, *, rows: int = 3) -> str:
    """A tree for people, with `rows` source rows."""
    return "\n".join(_lines(artefact, "", rows))


def to_json(artefact: Artefact) -> dict[str, Any]:
    """The tree as plain values."""
    table = {key: value for key, value in vars(artefact).items() if key != "parents"}
    table |= {"facts": list(artefact.facts), "rows": [dict(row) for row in artefact.rows]}
    parents = [
        {"role": link.role, "by": link.by, "of": to_json(link.parent)} for link in artefact.parents
    ]
    return table | {"parents": parents}


class _Walker:
    """Looks for artefacts by their hashes below some folders."""

    def __init__(self, among: tuple[Path, ...]) -> None:
        self.among = among
        self._models: list[Path] = []
        self._decoders: list[Path] = []
        self._encodings: list[Path] = []
        self._shards: list[Path] = []
        for folder in _folders(among):
            names = {path.name for path in folder.iterdir()}
            if MODEL in names:
                self._models.append(folder)
            if "config.json" in names and folder.name not in NO_DECODER:
                self._decoders.append(folder)
            self._decoders += sorted(folder.glob("taew*"))
            if {"manifest.json", "text", "first"} <= names:
                self._encodings.append(folder)
            if "data" in names and any((folder / "data").glob("*.parquet")):
                self._shards.append(folder)
        self._models += _embedded()

    def folder(self, folder: Path) -> Artefact | None:
        """What a folder is; None where it is nothing of the chain."""
        if not folder.is_dir():
            return None
        if (folder / MODEL).is_file():
            return self.model(folder)
        if (folder / "manifest.json").is_file() and (folder / "text").is_dir():
            return self.encodings(folder)
        if any((folder / "data").glob("*.parquet")):
            return self.shards(folder, None)
        with contextlib.suppress(OSError, ValueError):
            table = json.loads((folder / "config.json").read_text("utf-8"))
            if isinstance(table.get("teacher"), dict) and "hash" in table["teacher"]:
                return self.decoder(folder)
        return None

    # ---- one kind each ----

    def video(self, path: Path) -> Artefact:
        from colibri.infer.recipe import read_video

        recipe, made = read_video(path)
        use = recipe.model
        hashes = {
            "transformer": use.transformer,
            "text_encoder": use.text_encoder,
            "vae": use.vae,
        }
        facts = [
            f"“{recipe.prompt}”, seed {recipe.seed}",
            f"{recipe.width}x{recipe.height}, {recipe.frames} frames, {recipe.sampler}, "
            f"{recipe.flow.steps} steps, guidance {recipe.guidance:g}",
        ]
        if recipe.prompt_used != recipe.prompt:
            facts.append(f"given to the model as “{recipe.prompt_used}” (by {recipe.recap})")
        if recipe.image_sha256:
            facts.append(f"first frame {recipe.image_sha256[:12]}")
        facts += [f"LoRA {lora.path} x{lora.scale:g} {lora.sha256[:12]}" for lora in recipe.loras]
        if shared := made.versions.get("shared"):
            facts.append(f"denoised {shared}")
        found = self._find_model("transformer", use.transformer)
        model = Link(
            role="model",
            by="hash of its transformer",
            parent=self.model(found)
            if found
            else _missing("model", f"asked for as {use.source}", hashes),
        )
        return Artefact(
            kind="video",
            path=str(path),
            facts=tuple(facts),
            hashes={"recipe": recipe.fingerprint, "frames": made.frames_sha256},
            parents=(model, self._decoder_of(recipe.decoder)) if recipe.decoder else (model,),
        )

    def model(self, folder: Path) -> Artefact:
        hashes = {part: _hash_part(folder, part) for part in ("transformer", "text_encoder")}
        hashes["vae"] = _vae_hash(folder)
        if (folder / QUANTIZED).is_file():
            return self._quantized(folder, hashes)
        if (folder / STUDENT).is_file():
            return self._student(folder, hashes)
        about = _json(folder / "colibri.json") or {}
        training = (_json(folder / "training.json") or {}).get("lengths", {})
        facts = [str(about.get("family") or folder.name)]
        if training:
            lengths = "; ".join(f"{part} {' + '.join(map(str, n))}" for part, n in training.items())
            facts.append(f"trained in the small world, steps: {lengths}")
        return Artefact(kind="model", path=str(folder), facts=tuple(facts), hashes=hashes)

    def _quantized(self, folder: Path, hashes: dict[str, str]) -> Artefact:
        report = _json(folder / QUANTIZED) or {}
        links = []
        for part in ("transformer", "text_encoder"):
            wanted = (_json(folder / part / "quantized.json") or {}).get("source")
            if wanted:
                found = self._find_model(part, wanted)
                parent = (
                    self.model(found)
                    if found
                    else _missing(
                        "model", f"asked for as {report.get('source')}", {"transformer": wanted}
                    )
                )
                links.append(Link(role="source", by=f"hash of its {part}", parent=parent))
                break
        facts = (f"{report.get('scheme')} weights",)
        return Artefact(
            kind="quantised model",
            path=str(folder),
            facts=facts,
            hashes=hashes,
            parents=tuple(links),
        )

    def _student(self, folder: Path, hashes: dict[str, str]) -> Artefact:
        about = _json(folder / STUDENT) or {}
        try:
            config, vae, encoded = about["config"], about["vae_hash"], about["data_hash"]
            facts = (
                f"{len(about['schedule']['sigmas']) - 1} steps, guidance 1, trained for "
                f"{about['step']} updates on {about['rows']} rows",
                f"losses {', '.join(config['terms'])}; {config['mode']}, rollout "
                f"{config['rollout']}, seed {config['seed']}",
            )
            teacher, transformer = str(config["teacher"]), about["teacher_transformer"]
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder / STUDENT} is damaged: {error}") from None
        found = self._find_encodings(encoded)
        data = self.encodings(found) if found else _missing("encodings", "", {"data_hash": encoded})
        return Artefact(
            kind="student",
            path=str(folder),
            facts=facts,
            hashes=hashes | {"data": encoded},
            parents=(
                self._teacher(teacher, vae, transformer),
                Link(role="data", by="hash of captions, images and encoders", parent=data),
            ),
        )

    def _teacher(self, name: str, vae: str, transformer: str) -> Link:
        """A student gives the hashes of its teacher's transformer and of the VAE they share."""
        hashes = {"transformer": transformer, "vae": vae}
        places = [path for path in (Path(name), *self._models) if (path / MODEL).is_file()]
        found = next((p for p in places if _hash_part(p, "transformer") == transformer), None)
        parent = self.model(found) if found else _missing("model", name, hashes)
        return Link(role="teacher", by="hash of its transformer", parent=parent)

    def encodings(self, folder: Path) -> Artefact:
        from colibri.distill.encodings import read_manifest

        manifest = read_manifest(folder)
        ids = [row for shard in manifest.shards for row in shard.rows]
        height, width = manifest.size
        links = []
        for shards in self._shards:
            rows = _rows_of(shards, set(ids))
            if len(rows) == len(ids):
                links.append(
                    Link(
                        role="shards",
                        by=_same_content(manifest, rows),
                        parent=self.shards(shards, set(ids)),
                    )
                )
                break
        else:
            links.append(
                Link(
                    role="shards",
                    by="row ids",
                    parent=_missing("shards", f"{len(ids)} rows, {ids[0]} among them", {}),
                )
            )
        return Artefact(
            kind="encodings",
            path=str(folder),
            facts=(f"{len(ids):,} rows, first frames of {width}x{height}",),
            hashes={
                "data": manifest.data_hash,
                "text_encoder": manifest.text_hash,
                "vae": manifest.vae_hash,
            },
            parents=tuple(links),
        )

    def shards(self, folder: Path, ids: set[str] | None) -> Artefact:
        rows = _rows_of(folder, ids)
        manifest = _json(folder / "manifest.json") or {}
        facts, hashes, links = [f"{len(rows):,} rows"], {}, []
        if "counts" in manifest:
            counts = manifest["counts"]
            facts = [
                f"{len(rows):,} rows learned from; {counts['in']:,} in = {counts['kept']:,} kept + "
                f"{counts['rejected']:,} rejected + {counts['quarantined']:,} quarantined",
                f"captions by {manifest['captioner']['name']}",
            ]
        for shard in manifest.get("shards", ()):
            path = folder / shard["path"]
            whole = path.is_file() and hash_file(path) == shard["sha256"]
            hashes[shard["path"]] = shard["sha256"]
            if not whole:
                facts.append(f"{shard['path']} is not as its manifest says")
        for source, tables in manifest.get("inputs", {}).items():
            some = Counter(row["licence"] for row in rows.values() if row["source"] == source)
            known = tuple(f"{count:,} rows, licence {licence}" for licence, count in some.items())
            links.append(
                Link(
                    role="source",
                    by="hash of its tables",
                    parent=Artefact(
                        kind="data set", path=None, facts=(source, *known), hashes=dict(tables)
                    ),
                )
            )
        shown = tuple(
            {key: row[key] for key in ROW if key != "image"} for _, row in sorted(rows.items())
        )
        return Artefact(
            kind="shards",
            path=str(folder),
            facts=tuple(facts),
            hashes=hashes,
            parents=tuple(links),
            rows=shown,
        )

    def decoder(self, place: Path) -> Artefact:
        """A folder, or TAEHV's file; foreign ones do not say what they were made from."""
        from colibri.infer.light import hash_decoder

        table = (_json(place / "config.json") if place.is_dir() else None) or {}
        teacher, training = table.get("teacher") or {}, table.get("training") or {}
        facts = [f"{training.get('step', '?')} steps, seed {training.get('seed', '?')}"]
        links = []
        if wanted := teacher.get("hash"):
            found = next((path for path in self._models if _vae_hash(path) == wanted), None)
            missing = _missing("model", str(teacher.get("id")), {"vae_hash": wanted})
            parent = self.model(found) if found else missing
            links.append(Link(role="teacher", by="hash of its VAE", parent=parent))
            links += self._clips(place.parent, wanted)
        else:
            facts = ["it does not say which VAE it was trained for"]
        return Artefact(
            kind="light decoder",
            path=str(place),
            facts=tuple(facts),
            hashes={"decoder": hash_decoder(place)},
            parents=tuple(links),
        )

    def _decoder_of(self, use: Any) -> Link:
        found = self._find_decoder(use.source, use.sha256)
        missing = _missing("light decoder", f"asked for as {use.source}", {"decoder": use.sha256})
        parent = missing
        if found:
            both = (found, found.parent)  # a model's own VAE can be decoded the faster way
            model = next((folder for folder in both if (folder / MODEL).is_file()), None)
            parent = self.model(model) if model else self.decoder(found)
        return Link(role="decoder", by="hash of its config and weights", parent=parent)

    def _clips(self, run: Path, teacher: str) -> Iterator[Link]:
        """What a decoder was trained on, from the run that it lies in: by name alone."""
        settings = _json(run / "run.json") or {}
        if settings.get("teacher_hash") != teacher or "clips" not in settings:
            return
        if settings["clips"] is None:
            parent = Artefact(
                kind="data set", path=None, facts=("clips of the rendered small world",)
            )
        else:
            name = Path(settings["clips"])
            among = (path for path in self._shards if path.parts[-len(name.parts) :] == name.parts)
            found = next(among, None)
            parent = self.shards(found, None) if found else _missing("clips", str(name), {})
        yield Link(role="clips", by="name", parent=parent)

    # ---- by hash ----

    def _find_model(self, part: str, wanted: str) -> Path | None:
        return next((path for path in self._models if _hash_part(path, part) == wanted), None)

    def _find_decoder(self, name: str, wanted: str) -> Path | None:
        from colibri.infer.light import hash_decoder

        own = [model / "vae" for model in self._models]
        for place in (Path(name), *self._decoders, *own):
            with contextlib.suppress(UserError):
                if place.exists() and hash_decoder(place) == wanted:
                    return place
        return None

    def _find_encodings(self, wanted: str) -> Path | None:
        from colibri.distill.encodings import read_manifest

        for folder in self._encodings:
            with contextlib.suppress(UserError):
                if read_manifest(folder).data_hash == wanted:
                    return folder
        return None


def _same_content(manifest: Any, rows: dict[str, dict[str, Any]]) -> str:
    """Whether the rows' captions and images are those that were encoded."""
    for shard in manifest.shards:
        keys = []
        for name in shard.rows:
            image = (rows[name]["image"] or {}).get("bytes")
            digest = hashlib.sha256(image).hexdigest() if image else ""
            keys.append(hash_text((rows[name]["caption"] or "").strip(), digest))
        if hash_text(manifest.text_hash, manifest.vae_hash, *keys) != shard.content:
            return "row ids; captions or images have changed since"
    return "hash of every caption and image"


def _rows_of(folder: Path, ids: set[str] | None) -> dict[str, dict[str, Any]]:
    """Rows of a folder of shards by id, all or some."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "data").glob("*.parquet")):
        try:
            found |= {
                row["id"]: row for row in read_rows(path, ROW) if ids is None or row["id"] in ids
            }
        except (OSError, KeyError, ValueError):  # pyarrow's errors are of these kinds
            continue  # parquet of something else
    return found


def _hash_part(folder: Path, part: str) -> str:
    from colibri.infer.hashes import hash_parts

    parts = ("text_encoder", "tokenizer") if part == "text_encoder" else (part,)
    try:
        return hash_parts(folder, parts)
    except UserError:  # an incomplete model is nobody's parent
        return ""


def _vae_hash(folder: Path) -> str:
    from colibri.core.wan.folder import hash_vae_of

    try:
        return hash_vae_of(folder)
    except (UserError, OSError, ValueError):
        return ""


def _embedded() -> list[Path]:
    """The models that come with the testbed."""
    from colibri.testbed.embedded import DATA, embedded_model

    return [embedded_model(path.parent.name) for path in sorted(DATA.glob(f"*/{MODEL}"))]


def _around(file: Path) -> Path:
    """Where to look: the current folder where the file lies in it, else the file's own."""
    here, there = Path.cwd(), file.resolve()
    return Path() if there.is_relative_to(here) else there.parent


def _folders(roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        for place, names, _ in os.walk(root):
            names[:] = sorted(name for name in names if not name.startswith((".", "__")))
            yield Path(place)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _json(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        table = json.loads(path.read_text("utf-8"))
        return table if isinstance(table, dict) else None
    return None


def _missing(kind: str, name: str, hashes: dict[str, str]) -> Artefact:
    said = (f"{name}: " if name else "") + "not among the folders that were searched (--among)"
    return Artefact(kind=kind, path=None, facts=(said,), hashes=hashes)


# ---- for people ----


def _lines(artefact: Artefact, indent: str, rows: int) -> Iterator[str]:
    yield f"{artefact.kind}  {artefact.path or ''}".rstrip()
    for fact in artefact.facts:
        yield f"{indent}  {fact}"
    if artefact.hashes:
        known = (f"{name} {value[:12]}" for name, value in artefact.hashes.items() if value)
        yield f"{indent}  {', '.join(known)}"
    for row in artefact.rows[:rows]:
        yield f"{indent}  row {row['id']}  {row['source']}  {row['member'] or row['video']}"
        yield f"{indent}      “{_short(row['caption_original'])}”"
        if row["caption"] != row["caption_original"]:
            yield f"{indent}      now “{_short(row['caption'])}”"
    if len(artefact.rows) > rows:
        yield f"{indent}  and {len(artefact.rows) - rows:,} more rows (--rows, --json)"
    for link in artefact.parents:
        first, *rest = _lines(link.parent, indent + "    ", rows)
        yield f"{indent}  {link.role}, by {link.by}:"
        yield f"{indent}    {first}"
        yield from rest


def _short(value: str | None) -> str:
    text = value or ""
    return text if len(text) <= 96 else text[:95] + "…"
