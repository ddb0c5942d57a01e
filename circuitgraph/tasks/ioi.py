"""Indirect object identification: who was the thing given to?

After "When Mary and John went to the store, John gave a drink to" a model should say " Mary", the
indirect object (IO), rather than " John", the subject (S) that was named twice. Templates, names,
places and objects are this project's own; the task is that of Wang et al. 2022.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from circuitgraph.errors import Problems, PromptError
from circuitgraph.metrics import LogitDiff
from circuitgraph.tasks.corruptions import (
    DIFFERENT_NAMES,
    PATTERNS,
    Rules,
    read_corruption,
    renamed,
)
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import (
    Tokenizer,
    check_tokenizer,
    encode,
    pad_right,
    prefix,
    single_tokens,
)

__all__ = ["Order", "ioi"]

Order = Literal["both", "ABBA", "BABA"]

_QUESTION = "Does the model name the indirect object rather than the subject that was named twice?"
_NAMES_PER_PAIR = 5  # IO and S, and three fresh names for the corrupt prompt


def ioi(
    tokenizer: Tokenizer,
    n: int = 25,
    seed: int = 0,
    *,
    order: Order = "both",
    corrupt: str = DIFFERENT_NAMES,
    prepend_bos: bool | None = None,
) -> Task:
    """Write `n` indirect-object prompts, each with a corrupt twin that names three strangers.

    Clean prompts name the indirect object once and the subject twice, in the orders ABBA (the
    indirect object first) and BABA by turns, over 15 sentence forms. The corrupt prompt keeps the
    sentence. By default it replaces each of the three names by a different one that the clean
    prompt does not hold (ABC; Wang et al. 2022, arXiv:2211.00593, section 2), so the two differ in
    three tokens.

    The same tokenizer and seed give the same prompts in every process, and the first prompts of a
    longer task are those of a shorter one.

    Args:
        tokenizer: The model's tokenizer. Names that are not one token for it are left out.
        n: How many prompt pairs.
        seed: Which prompts: a whole number, so that they can be made again.
        order: `"ABBA"` or `"BABA"` for one order of names only.
        corrupt: What becomes of the three names, a rule for each order: letters stand for the
            names in reading order, new letters for new names. ``"ABB->BAB, BAB->ABB"`` swaps the
            first two, so that only the places change, not which name is repeated;
            ``"ABB->ACC, BAB->CAC"`` gives the subject another name and keeps all places.
        prepend_bos: Whether each prompt begins with the BOS token. None does as the tokenizer does
            when it is called on a text: none for `load_model("smollm2-135m")`, one for most models
            that TransformerLens loads from the hub, as it sets their tokenizers to add it. (This
            may differ from `TransformerBridge.to_tokens`, which has a setting of its own.)

    Returns:
        The task, with positions `IO`, `S1`, `S1+1` (the token after S1), `S2` and `end` (the
        last), the same in clean and corrupt. Its metric is logit(IO) - logit(S) at `end`.

    Raises:
        PromptError: `n` is below 1, the seed is no whole number, the order is unknown, `corrupt`
            cannot be read, lacks an order or changes nothing, the tokenizer has no BOS where one is
            asked for, or it splits too many names or merges one with its neighbours.

    Example:
        >>> task = ioi(model.tokenizer, n=25, seed=1)  # doctest: +SKIP
        >>> exp = Experiment(  # doctest: +SKIP
        ...     model, task.clean, task.corrupt, task.metric, positions=task.positions
        ... )
    """
    rules = _check(tokenizer, n, seed, order, corrupt)
    start = prefix(tokenizer, prepend_bos)
    names = single_tokens(tokenizer, _NAMES)
    _check_names(names)
    pairs = _write_pairs(tuple(names), n, seed, order, rules)
    clean = [start + encode(tokenizer, pair.clean) for pair in pairs]
    others = [start + encode(tokenizer, pair.corrupt) for pair in pairs]
    places = [_locate(*row, names) for row in zip(pairs, clean, others, strict=True)]
    positions = {name: torch.tensor([place[name] for place in places]) for name in places[0]}
    return Task(
        name="ioi",
        question=_QUESTION,
        clean=pad_right(tokenizer, clean),
        corrupt=pad_right(tokenizer, others),
        clean_text=tuple(pair.clean for pair in pairs),
        corrupt_text=tuple(pair.corrupt for pair in pairs),
        answers=tuple((f" {pair.indirect_object}", f" {pair.subject}") for pair in pairs),
        positions=positions,
        corrupt_positions=dict(positions),
        metric=LogitDiff(
            correct=torch.tensor([names[pair.indirect_object] for pair in pairs]),
            incorrect=torch.tensor([names[pair.subject] for pair in pairs]),
            position=positions["end"],
        ),
        lengths=torch.tensor([len(tokens) for tokens in clean]),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """One clean prompt and its corrupt twin; `others` are the twin's names in reading order."""

    clean: str
    corrupt: str
    indirect_object: str
    subject: str
    others: tuple[str, str, str]


