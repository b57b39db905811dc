"""Build captions/data/wordnet.txt.gz: single-word lemmas, their senses, and each sense's parents.

Reads WordNet 3.0's files (Debian: `apt-get install wordnet-base`, /usr/share/wordnet). Line forms:
`w POS LEMMA SENSE...` (most frequent senses first) and `s SENSE PARENT...`. Parents are hypernyms
for nouns and verbs, cluster heads for adjectives; derivations are listed as `d SENSE SENSE...`.
"""

import gzip
import sys
from pathlib import Path

SENSES = {"n": 4, "v": 4, "a": 3}
FILES = {"n": "noun", "v": "verb", "a": "adj"}
UP = {"@", "@i", "&", "\\"}


def main() -> None:
    """Read the folder given (default /usr/share/wordnet), write the table."""
    source = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/wordnet")
    target = Path(__file__).parents[1] / "src/colibri/core/captions/data/wordnet.txt.gz"
    words: dict[tuple[str, str], list[str]] = {}
    for pos, name in FILES.items():
        for line in (source / f"index.{name}").read_text().splitlines():
            if line.startswith(" "):
                continue
            cells = line.split()
            lemma = cells[0]
            if not lemma.isalpha() or len(lemma) < 2:
                continue
            count = int(cells[2])
            words[pos, lemma] = [pos + offset for offset in cells[-count:]][: SENSES[pos]]
    senses: dict[str, tuple[list[str], list[str]]] = {}
    for pos, name in FILES.items():
        for line in (source / f"data.{name}").read_text().splitlines():
            if line.startswith(" "):
                continue
            cells = line.split(" | ")[0].split()
            position = 4 + 2 * int(cells[3], 16)
            count = int(cells[position])
            up, derived = [], []
            for index in range(count):
                symbol, offset, kind = cells[position + 1 + 4 * index : position + 4 + 4 * index]
                kind = "a" if kind == "s" else kind
                if kind not in FILES:
                    continue
                if symbol in UP:
                    up.append(kind + offset)
                elif symbol == "+":
                    derived.append(kind + offset)
            senses[pos + cells[0]] = (up, derived)
    used: set[str] = set()
    waiting = [sense for found in words.values() for sense in found]
    while waiting:
        sense = waiting.pop()
        if sense not in used:
            used.add(sense)
            waiting += senses[sense][0]
    number = {sense: f"{index:x}" for index, sense in enumerate(sorted(used))}
    lines = []
    for (pos, lemma), found in sorted(words.items()):
        lines.append(" ".join(["w", pos, lemma, *(number[sense] for sense in found)]))
    for sense in sorted(used):
        up, derived = senses[sense]
        if up:
            lines.append(" ".join(["s", number[sense], *(number[other] for other in up)]))
        kept = sorted({number[other] for other in derived if other in used})
        if kept:
            lines.append(" ".join(["d", number[sense], *kept]))
    content = ("\n".join(lines) + "\n").encode()
    target.write_bytes(gzip.compress(content, 9, mtime=0))
    print(f"{target}: {len(words):,} words, {len(used):,} senses, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
