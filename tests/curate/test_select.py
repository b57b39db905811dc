"""Selection: even over strata, repeatable, free of copies."""

import random

from colibri.curate.select import Candidate, select

WORDS = "kite dog boat girl train horse tower river piano garden bridge lamp table bird".split()


def _candidates(count: int) -> list[Candidate]:
    rng = random.Random(3)
    return [
        Candidate(
            id=f"{number:04d}",
            source=("a", "b", "c")[number % 3],
            group=f"g{number % 40}",
            caption=" ".join(rng.choices(WORDS, k=12)),
            score=rng.random(),
            motion=rng.random() if number % 3 else None,
            words=rng.randint(5, 80),
            people=rng.randint(0, 2),
        )
        for number in range(count)
    ]


def test_the_order_of_candidates_does_not_matter() -> None:
    candidates = _candidates(300)
    shuffled = random.Random(1).sample(candidates, len(candidates))
    first, second = (select(rows, keep=90, seed=5) for rows in (candidates, shuffled))
    assert first.kept == second.kept
    assert first.rejected == second.rejected
    assert first.digest() == second.digest()


def test_every_source_keeps_its_share() -> None:
    candidates = _candidates(300)
    selection = select(candidates, keep=90, seed=0, near_duplicate=None)
    source = {candidate.id: candidate.source for candidate in candidates}
    kept = [source[name] for name in selection.kept]
    assert len(kept) == 90
    for name in "abc":
        assert 24 <= kept.count(name) <= 36


def test_each_candidate_is_kept_or_has_a_reason() -> None:
    candidates = _candidates(200)
    selection = select(candidates, keep=50, seed=0, group_cap=2)
    assert len(selection.kept) == 50
    assert set(selection.kept).isdisjoint(selection.rejected)
    assert set(selection.kept) | set(selection.rejected) == {c.id for c in candidates}
    groups = [f"g{int(name) % 40}" for name in selection.kept]
    assert max(groups.count(group) for group in groups) <= 2


def test_near_copies_go_and_the_best_scored_stays() -> None:
    text = "a brown dog runs along a sandy beach at sunset while two gulls circle above it slowly"
    common = {"source": "a", "motion": None, "words": 16, "people": 0}
    rows = [
        Candidate(id="1", group="x", caption=text, score=0.5, **common),  # type: ignore[arg-type]
        Candidate(id="2", group="y", caption=text + ".", score=0.9, **common),  # type: ignore[arg-type]
        Candidate(id="3", group="z", caption="a train", score=0.1, **common),  # type: ignore[arg-type]
    ]
    selection = select(rows, keep=None, seed=0)
    assert selection.kept == ("2", "3")
    assert selection.rejected == {"1": "duplicate_caption"}


def test_one_output_again_and_again_raises_an_alarm() -> None:
    rows = [
        Candidate(id=str(n), source="a", group=str(n), caption="A dog runs.", score=1.0,
                  motion=None, words=3, people=0)
        for n in range(8)
    ]  # fmt: skip
    selection = select(rows, keep=None, seed=0)
    assert len(selection.kept) == 1
    assert selection.alarms
    assert "8 rows" in selection.alarms[0]


def test_near_copies_are_found_among_many() -> None:
    rng = random.Random(9)
    rows, copies = _candidates(1500), set()
    for number in range(100):
        base = rows[number]
        words = base.caption.split() + rng.choices(WORDS, k=30)
        long = " ".join(words)
        words[rng.randrange(len(words))] = "lantern"  # 3 shingles of 40 differ
        common = {"source": "a", "group": "g", "motion": None, "words": 42, "people": 0}
        rows.append(Candidate(id=f"long-{number}", caption=long, score=2.0, **common))  # type: ignore[arg-type]
        near = " ".join(words)
        rows.append(Candidate(id=f"near-{number}", caption=near, score=1.5, **common))  # type: ignore[arg-type]
        copies.add(f"near-{number}")
    found = {name for name, why in select(rows, keep=None, seed=0).rejected.items()}
    assert len(found & copies) >= 80
    assert found <= copies


def test_nothing_to_choose_from_is_no_error() -> None:
    selection = select([], keep=5, seed=0)
    assert selection.kept == ()
    assert selection.rejected == {}