def _check(tokenizer: object, n: object, seed: object, order: object, corrupt: object) -> Rules:
    """Refuse, all at once, arguments from which no task can be made; return the rules for names."""
    problems = Problems()
    problems.add(check_tokenizer(tokenizer))
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        problems.add(PromptError(f"n must be a whole number of 1 or more, got {n!r}"))
    if isinstance(seed, bool) or not isinstance(seed, int):
        problems.add(
            PromptError(
                f"seed must be a whole number, such as 0, got {seed!r}: the same seed writes the "
                "same prompts again"
            )
        )
    if not isinstance(order, str) or order not in get_args(Order):
        allowed = ", ".join(map(repr, get_args(Order)))
        problems.add(PromptError(f"order must be one of {allowed}, got {order!r}"))
    rules: Rules = {}
    try:
        rules = read_corruption(corrupt)
    except PromptError as error:
        problems.add(error)
    else:
        for kind, pattern in PATTERNS.items():
            if isinstance(order, str) and order in ("both", kind) and pattern not in rules:
                names = kind[:3]
                problems.add(
                    PromptError(
                        f"corrupt={corrupt!r} has no rule for the prompts {names}: add "
                        f"'{names}->XYZ', or the like"
                    )
                )
    problems.raise_if_any("cannot write IOI prompts")
    return rules


def _check_names(names: Mapping[str, int]) -> None:
    """Refuse a tokenizer for which too few names are single tokens."""
    if len(names) < _NAMES_PER_PAIR:
        found = f" ({', '.join(names)})" if names else ""
        raise PromptError(
            f"cannot write IOI prompts: only {len(names)} of {len(_NAMES)} names{found} are single "
            f"tokens for this tokenizer, and a prompt pair needs {_NAMES_PER_PAIR}. "
            "Use a tokenizer with a larger vocabulary of English words"
        )


def _write_pairs(
    names: Sequence[str], n: int, seed: int, order: Order, rules: Rules
) -> list[_Pair]:
    """Draw the prompts: orders by turns, and under each order all sentence forms by turns."""
    draw = random.Random(seed)
    orders = ("ABBA", "BABA") if order == "both" else (order,)
    decks = [draw.sample(_TEMPLATES, len(_TEMPLATES)) for _ in orders]
    pairs: list[_Pair] = []
    for number in range(n):
        round_, turn = divmod(number, len(orders))
        template = decks[turn][round_ % len(_TEMPLATES)]
        io, subject, *strangers = draw.sample(names, _NAMES_PER_PAIR)
        place, thing = draw.choice(_PLACES), draw.choice(_THINGS)
        couple = (io, subject) if orders[turn] == "ABBA" else (subject, io)
        others = renamed(rules[PATTERNS[orders[turn]]], (*couple, subject), strangers)
        pairs.append(
            _Pair(
                clean=template.format(*couple, subject, place=place, thing=thing),
                corrupt=template.format(*others, place=place, thing=thing),
                indirect_object=io,
                subject=subject,
                others=others,
            )
        )
    return pairs


