"""What is said about one row: describe, rewrite and repair, judge. Each returns what it adds.

A conversation never ends a run: it raises RowError, which becomes the row's reason.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from colibri.core.captions import prompts
from colibri.core.captions.chat import Answer, Message, Request, Sampling
from colibri.core.captions.rules import check, violates
from colibri.core.clip import Finding
from colibri.core.errors import RowError
from colibri.core.hashing import hash_text
from colibri.curate.judge import WEIGHTS, band

Row = dict[str, Any]
Ask = Callable[[Request], Awaitable[Answer]]

REPAIRS = 2
"""Turns that may mend a caption; then the row goes to quarantine."""

MENDABLE = frozenset({"X-cutoff", "X-language", "X-quoted", "X-repetition", "X-length"})
"""Extra checks that are worth a repair while turns are left; alone they refuse no row."""

BROKEN_RULE_FACTOR = 0.5
"""A verdict with a broken rule loses half its score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Who is asked, and how."""

    backend: str
    name: str
    revision: str | None
    temperature: float
    repair_temperature: float
    """Of all turns after the first."""
    max_tokens: int
    seed: int

    def request(
        self,
        messages: tuple[Message, ...],
        about: str,
        attempt: int,
        schema: Any = None,
    ) -> Request:
        """A request about a text. Its seed follows from that text and the attempt alone."""
        seed = int(hash_text(str(self.seed), about, str(attempt))[:8], 16) & 0x7FFFFFFF
        return Request(
            model=self.name,
            revision=self.revision,
            messages=messages,
            sampling=Sampling(
                temperature=self.temperature if attempt == 0 else self.repair_temperature,
                max_tokens=self.max_tokens,
                seed=seed,
            ),
            schema=schema,
            attempt=attempt,
        )

    def again(self, times: int) -> "Model":
        """The same model, asked with other seeds."""
        return replace(self, seed=self.seed + 1_000_003 * times)

    def record(self) -> dict[str, Any]:
        """What a row and the manifest say of this model."""
        return {**asdict(self), "prompt": prompts.VERSION}


async def describe(row: Row, ask: Ask, model: Model) -> Row:
    """A caption for a row that has none, from its first frame."""
    messages = prompts.describe_messages(row["image"]["bytes"])
    answer = await ask(model.request(messages, row["id"], 0))
    text = answer.text.strip()
    if not text:
        raise RowError("empty_answer", f"{model.name} described nothing")
    return {"caption_original": text, "described_by": model.name}


async def rewrite(row: Row, ask: Ask, model: Model) -> Row:
    """A caption under the six rules: one try and at most two repairs. RowError: breaks_rules,
    empty_answer, cut_off. All tries are kept."""
    original = row["caption_original"]
    messages = first = prompts.rewrite_messages(original)
    tries: list[dict[str, Any]] = []
    for attempt in range(1 + REPAIRS):
        answer = await ask(model.request(messages, original, attempt))
        caption = answer.text.strip()
        findings = check(original, caption) if caption else ()
        broken = violates(findings)
        cut = answer.finish == "length"
        tries.append({"caption": caption, "broken": broken, "cut": cut})
        mendable = [found for found in findings if found.rule in (*broken, *MENDABLE)]
        result = {
            "caption": caption,
            "captioner": model.name,
            "findings": [asdict(finding) for finding in findings],
            "attempts": json.dumps(tries, ensure_ascii=False),
        }
        if caption and not cut and not mendable:
            return result
        if caption:
            said = [found for found in mendable if not found.ambiguous]
            messages = prompts.repair_messages(first, caption, said or mendable)
    if caption and not cut and not broken:
        return result  # only its form is at fault, and it cannot do better
    return result | _refusal(tries[-1], findings)


def _refusal(last: dict[str, Any], findings: tuple[Finding, ...]) -> Row:
    if not last["caption"]:
        return {"reason": "empty_answer", "error": "the model answered nothing, three times"}
    if last["broken"]:
        rule = last["broken"][0]
        message = next(found.message for found in findings if found.rule == rule)
        error = f"{', '.join(last['broken'])} after {REPAIRS} repairs: {message}"
        return {"reason": "breaks_rules", "error": error}
    return {"reason": "cut_off", "error": "every answer was cut at the token limit"}


async def judge(row: Row, ask: Ask, model: Model, *, swapped: bool = False) -> Row:
    """A verdict per rule with evidence, and a score. RowError: judge_unreadable."""
    original, caption = row["caption_original"], row["caption"]
    doubts = [Finding(**found) for found in row["findings"] if found["ambiguous"]]
    messages = prompts.judge_messages(original, caption, doubts, swapped=swapped)
    why = ""
    for attempt in range(1 + REPAIRS):
        about = f"{original}\n{caption}"
        answer = await ask(model.request(messages, about, attempt, prompts.VERDICT_SCHEMA))
        try:
            verdict = prompts.read_verdict(answer.text, original=original, caption=caption)
        except ValueError as error:
            why = str(error)
            continue
        return _scored(verdict, original, caption, model)
    raise RowError("judge_unreadable", f"{model.name}: {why}, {1 + REPAIRS} times")


def _scored(
    verdict: prompts.ModelVerdict, original: str, caption: str, model: Model
) -> dict[str, Any]:
    worth = {"ok": 1.0, "unsure": 0.5, "broken": 0.0}
    by_rule = {entry.rule: worth[entry.verdict] for entry in verdict.rules}
    parts = {
        "fluency": verdict.fluency,
        "faithfulness": min(by_rule["R2"], by_rule["R4"]),
        "coverage": verdict.coverage,
        "band": band(len(caption.split()), len(original.split())),
    }
    score = sum(WEIGHTS[name] * value for name, value in parts.items())
    if any(entry.verdict == "broken" for entry in verdict.rules):
        score *= BROKEN_RULE_FACTOR
    return {
        "judge": {
            "score": round(score, 6),
            **{name: round(value, 6) for name, value in parts.items()},
            "by": model.name,
            "rules": [asdict(entry) for entry in verdict.rules],
        },
        "score": round(score, 6),
    }
