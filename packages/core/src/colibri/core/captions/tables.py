"""The tables of the data folder: word lists in plain text, and what is packed from WordNet.

A line of a word list is `head: words`, or words alone; `#` opens a remark, and an indented line
goes on with the one before.
"""

import gzip
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files


def entries(name: str) -> Iterator[tuple[str, list[str]]]:
    """The head, empty where there is none, and the words of each entry of data/NAME.txt."""
    entry = ""
    for line in [*lines(f"{name}.txt"), "."]:
        if line.startswith(" "):
            entry += line
        elif line and not line.startswith("#"):
            head, _, words = entry.rpartition(": ")
            if words:
                yield head, words.split()
            entry = line


def table(name: str) -> dict[str, list[str]]:
    """The words under each head, in order."""
    return dict(entries(name))


def lists(name: str) -> dict[str, frozenset[str]]:
    """The words under each head."""
    return {head: frozenset(words) for head, words in entries(name)}


def heads(name: str) -> dict[str, str]:
    """The head over each word: `navy` is `blue`."""
    return {word: head for head, words in entries(name) for word in words}


def opposites(name: str) -> dict[str, frozenset[str]]:
    """What each word stands against: a head against the words under it, and the other way round."""
    against: dict[str, set[str]] = defaultdict(set)
    for head, words in entries(name):
        for word in words:
            against[head].add(word)
            against[word].add(head)
    return {word: frozenset(others) for word, others in against.items()}


def lines(file: str) -> list[str]:
    """The lines of a file in the data folder, unpacked."""
    content = (files("colibri.core.captions") / "data" / file).read_bytes()
    return (gzip.decompress(content) if file.endswith(".gz") else content).decode().splitlines()
