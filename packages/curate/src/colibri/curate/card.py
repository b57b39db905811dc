"""The data card: what the hub and `datasets` read first. Written from the manifest alone."""

from typing import Any


def data_card(manifest: dict[str, Any]) -> str:
    """README.md of a curated set; it loads `data/*.parquet` only, never refused rows."""
    counts = manifest["counts"]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files: data/*.parquet",
        "dataset_info:",
        "  features:",
        *_FEATURES,
        "tags: [video, text-to-video, image-to-video, captions]",
        "language: [en]",
        "---",
        "",
        "# Curated clips",
        "",
        f"{counts['kept']:,} clips of {counts['in']:,}, each with its first frame, the original "
        "caption and a caption under six rules.",
        f"{counts['rejected']:,} were rejected and {counts['quarantined']:,} quarantined, each "
        "with a reason.",
        "",
        "| source | in | kept | rejected | quarantined |",
        "|---|---|---|---|---|",
    ]
    for source, entry in sorted(counts["by_source"].items()):
        rejected = sum(entry["rejected"].values())
        quarantined = sum(entry["quarantined"].values())
        lines.append(f"| {source} | {entry['in']} | {entry['kept']} | {rejected} | {quarantined} |")
    lines += ["", f"Captions by `{manifest['captioner']['name']}`."]
    if manifest["captioner"]["is_embedded"]:
        lines += [
            "This is the small embedded rule engine: it drops and mends clauses of the original "
            "caption. It does not understand the scene, and a large language model writes better.",
        ]
    licences = [fact for fact in manifest["facts"] if "licence" in fact]
    if licences:
        lines += ["", "## Licences", "", *(f"- {fact}" for fact in licences)]
    return "\n".join(lines) + "\n"


_FEATURES = """\
  - {name: id, dtype: string}
  - {name: source, dtype: string}
  - {name: video, dtype: string}
  - {name: member, dtype: string}
  - {name: start_s, dtype: float64}
  - {name: image, dtype: image}
  - {name: width, dtype: int32}
  - {name: height, dtype: int32}
  - {name: fps, dtype: float64}
  - {name: num_frames, dtype: int32}
  - {name: caption_original, dtype: string}
  - {name: caption, dtype: string}
  - {name: captioner, dtype: string}
  - name: findings
    list:
    - {name: rule, dtype: string}
    - {name: start, dtype: int32}
    - {name: end, dtype: int32}
    - {name: text, dtype: string}
    - {name: message, dtype: string}
    - {name: ambiguous, dtype: bool}
  - name: judge
    struct:
    - {name: score, dtype: float64}
    - {name: fluency, dtype: float64}
    - {name: faithfulness, dtype: float64}
    - {name: coverage, dtype: float64}
    - {name: band, dtype: float64}
    - {name: by, dtype: string}
    - name: rules
      list:
      - {name: rule, dtype: string}
      - {name: verdict, dtype: string}
      - {name: evidence, dtype: string}
  - {name: score, dtype: float64}
  - {name: licence, dtype: string}
  - {name: split, dtype: string}
  - {name: provenance, dtype: string}""".splitlines()
