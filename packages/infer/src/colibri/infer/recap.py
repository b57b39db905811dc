"""Rewrite prompts under the caption rules that the training used, before a video is made.

The rules, the rule engine and the instructions to a language model are those of
`colibri.core.captions`. A prompt that cannot be rewritten stays as it is, which is said.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from colibri.core.cache import cache_folder
from colibri.core.captions import prompts
from colibri.core.captions.chat import Answer, Request, Sampling
from colibri.core.captions.rules import check, violates
from colibri.core.errors import RowError
from colibri.core.hashing import hash_text
from colibri.core.shards import write_json_whole
from colibri.infer import language
from colibri.infer.decode import Say
from colibri.infer.jobs import Job
from colibri.infer.language import Ask
from colibri.infer.models import Machine, Source

OFF, AUTO, RULES = "off", "auto", "rules"
REPAIRS = 2
"""Turns that may mend a language model's answer; then the prompt stays as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recaption:
    """A prompt as the model is given it, and who wrote it so: off where it is the person's own."""

    text: str
    by: str


def recaption(
    mode: str, source: Source, jobs: Sequence[Job], machine: Machine, *, asked_model: str, say: Say
) -> tuple[Recaption, ...]:
    """One recaption a job, in order. `asked_model` is what an endpoint is asked for.

    UserError where a language model cannot be loaded or an endpoint does not answer.
    """
    if mode == AUTO:
        # Students and the tiny model learnt from such captions; a teacher also knows the camera.
        mode = RULES if source.schedule is not None or source.embedded else OFF
        jobs_to_mend = {job for job in jobs if violates(check(job.prompt, job.prompt))}
    else:
        jobs_to_mend = set(jobs)
    if mode == OFF or not jobs_to_mend:
        return tuple(Recaption(text=job.prompt, by=OFF) for job in jobs)
    with contextlib.ExitStack() as stack:
        rewrite = _by_rules if mode == RULES else _by_model(mode, asked_model, machine, stack)
        told: dict[Job, Recaption] = {}
        for job in jobs:
            told[job] = Recaption(text=job.prompt, by=OFF)
            if job in jobs_to_mend:
                told[job] = _kept_or(rewrite, job, say)
    return tuple(told[job] for job in jobs)


def _kept_or(rewrite: Callable[[Job], Recaption], job: Job, say: Say) -> Recaption:
    try:
        found = rewrite(job)
    except RowError as error:
        say(f"The prompt stays as it is ({error.message}): {job.prompt:.80}")
        return Recaption(text=job.prompt, by=OFF)
    if found.text == job.prompt:
        return Recaption(text=job.prompt, by=OFF)
    say(f"Prompt, rewritten by {found.by}: {found.text}")
    return found


def _by_rules(job: Job) -> Recaption:
    from colibri.core.captions.rewrite import rewrite

    return Recaption(text=rewrite(job.prompt), by=RULES)


def _by_model(
    mode: str, asked_model: str, machine: Machine, stack: contextlib.ExitStack
) -> Callable[[Job], Recaption]:
    """A rewriter by a language model, with its answers kept on disk; it is loaded when needed."""
    endpoint = mode.startswith(("http://", "https://"))
    name = asked_model if endpoint else mode
    by = f"{name}, instructions {prompts.VERSION}"
    asks: list[Ask] = []

    def ask(request: Request) -> Answer:
        if not asks:
            opened = language.endpoint(mode) if endpoint else language.local(mode, machine)
            asks.append(stack.enter_context(opened))
        return asks[0](request)

    def rewrite(job: Job) -> Recaption:
        key = hash_text(job.prompt, str(job.seed), prompts.VERSION, name)
        note = cache_folder() / "recaptions" / f"{key}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return Recaption(text=str(json.loads(note.read_text("utf-8"))["text"]), by=by)
        text = converse(ask, name, job.prompt, job.seed)
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            write_json_whole(note, {"prompt": job.prompt, "text": text, "by": by})
        return Recaption(text=text, by=by)

    return rewrite


def converse(ask: Ask, model: str, prompt: str, seed: int) -> str:
    """A language model's caption for `prompt` under the six rules, mended at most twice.

    RowError `breaks_rules` where it still breaks one, is empty or cut.
    """
    messages = first = prompts.rewrite_messages(prompt)
    broken: list[str] = []
    for attempt in range(1 + REPAIRS):
        sampling = Sampling(
            temperature=0.7 if attempt else 0.0,
            seed=int(hash_text(prompt, str(seed), str(attempt))[:8], 16) & 0x7FFFFFFF,
        )
        answer = ask(Request(model=model, messages=messages, sampling=sampling, attempt=attempt))
        caption = answer.text.strip()
        findings = check(prompt, caption) if caption else ()
        broken = violates(findings)
        if caption and answer.finish == "stop" and not broken:
            return caption
        if caption:
            faults = [finding for finding in findings if finding.rule in broken]
            messages = prompts.repair_messages(first, caption, faults)
    said = f"its answers break {', '.join(broken)}" if broken else "it gave no whole answer"
    raise RowError("breaks_rules", f"{model} was asked {1 + REPAIRS} times, {said}")