def _locate(
    pair: _Pair, clean: Sequence[int], corrupt: Sequence[int], names: Mapping[str, int]
) -> dict[str, int]:
    """Find the named positions, and prove that the two prompts differ in the three names alone."""
    where_io = _places_of(names[pair.indirect_object], clean)
    where_s = _places_of(names[pair.subject], clean)
    slots = sorted(where_io + where_s)
    expected = list(clean)
    if len(slots) == len(pair.others):
        for slot, other in zip(slots, pair.others, strict=True):
            expected[slot] = names[other]
    if (len(where_io), len(where_s)) != (1, 2) or expected != list(corrupt):
        raise PromptError(
            "cannot write IOI prompts: this tokenizer does not keep the names of a prompt as "
            f"tokens of their own, so clean and corrupt do not align: {pair.clean!r} gives "
            f"{len(clean)} tokens, {pair.corrupt!r} gives {len(corrupt)}"
        )
    s1, s2 = where_s
    return {"IO": where_io[0], "S1": s1, "S1+1": s1 + 1, "S2": s2, "end": len(clean) - 1}


def _places_of(token: int, tokens: Sequence[int]) -> list[int]:
    """List where a token occurs."""
    return [place for place, other in enumerate(tokens) if other == token]


# {0} and {1} are named together, {2} gives. No sentence begins with a name, whose token would
# differ without the space before it, and no name stands before a punctuation mark.
_TEMPLATES = (
    "On Sunday morning, {0} and {1} met at the {place}. Before leaving, {2} handed a {thing} to",
    "It was raining when {0} and {1} arrived at the {place}, so {2} lent a {thing} to",
    "On the trip to the {place}, {0} and {1} sat together. After a while {2} passed a {thing} to",
    "At the {place}, {0} and {1} were waiting in line. To pass the time, {2} showed a {thing} to",
    "The guide led {0} and {1} through the {place}. After the tour {2} offered a {thing} to",
    "Since {0} and {1} both lived near the {place}, {2} often carried a {thing} over to",
    "Because {0} and {1} had missed the bus to the {place}, {2} promised a {thing} to",
    "Once {0} and {1} had cleaned the {place}, {2} gave a {thing} to",
    "In this story, {0} and {1} live above the {place}. One night {2} sends a {thing} to",
    "The teacher asked {0} and {1} to wait by the {place}. Quietly, {2} slid a {thing} over to",
    "Long after {0} and {1} had moved away from the {place}, {2} mailed a {thing} to",
    "My cousins {0} and {1} spent a day at the {place}. That evening {2} presented a {thing} to",
    "Although {0} and {1} got lost on the way to the {place}, {2} still delivered a {thing} to",
    "Every winter {0} and {1} visit the {place}, and every winter {2} buys a {thing} for",
    "A photo shows {0} and {1} in front of the {place}. In it, {2} is giving a {thing} to",
)
_PLACES = (
    "market", "library", "museum", "harbor", "theater", "bakery", "cinema",
    "airport", "beach", "lake", "farm", "castle", "bridge", "hotel",
)  # fmt: skip
_THINGS = (
    "letter", "ticket", "map", "sandwich", "coin", "lantern", "camera",
    "flower", "postcard", "blanket", "pencil", "notebook",
)  # fmt: skip
_NAMES = (
    "Anna", "Peter", "Maria", "Thomas", "Laura", "Simon", "Helen", "Oliver", "Emma", "Lucas",
    "Julia", "Clara", "Felix", "Sarah", "Daniel", "Alice", "Robert", "Nina", "Victor", "Sophie",
    "Henry", "Marcus", "Susan", "George", "Diana", "Edward", "Lisa", "Walter", "Eva", "Arthur",
    "Linda", "Albert", "Carol", "Philip", "Jane", "Karl", "Ruth", "Paul", "Rachel", "Adam",
    "Emily", "Leo", "Kate", "Hugo", "Oscar", "Ivan", "Lucy", "David", "Amy", "Eric",
    "Ellen", "Rosa", "Carlos", "Nancy", "Juan", "Omar", "Ahmed", "Raj", "Hassan", "Diego",
    "Pedro", "Stefan", "Lars", "Maya", "Noah", "Ella", "Samuel", "Martha", "Brian", "Wendy",
    "Elena", "Nora", "Priya", "Fatima", "Yuki", "Kenji", "Leila", "Amir", "Ingrid", "Liam",
)  # fmt: skip
