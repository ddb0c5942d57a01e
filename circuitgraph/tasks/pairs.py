"""From pairs of texts to a task: tokens, answers and positions, with every fault and its place.

Where a pair came from (a line of a file, a row of a data set) is only a text here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from circuitgraph.errors import Problems, PromptError
from circuitgraph.metrics import LogitDiff, LogitMargin, LogOdds, LogProb, ProbabilityDiff
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer, check_tokenizer, encode, pad_right, prefix

__all__ = ["METRICS", "Pair", "Place", "faults_of", "make_task"]

Place = int | str | tuple[str, int]
"""A token's index, a word that stands once in the prompt, or a word and which of its places."""

METRICS = {
    "logit difference": LogitDiff,
    "log-probability": LogProb,
    "log odds": LogOdds,
    "logit margin": LogitMargin,
    "probability difference": ProbabilityDiff,
}
"""Metrics that a file of pairs can name."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A clean and a corrupt prompt, with what is right and wrong after the clean one.

    Args:
        where: Where it came from, for errors: ``line 3``.
        clean: The prompt as text, or its tokens.
        corrupt: Likewise.
        answer: The right answers.
        wrong: The wrong ones; none where the answer's log-probability is measured.
        positions: Named positions in the clean prompt.
        corrupt_positions: Those that stand elsewhere in the corrupt prompt.
    """

    where: str
    clean: str | tuple[int, ...]
    corrupt: str | tuple[int, ...]
    answer: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    positions: Mapping[str, Place] = field(default_factory=dict)
    corrupt_positions: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Read:
    """A pair as tokens."""

    pair: Pair
    clean: list[int]
    corrupt: list[int]
    answer: list[int]
    wrong: list[int]
    positions: dict[str, int]
    corrupt_positions: dict[str, int]


def make_task(
    name: str,
    question: str,
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    *,
    prepend_bos: bool | None = None,
    metric: str | None = None,
) -> Task:
    """Return the task that pairs make.

    Args:
        name: The task's short name.
        question: What it asks of a model.
        pairs: At least one.
        tokenizer: The model's tokenizer.
        prepend_bos: See `circuitgraph.tasks.tokens.prefix`.
        metric: One of `METRICS`. None takes the logit difference where each pair has one answer
            and one wrong answer, the log-probability where none has a wrong one, the log odds else.

    Raises:
        PromptError: All faults of all pairs, each with its place.
    """
    problems = Problems()
    problems.add(check_tokenizer(tokenizer))
    if not pairs:
        problems.add(PromptError("there are no pairs in it"))
    problems.raise_if_any(f"cannot make the task {name!r}")
    start = prefix(tokenizer, prepend_bos)
    rows = [_read(pair, tokenizer, start, problems) for pair in pairs]
    _check_alike(pairs, problems)
    problems.raise_if_any(f"cannot make the task {name!r}")
    read = [row for row in rows if row is not None]
    positions = {
        place: torch.tensor([row.positions[place] for row in read]) for place in read[0].positions
    }
    in_corrupt = {
        place: torch.tensor([row.corrupt_positions[place] for row in read]) for place in positions
    }
    return Task(
        name=name,
        question=question,
        clean=pad_right(tokenizer, [row.clean for row in read]),
        corrupt=pad_right(tokenizer, [row.corrupt for row in read]),
        clean_text=tuple(_text(row.pair.clean, tokenizer) for row in read),
        corrupt_text=tuple(_text(row.pair.corrupt, tokenizer) for row in read),
        answers=tuple((_shown(row.pair.answer), _shown(row.pair.wrong)) for row in read),
        positions=positions,
        corrupt_positions=in_corrupt,
        metric=_metric(read, positions["end"], metric),
        lengths=torch.tensor([len(row.clean) for row in read]),
        from_text=all(
            isinstance(pair.clean, str) and isinstance(pair.corrupt, str) for pair in pairs
        ),
    )


def faults_of(pair: Pair, tokenizer: Tokenizer, prepend_bos: bool | None = None) -> Problems:
    """Return what keeps one pair from being used, nothing where it can be."""
    problems = Problems()
    _read(pair, tokenizer, prefix(tokenizer, prepend_bos), problems)
    return problems


# -- one pair ------------------------------------------------------------------------------------


