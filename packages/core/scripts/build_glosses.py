"""Build the captions' data/glosses.txt.gz: what WordNet 3.0 says of a word in words.

Reads WordNet's files (Debian: wordnet-base, /usr/share/wordnet). Line forms: `g LEMMA WORD...`,
content words that begin the glosses of a lemma's commonest senses for each part of speech;
`k LEMMA WORD...`, kinds above its rarer senses.
"""

import gzip
import re
import sys
from pathlib import Path

FILES = ("noun", "verb", "adj", "adv")
STOP = frozenset(
    (
        "a an the of or and in on at to for by with from as is are be been being was were that "
        "which who whose whom it its their his her your one ones used especially usually often "
        "typically having has have not no any some other such into than more most very used use "
        "made make consisting esp e g i etc something someone somebody thing things person "
        "people large small long short part kind type form group act state quality relating "
        "characterized cause become can may when where while up out off down over under between "
        "through about being without within so but if they them this these those all each both "
        "do does give put get go move take out many several particular similar like"
    ).split()
)
GLOSS_WORDS = 5
KINDS = frozenset("05 06 13 20".split())


def _kinds(offsets: list[str], synsets: dict[str, str]) -> list[str]:
    """Kinds above the rarer senses that are animals, things, food or plants."""
    found: list[str] = []
    for offset in offsets:
        cells = synsets[offset].split(" | ")[0].split()
        if cells[1] not in KINDS:
            continue
        for _ in range(5):
            position = 4 + 2 * int(cells[3], 16)
            ups = [i for i in range(position + 1, len(cells) - 3, 4) if cells[i] in ("@", "@i")]
            if not ups:
                break
            cells = synsets[cells[ups[0] + 1]].split(" | ")[0].split()
            names = [cells[4 + 2 * i] for i in range(int(cells[3], 16))]
            found += [name for name in names if name.isalpha() and name not in (*found, *TOP)]
    return found


TOP = frozenset(
    "entity object artifact artefact unit whole organism being instrumentality thing".split()
)


def main() -> None:
    """Read the folder given (default /usr/share/wordnet), write the table."""
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet")
    target = Path(__file__).parents[1] / "src/colibri/core/captions/data/glosses.txt.gz"
    glosses: dict[str, list[str]] = {}
    kinds: dict[str, list[str]] = {}
    for name in FILES:
        lines = (source / f"data.{name}").read_text().splitlines()
        synsets = {line.split(" ", 1)[0]: line for line in lines if not line.startswith(" ")}
        for line in (source / f"index.{name}").read_text().splitlines():
            if line.startswith(" "):
                continue
            cells = line.split()
            lemma, count = cells[0], int(cells[2])
            if not re.fullmatch(r"[a-z]{2,}", lemma):
                continue
            if name == "noun" and count > 2:
                kinds[lemma] = _kinds(cells[-count:][2:], synsets)
            for offset in cells[-count:][:2]:
                told = synsets[offset].split(" | ")[1].split(";")[0].split("such as")[0]
                words = [w for w in re.findall(r"[a-z]{3,}", told.lower()) if w not in STOP]
                kept = glosses.setdefault(lemma, [])
                kept += [w for w in words[:GLOSS_WORDS] if w not in kept and w != lemma]
    out = [f"g {lemma} {' '.join(words)}" for lemma, words in sorted(glosses.items()) if words]
    out += [f"k {lemma} {' '.join(found)}" for lemma, found in sorted(kinds.items()) if found]
    content = ("\n".join(out) + "\n").encode()
    target.write_bytes(gzip.compress(content, 9, mtime=0))
    print(f"{target}: {len(glosses):,} words, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
