"""Lessons for the starter: demonstrations turned into prompts and the replies wanted, for each of the three roles."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import evaluator.judge
import policy.prompt
import proposer.propose
from evaluator.judge import JudgeSettings, last_screenshots
from evaluator.truth import ground_truth
from policy.agent import AgentSettings
from policy.blobs import BlobStore
from policy.trajectory import Step, Trajectory
from proposer.generate import Prompt
from proposer.look import Look
from proposer.propose import ProposerSettings, shows_names
from rl.model import open_picture
from rl.selection import Sample

REASONS = {True: "as the task asks.", False: "not as the task asks."}
SUCCESS_SHARE = 0.4
"""Share of successes among the judge's lessons: fewer than half, since a false success is what spoils learning."""
MAX_SEEN_CHARS = 80
END_OF_TURN = "<|im_end|>"


def policy_lessons(attempts: Iterable[Trajectory], blobs: BlobStore, processor: Any) -> Iterator[Sample]:
    """The steps of successful demonstrations, as the policy will meet them."""
    settings = AgentSettings()
    for attempt in attempts:
        if not ground_truth(attempt):
            continue
        history: list[str] = []
        for index, step in enumerate(attempt.steps):
            picture = blobs.get(step.observation.screenshot)
            past = history[-settings.history :]
            prompt = policy.prompt.render(attempt.task.instruction, step.observation, past, picture)
            yield encode(prompt, _reply(step), blobs, processor, name=f"{attempt.id}#{index}")
            if step.action:
                history.append(policy.prompt.describe(step.action, step.observation))


def _reply(step: Step) -> str:
    """What the policy is to say: where it is, why, and the action.

    Naming the page first makes a small model look at it: without, it goes on with its plan after the plan is done.
    """
    assert step.action is not None, "scripts make no malformed moves"
    page = step.observation.title.rpartition(" - ")[0] or step.observation.title
    name = policy.prompt.element_name(step.action, step.observation)
    return f"Thought: {page}. {step.thought}\nAction: {policy.prompt.action_text(step.action, name)}"