def _read(pair: Pair, tokenizer: Tokenizer, start: list[int], problems: Problems) -> _Read | None:
    """Return a pair as tokens, or None after adding what is wrong with it."""
    before = len(problems.found)

    def fault(text: str) -> None:
        problems.add(PromptError(f"{pair.where}: {text}"))

    clean = _tokens(pair.clean, tokenizer, start)
    corrupt = _tokens(pair.corrupt, tokenizer, start)
    for what, tokens in (("clean", clean), ("corrupt", corrupt)):
        if len(tokens) == len(start):
            fault(f"the {what} prompt has no tokens")
    if len(clean) != len(corrupt):
        fault(
            f"clean has {len(clean)} tokens and corrupt {len(corrupt)}; patching goes token by "
            f"token, so both need the same number ({_side_by_side(clean, corrupt, tokenizer)})"
        )
    found: dict[str, list[int]] = {}
    for what, words in (("answer", pair.answer), ("wrong", pair.wrong)):
        found[what] = [
            token
            for word in words
            if (token := _answer(pair, word, what, tokenizer, fault)) is not None
        ]
        if len(set(found[what])) < len(found[what]):
            fault(f"{what} names a token twice: {list(words)}")
    if both := set(found["answer"]) & set(found["wrong"]):
        fault(f"the same token is answer and wrong: {_piece(tokenizer, min(both))!r}")
    if not pair.answer:
        fault("it has no answer")
    positions = _places("positions", pair.clean, pair.positions, clean, start, tokenizer, fault)
    moved = _places(
        "corrupt_positions", pair.corrupt, pair.corrupt_positions, corrupt, start, tokenizer, fault
    )
    if unknown := sorted(pair.corrupt_positions.keys() - pair.positions.keys() - {"end"}):
        fault(f"corrupt_positions names {unknown[0]!r}, which positions does not")
    if len(problems.found) > before:
        return None
    if positions.setdefault("end", len(clean) - 1) != len(clean) - 1:
        fault(f"positions: end is the last token, {len(clean) - 1}, by itself: name another one")
        return None
    in_corrupt = {name: moved.get(name, place) for name, place in positions.items()}
    return _Read(pair, clean, corrupt, found["answer"], found["wrong"], positions, in_corrupt)


def _tokens(prompt: str | tuple[int, ...], tokenizer: Tokenizer, start: list[int]) -> list[int]:
    """Return a prompt's tokens; those that were given as tokens are all there are."""
    return start + encode(tokenizer, prompt) if isinstance(prompt, str) else list(prompt)


def _answer(pair: Pair, word: str, what: str, tokenizer: Tokenizer, fault: Any) -> int | None:
    """Return the one token of an answer, which must follow the prompt as it stands there."""
    tokens = encode(tokenizer, word)
    if len(tokens) != 1:
        pieces = [_piece(tokenizer, token) for token in tokens]
        more = f"; {f' {word}'!r} is one" if len(encode(tokenizer, f" {word}")) == 1 else ""
        fault(f"{what} {word!r} is {len(tokens)} tokens {pieces}, and must be one{more}")
        return None
    if tokens[0] == tokenizer.unk_token_id:
        fault(f"{what} {word!r} is unknown to this tokenizer")
        return None
    if isinstance(pair.clean, str):
        glued = pair.clean[-1:].isascii() and word[:1].isascii()
        if glued and pair.clean[-1:].isalpha() and word[:1].isalpha():
            fault(
                f"{what} {word!r} would go on with the prompt's last word "
                f"({pair.clean.split()[-1]!r}): begin it with a space, {f' {word}'!r}"
            )
            return None
    return tokens[0]


# -- positions -----------------------------------------------------------------------------------


def _places(
    what: str,
    prompt: str | tuple[int, ...],
    named: Mapping[str, Place],
    tokens: list[int],
    start: list[int],
    tokenizer: Tokenizer,
    fault: Any,
) -> dict[str, int]:
    """Return each named position as an index into the prompt's tokens."""
    places: dict[str, int] = {}
    for name, place in named.items():
        try:
            places[name] = _place(prompt, place, tokens, start, tokenizer)
        except PromptError as error:
            fault(f"{what}: {name}: {error}")
    return places


