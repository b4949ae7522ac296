"""What must not happen when a command meets damage."""

from __future__ import annotations

import re

from tests.attack.damage.values import LINE
from tests.attack.runner import LIMIT_BYTES, MOST_PROCESSES, Outcome
from tests.attack.sandbox import Snapshot, changes

_LONGEST_SENTENCE = 2_000
_LONGEST_OUTPUT = 1_000_000
STATUSES = (0, 1, 2)
"""Done; done but for what is named; not done."""


def judge(
    outcome: Outcome,
    before: Snapshot,
    after: Snapshot,
    refuses: bool | None = None,
    argument_characters: int = 0,
) -> list[str]:
    """Sentences about what must not have happened.

    ``refuses``: whether the exit status must not be 0; None: it may be either.
    ``argument_characters``: length of the arguments, which a sentence may quote.
    """
    wrong = []
    errors = outcome.errors.decode("utf-8", "surrogateescape")
    output = outcome.output.decode("utf-8", "surrogateescape")
    if outcome.processes > MOST_PROCESSES:
        wrong.append(f"processes: {outcome.processes} at once")
    elif outcome.peak_bytes > LIMIT_BYTES:
        wrong.append(f"memory: {outcome.peak_bytes / 1e6:.0f} MB")
    elif outcome.status is None:
        wrong.append(f"hang: not ended after {outcome.seconds:.0f} s ({outcome.cpu_s:.0f} s CPU)")
    elif outcome.status < 0:
        wrong.append(f"signal: ended by signal {-outcome.status}")
    elif outcome.status not in STATUSES:
        wrong.append(f"status: exit status {outcome.status}")
    if "Traceback (most recent call last)" in errors + output:
        named = re.findall(r"^[\w.]+(?:Error|Exception|Interrupt|Exit)\b.*", errors, re.MULTILINE)
        last = named[-1] if named else errors[-300:]
        wrong.append(f"traceback: {last[:300]!r}")
    elif outcome.status == 2:
        wrong += _no_sentence(errors, _LONGEST_SENTENCE + argument_characters)
    wrong += [f"outside: {change}" for change in changes(before, after)]
    wrong += [f"left: {process}" for process in outcome.left]
    wrong += [f"listens: {port}" for port in outcome.ports]
    if outcome.calls:
        wrong.append(f"calls: {outcome.calls} connections to a server that a file named")
    wrong += _raw_characters(output + "\n" + errors)
    if refuses is True and outcome.status == 0:
        wrong.append("unseen: exit status 0 in spite of the damage")
    if refuses is False and outcome.status != 0:
        wrong.append(f"broken: {errors[-300:]!r} where nothing is damaged")
    return wrong


def _no_sentence(errors: str, longest: int) -> list[str]:
    # A progress bar may stand on the same line.
    before, _, sentence = errors.rpartition("Error: ")
    if not before and not errors.startswith("Error: "):
        return [f"sentence: exit status 2 with {errors[-200:]!r}"]
    if len(sentence) > longest:
        return [f"sentence: one of {len(sentence)} characters, {sentence[:100]!r}"]
    if len([line for line in sentence.splitlines() if line.strip()]) > 1:
        return [f"sentence: several lines, {sentence[:200]!r}"]
    return []


def _raw_characters(text: str) -> list[str]:
    if len(text) > _LONGEST_OUTPUT:
        return [f"output: {len(text)} characters"]
    # Progress bars draw with \r.
    raw = next(
        (place for place, c in enumerate(text) if not (c.isprintable() or c in "\n\r\t")), -1
    )
    if raw >= 0:
        return [f"characters: {text[max(0, raw - 60) : raw + 40]!r}"]
    if re.search(rf"[\r\n\u2028]{LINE}", text):
        return ["characters: a name has begun a line of its own"]
    return []