def judge_lessons(
    attempts: Sequence[Trajectory],
    practised: Sequence[Trajectory],
    blobs: BlobStore,
    processor: Any,
    count: int,
    seed: int,
) -> list[Sample]:
    """`count` judged attempts, or fewer: successes, a policy's own failures, and scripted ones in equal numbers.

    Args:
        attempts: Demonstrations: solutions and near misses.
        practised: A policy's own attempts.
        blobs: Their screenshots.
        processor: The model's.
        count: Lessons wanted.
        seed: Of the choice.
    """
    rng = random.Random(seed)
    successes = [attempt for attempt in (*attempts, *practised) if ground_truth(attempt)]
    own = [attempt for attempt in practised if ground_truth(attempt) is False]
    answered = [attempt for attempt in own if attempt.answer is not None]  # the hard ones; the others gave up
    given_up = [attempt for attempt in own if attempt.answer is None]
    scripted = [attempt for attempt in attempts if ground_truth(attempt) is False]
    scripted += list(_misjudged(successes, rng))
    num_successes = round(count * SUCCESS_SHARE)
    num_own = (count - num_successes) // 2
    failures = _some(answered, num_own, rng)
    failures += _some(given_up, (num_own - len(failures)) // 2, rng)
    failures += _some(scripted, count - num_successes - len(failures), rng)
    chosen = [(True, attempt) for attempt in _some(successes, num_successes, rng)]
    chosen += [(False, attempt) for attempt in failures]
    rng.shuffle(chosen)
    return [_judged(attempt, success, blobs, processor) for success, attempt in chosen]


def _some(attempts: Sequence[Trajectory], count: int, rng: random.Random) -> list[Trajectory]:
    return rng.sample(attempts, min(count, len(attempts)))


def _misjudged(successes: Sequence[Trajectory], rng: random.Random) -> Iterator[Trajectory]:
    """Failures made from successes: the same attempt at another task of its world, or ended before its last deed."""
    kinds: dict[str, list[Trajectory]] = defaultdict(list)
    for attempt in successes:
        kinds[_kind(attempt)].append(attempt)
    for attempt in successes:
        swapped = [attempt.model_copy(update={"task": other.task}) for other in kinds[_kind(attempt)]]
        wrong = [other for other in swapped if ground_truth(other) is False]  # two wordings may want the same
        if wrong:
            yield rng.choice(wrong)
        if len(attempt.steps) > 2:
            cut = rng.randrange(1, len(attempt.steps) - 1)  # the last step only answers
            early = {"steps": attempt.steps[:cut], "final": attempt.steps[cut].observation, "final_state": None}
            yield attempt.model_copy(update=early | {"answer": rng.choice(["done", None])})


def _kind(attempt: Trajectory) -> str:
    """Site, world and kind of its task."""
    return (attempt.task.gold_id or "").rpartition("-")[0]


def _judged(attempt: Trajectory, success: bool, blobs: BlobStore, processor: Any) -> Sample:
    settings = JudgeSettings()
    pictures = [blobs.get(name) for name in last_screenshots(attempt, settings.num_screenshots)]
    said = attempt.answer if attempt.answer is not None else "missing"
    page = attempt.final.title.rpartition(" - ")[0] if attempt.final else "unknown"
    seen = evidence(attempt) or "nothing"
    reason = f"The page is {page}, it shows {seen}, the answer is {said}: {REASONS[success]}"
    reply = f"Reason: {reason}\nVerdict: {'success' if success else 'failure'}"
    return encode(
        evaluator.judge.render(attempt, pictures, settings), reply, blobs, processor, name=f"{attempt.id}#judge"
    )


def evidence(attempt: Trajectory) -> str:
    """The line of the final page that says most about the task, and one that says what else it asks; or nothing.

    A line that holds the answer comes first; among those, or else among all, the one that shares most words with the
    instruction. The second line must share at least two of the words that the first doesn't hold.
    """
    lines = attempt.final.listing.splitlines() if attempt.final else []
    wanted = {word for word in _words(attempt.task.instruction) if len(word) > 3 or not word.islower()}
    answer = _words(attempt.answer or "")
    holding = [line for line in lines if answer and answer <= _words(line)]
    first = max(holding or lines, key=lambda line: len(wanted & _words(line)), default="")
    if not holding and not wanted & _words(first):
        return ""
    rest = wanted - _words(first)
    second = max(lines, key=lambda line: len(rest & _words(line)))
    seen = [first, second] if len(rest & _words(second)) > 1 else [first]
    return " / ".join(line[:MAX_SEEN_CHARS] for line in seen)


def _words(text: str) -> set[str]:
    """Words and numbers of a text, without the marks of elements."""
    return set(re.findall(r"\w+(?:[.-]\w+)*", re.sub(r"\[\d+\]", "", text)))


def proposer_lessons(attempts: Iterable[Trajectory], blobs: BlobStore, processor: Any) -> Iterator[Sample]:
    """Pages seen while doing a task, with that task: only pages that show every name in its wording."""
    settings = ProposerSettings()
    seen: set[tuple[str, str]] = set()
    for attempt in attempts:
        for step in attempt.steps if ground_truth(attempt) else ():
            page, instruction = step.observation, attempt.task.instruction
            if (page.screenshot, instruction) in seen or not shows_names(page.listing, instruction):
                continue
            seen.add((page.screenshot, instruction))
            look = Look(page.url, page.title, page.listing, page.listing, blobs.get(page.screenshot))
            reply = json.dumps({"tasks": [instruction]})
            prompt = proposer.propose.render(attempt.task.website, look, settings)
            yield encode(prompt, reply, blobs, processor, name=f"{attempt.id}#propose")


def encode(
    prompt: Prompt, reply: str, blobs: BlobStore, processor: Any, *, name: str, image_px: int | None = 256
) -> Sample:
    """A prompt and the reply wanted as token ids, exactly as the server would read and sample them."""
    pictures = [part for part in prompt.parts if isinstance(part, bytes)]
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in prompt.parts]
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [open_picture(picture, image_px) for picture in pictures] or None
    prompt_ids = processor(text=text, images=images).input_ids[0]
    return Sample(
        trajectory_id=name,
        step=0,
        prompt_ids=tuple(prompt_ids),
        token_ids=tuple(processor.tokenizer(reply + END_OF_TURN, add_special_tokens=False).input_ids),
        logprobs=(),
        pictures=tuple(blobs.put(picture) for picture in pictures),
        weights=None,
    )