def _place(
    prompt: str | tuple[int, ...],
    place: Place,
    tokens: list[int],
    start: list[int],
    tokenizer: Tokenizer,
) -> int:
    if isinstance(place, int):
        if not 0 <= place < len(tokens):
            raise PromptError(f"there is no token {place} in a prompt of {len(tokens)} tokens")
        return place
    word, which = place if isinstance(place, tuple) else (place, None)
    if not isinstance(prompt, str):
        raise PromptError(f"{word!r} is a word, and the prompt is given as tokens: give an index")
    ends = [at + len(word) for at in _starts(prompt, word)]
    if not ends:
        raise PromptError(f"{word!r} does not stand in {prompt!r}")
    if which is None and len(ends) > 1:
        raise PromptError(
            f"{word!r} stands {len(ends)} times in {prompt!r}: say which, as [{word!r}, 2], or "
            "give the index of its token"
        )
    if which is not None and not 1 <= which <= len(ends):
        raise PromptError(f"{word!r} stands {len(ends)} times in {prompt!r}, not {which} times")
    end = ends[0 if which is None else which - 1]
    until = start + encode(tokenizer, prompt[:end])
    if tokens[: len(until)] != until:
        raise PromptError(
            f"{word!r} does not end where one of the tokens does: give the index of its token"
        )
    return len(until) - 1


def _starts(prompt: str, word: str) -> list[int]:
    """Return where a word stands, not as a part of another one."""
    found, at = [], prompt.find(word) if word else -1
    while at >= 0:
        before, after = prompt[at - 1 : at] if at else "", prompt[at + len(word) :][:1]
        if not (before.isalnum() and word[0].isalnum()) and not (
            after.isalnum() and word[-1].isalnum()
        ):
            found.append(at)
        at = prompt.find(word, at + 1)
    return found


# -- all pairs -----------------------------------------------------------------------------------


def _check_alike(pairs: Sequence[Pair], problems: Problems) -> None:
    """Find pairs that name other positions than the first, or measure something else."""
    first = pairs[0]
    for pair in pairs[1:]:
        if pair.positions.keys() != first.positions.keys():
            problems.add(
                PromptError(
                    f"{pair.where}: it names the positions {sorted(pair.positions)}, and "
                    f"{first.where} names {sorted(first.positions)}: name the same in all"
                )
            )
        if bool(pair.wrong) != bool(first.wrong):
            has = "has" if pair.wrong else "has no"
            problems.add(
                PromptError(
                    f"{pair.where}: it {has} wrong answers, unlike {first.where}: what is measured "
                    "must be the same for all"
                )
            )


def _metric(rows: Sequence[_Read], end: torch.Tensor, name: str | None) -> Any:
    """Return the metric of a name, or the one that suits the answers."""
    right, wrong = [row.answer for row in rows], [row.wrong for row in rows]
    one_right = all(len(row) == 1 for row in right)
    one_wrong = all(len(row) == 1 for row in wrong)
    none_wrong = not any(wrong)
    if name is None:
        plain = {(True, True): "logit difference", (False, True): "log-probability"}
        name = plain.get((one_wrong, one_right and (one_wrong or none_wrong)), "log odds")
    needs = {
        "logit difference": one_right and one_wrong,
        "log-probability": one_right and none_wrong,
        "logit margin": not none_wrong,
    }
    if not needs.get(name, True):
        want = {
            "logit difference": "one answer and one wrong answer in each pair",
            "log-probability": "one answer and no wrong one in each pair",
            "logit margin": "wrong answers",
        }[name]
        raise PromptError(f"the metric {name!r} needs {want}")
    firsts = torch.tensor([row[0] for row in right])
    match name:
        case "logit difference":
            return LogitDiff(firsts, torch.tensor([row[0] for row in wrong]), end)
        case "log-probability":
            return LogProb(firsts, end)
        case _:
            return METRICS[name](right, None if none_wrong else wrong, end)


def _side_by_side(clean: list[int], corrupt: list[int], tokenizer: Tokenizer) -> str:
    """Say where two prompts part, in tokens."""
    pairs = list(zip(clean, corrupt, strict=False))
    apart = next((at for at, (one, other) in enumerate(pairs) if one != other), len(pairs))
    parts = [
        "".join(_piece(tokenizer, token) for token in tokens[apart : apart + 4])
        for tokens in (clean, corrupt)
    ]
    return f"from token {apart} on: {parts[0]!r} against {parts[1]!r}"


def _piece(tokenizer: Any, token: int) -> str:
    return str(tokenizer.decode([token]))


def _text(prompt: str | tuple[int, ...], tokenizer: Any) -> str:
    return prompt if isinstance(prompt, str) else str(tokenizer.decode(list(prompt)))


def _shown(words: tuple[str, ...]) -> Any:
    return words[0] if len(words) == 1 else words
