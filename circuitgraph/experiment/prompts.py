"""Reading and checking prompts and positions; every problem is found before any forward pass."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from circuitgraph.engines.setup import PositionTable, Setup
from circuitgraph.errors import ModelError, Problems, PromptError, UnsupportedError
from circuitgraph.lens.backend import Backend, backend_of
from circuitgraph.lens.guard import guarded
from circuitgraph.lens.placement import placement_problem
from circuitgraph.request.sites import POSITION_NAME

__all__ = [
    "PromptPair",
    "autocast_problem",
    "find_backend",
    "is_plain",
    "position_table",
    "prompts_fingerprint",
    "read_prompts",
]

PromptsGiven = Int[Tensor, "prompt pos"] | Sequence[str]
PositionsGiven = Mapping[str, Int[Tensor, "prompt"] | Sequence[int] | int]


@dataclass(frozen=True)
class PromptPair:
    """Aligned prompts: tokens right-padded to one length, and each prompt's real length."""

    clean: Int[Tensor, "prompt pos"]
    corrupt: Int[Tensor, "prompt pos"]
    lengths: Int[Tensor, "prompt"]


def find_backend(model: Any, problems: Problems, tokenizer: Any = None) -> Backend | None:
    """Return the back end of a model, noting what keeps it from being patched as it stands.

    Args:
        model: What a user calls a model.
        problems: Where problems are noted.
        tokenizer: In place of the model's own.

    Returns:
        The back end; None for what is no model that can be patched at all.
    """
    with guarded(model) if isinstance(model, nn.Module) else nullcontext():
        return _found(model, problems, tokenizer)


def _found(model: Any, problems: Problems, tokenizer: Any) -> Backend | None:
    try:
        backend: Backend = backend_of(model, tokenizer)
    except ModelError as error:
        problems.add(error)
        return None
    spread = placement_problem(backend.model)
    if spread is not None:  # what follows would run parts of it
        problems.add(spread)
        return None
    for problem in backend.problems():
        problems.add(problem)
    problems.add(autocast_problem(backend.limits.device))
    return backend


def autocast_problem(device: torch.device) -> UnsupportedError | None:
    """Return what is wrong inside of ``torch.autocast``, or None outside of it.

    A replayed part meets other types there than it met in the model, and is rounded otherwise.
    """
    if not torch.is_autocast_enabled(device.type):
        return None
    return UnsupportedError(
        "torch.autocast is on: parts of the model that run by themselves would be rounded "
        "otherwise than in the whole model; leave it, or load the model in the type that you "
        "want, such as cg.load_model(name, dtype=torch.bfloat16)"
    )


def read_prompts(
    backend: Backend,
    clean: PromptsGiven,
    corrupt: PromptsGiven,
    lengths: Int[Tensor, "prompt"] | Sequence[int] | None,
    problems: Problems,
) -> PromptPair | None:
    """Return aligned tokens, or None after adding what is wrong."""
    before = len(problems.found)
    pairs = []
    for what, prompts in (("clean", clean), ("corrupt", corrupt)):
        pairs.append(_read(backend, what, prompts, lengths, problems))
    if len(problems.found) > before:
        return None
    (clean_tokens, clean_lengths), (corrupt_tokens, corrupt_lengths) = pairs
    if len(clean_tokens) != len(corrupt_tokens):
        problems.add(
            PromptError(
                f"{len(clean_tokens)} clean prompts but {len(corrupt_tokens)} corrupt ones: "
                "they are patched pair by pair"
            )
        )
        return None
    uneven = (clean_lengths != corrupt_lengths).nonzero().flatten().tolist()
    if uneven:
        which = uneven[0]
        more = f" (and {len(uneven) - 1} more pairs)" if len(uneven) > 1 else ""
        problems.add(
            PromptError(
                f"prompt pair {which} has {int(clean_lengths[which])} clean tokens but "
                f"{int(corrupt_lengths[which])} corrupt ones{more}: clean and corrupt must be "
                "aligned token for token"
            )
        )
        return None
    if clean_tokens.shape != corrupt_tokens.shape:
        problems.add(
            PromptError(
                f"clean tokens have shape {tuple(clean_tokens.shape)}, corrupt "
                f"{tuple(corrupt_tokens.shape)}: clean and corrupt must be aligned token for token"
            )
        )
        return None
    n_ctx = backend.limits.n_ctx
    if 0 < n_ctx < clean_tokens.shape[1]:
        problems.add(
            PromptError(f"prompts have {clean_tokens.shape[1]} tokens, but the model reads {n_ctx}")
        )
        return None
    device = backend.limits.device
    return PromptPair(clean_tokens.to(device), corrupt_tokens.to(device), clean_lengths)


def _read(
    backend: Backend,
    what: str,
    prompts: PromptsGiven,
    lengths: Int[Tensor, "prompt"] | Sequence[int] | None,
    problems: Problems,
) -> tuple[Tensor, Tensor]:
    nothing = torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    if isinstance(prompts, Tensor):
        if prompts.ndim != 2 or 0 in prompts.shape:
            problems.add(
                PromptError(
                    f"{what} tokens have shape {tuple(prompts.shape)}: give [prompt, pos], "
                    "at least one prompt of at least one token"
                )
            )
            return nothing
        if not is_plain(prompts):
            problems.add(PromptError(f"{what} tokens must be a plain tensor that holds numbers"))
            return nothing
        if not _is_whole(prompts):
            problems.add(
                PromptError(f"{what} tokens hold {prompts.dtype} values: token ids are integers")
            )
            return nothing
        if _outside_vocabulary(backend, what, prompts, problems):
            return nothing
        _check_padding(backend, what, prompts, problems)
        if lengths is None:
            _check_unsaid_padding(backend, what, prompts, problems)
        # Copied: the caller may use the buffer again.
        return prompts.detach().long().clone(), _real_lengths(prompts, lengths, problems)
    return _read_text(backend, what, prompts, lengths, problems)


def _read_text(
    backend: Backend, what: str, prompts: Any, lengths: Any, problems: Problems
) -> tuple[Tensor, Tensor]:
    nothing = torch.zeros(0, 0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    texts = [prompts] if isinstance(prompts, str) else prompts
    tokenizer = backend.tokenizer
    texts = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, Mapping) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        problems.add(PromptError(f"{what} prompts must be a list of strings or a tensor of tokens"))
        return nothing
    if tokenizer is None:
        problems.add(
            PromptError(f"{what} prompts are text, but the model has no tokenizer: give tokens")
        )
        return nothing
    rows = [tokenizer.encode(text) for text in texts]
    if not all(rows):
        problems.add(PromptError(f"{what} prompt {rows.index([])} has no tokens at all"))
        return nothing
    pad = next(
        token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None
    )
    if lengths is not None:
        problems.add(
            PromptError(f"{what} prompts are text, whose lengths are known: leave lengths out")
        )
    width = max(map(len, rows))
    tokens = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    # Padding is never read: a tokenizer may pad with a token that its model does not have.
    if _outside_vocabulary(backend, what, torch.tensor([t for row in rows for t in row]), problems):
        return nothing
    if _outside_vocabulary(backend, what, torch.tensor([pad]), Problems()):
        tokens[tokens == pad] = 0
    return tokens, torch.tensor([len(row) for row in rows])


def _real_lengths(
    tokens: Int[Tensor, "prompt pos"],
    lengths: Int[Tensor, "prompt"] | Sequence[int] | None,
    problems: Problems,
) -> Int[Tensor, "prompt"]:
    """Return each prompt's real length, by default all of it."""
    n_prompts, n_pos = tokens.shape
    full = torch.full((n_prompts,), n_pos)
    if lengths is None:
        return full
    found = _as_tensor(lengths)
    if found is None:
        problems.add(
            PromptError(
                f"lengths is {lengths!r}: give one whole number per prompt ({n_prompts} of them)"
            )
        )
        return full
    if found.shape != (n_prompts,) or not _is_whole(found):
        problems.add(
            PromptError(
                f"lengths has shape {tuple(found.shape)} and type {found.dtype}: give one whole "
                f"number per prompt ({n_prompts} of them)"
            )
        )
        return full
    outside = ((found < 1) | (found > n_pos)).nonzero().flatten()
    if len(outside):
        which = int(outside[0])
        problems.add(
            PromptError(
                f"lengths says that prompt {which} has {int(found[which])} tokens, but it must be "
                f"1..{n_pos}, the padded length"
            )
        )
        return full
    return found.long()


def _outside_vocabulary(backend: Backend, what: str, tokens: Tensor, problems: Problems) -> bool:
    """Return whether there are tokens that the model does not have, and add that they are."""
    vocab = backend.limits.d_vocab
    if not vocab or not ((tokens < 0) | (tokens >= vocab)).any():
        return False
    problems.add(PromptError(f"{what} tokens hold ids outside the vocabulary of {vocab} tokens"))
    return True


def _as_tensor(value: Any) -> Tensor | None:
    """Return numbers as a tensor of their own; None where they are none."""
    try:
        return torch.as_tensor(value).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor holds its numbers, one beside the other."""
    return tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized)


def _is_whole(numbers: Tensor) -> bool:
    """Return whether numbers are integers, by their type."""
    kind = numbers.dtype
    return not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def _check_padding(
    backend: Backend, what: str, tokens: Int[Tensor, "prompt pos"], problems: Problems
) -> None:
    """Refuse left padding: positions would shift, and attention would read the padding."""
    tokenizer = backend.tokenizer
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None or pad == getattr(tokenizer, "bos_token_id", None):
        return
    padded = (tokens[:, 0] == pad).nonzero().flatten()
    if len(padded):
        problems.add(
            PromptError(
                f"{what} prompt {int(padded[0])} starts with the padding token {pad}: left padding "
                "shifts every position and is read by attention; pad on the right "
                "(tokenizer.padding_side = 'right')"
            )
        )


def _check_unsaid_padding(
    backend: Backend, what: str, tokens: Int[Tensor, "prompt pos"], problems: Problems
) -> None:
    """Refuse tokens that look padded where nobody says how long prompts are.

    Read as prompts, padding would be in every mean, and ``end`` would stand in it.
    """
    pad = getattr(backend.tokenizer, "pad_token_id", None)
    if pad is None or tokens.shape[1] < 2:
        return
    padded = (tokens[:, -1] == pad).nonzero().flatten()
    if len(padded):
        which, n_pos = int(padded[0]), tokens.shape[1]
        problems.add(
            PromptError(
                f"{what} prompt {which} ends in the tokenizer's padding token {pad}, and lengths "
                f"are not given: pass lengths, the real length of each prompt (task.lengths), or "
                f"lengths=[{n_pos}] * {len(tokens)} where these tokens are meant"
            )
        )


def position_table(
    pair: PromptPair,
    positions: PositionsGiven | None,
    corrupt_positions: PositionsGiven | None,
    problems: Problems,
) -> PositionTable:
    """Return the named positions, each one index per prompt, after checking them."""
    n_prompts, n_pos = pair.clean.shape
    named: dict[str, dict[str, Tensor]] = {"clean": {}, "corrupt": {}}
    for where, given in (("clean", positions), ("corrupt", corrupt_positions)):
        table = {} if given is None else given
        if not isinstance(table, Mapping):
            problems.add(
                PromptError(
                    f"{where} positions are given by name, {{'S2': indices}}, got "
                    f"{type(table).__name__}"
                )
            )
            continue
        for name, value in table.items():
            if str(name) == "each" or str(name).isdecimal():
                problems.add(
                    PromptError(
                        f"no position can be named {name!r}: in a request @{name} means "
                        f"{'every position, one at a time' if name == 'each' else 'that index'}"
                    )
                )
                continue
            if not POSITION_NAME.match(str(name)):
                problems.add(
                    PromptError(
                        f"no position can be named {name!r}, since no request could say it: use "
                        "letters, digits and _ . + -"
                    )
                )
                continue
            found = _as_tensor(value)
            if found is None:
                problems.add(
                    PromptError(
                        f"position {name!r} is {value!r}: give one integer index per prompt "
                        f"({n_prompts} of them)"
                    )
                )
                continue
            if found.ndim == 0:
                found = found.expand(n_prompts)
            if found.shape != (n_prompts,) or not _is_whole(found):
                problems.add(
                    PromptError(
                        f"position {name!r} has shape {tuple(found.shape)} and type {found.dtype}: "
                        f"give one integer index per prompt ({n_prompts} of them)"
                    )
                )
                continue
            outside = ((found < 0) | (found >= pair.lengths)).nonzero().flatten()
            if len(outside):
                which = int(outside[0])
                problems.add(
                    PromptError(
                        f"position {name!r} is {int(found[which])} in {where} prompt {which}, "
                        f"which has {int(pair.lengths[which])} tokens "
                        f"(0..{int(pair.lengths[which]) - 1})"
                    )
                )
                continue
            named[where][str(name)] = found.long().to(pair.clean.device)
    known = {*named["clean"], "end"}
    unknown = [name for name in named["corrupt"] if name not in known]
    if unknown:
        problems.add(
            PromptError(f"corrupt_positions names {unknown[0]!r}, which positions does not")
        )
    named["clean"].setdefault("end", (pair.lengths - 1).to(pair.clean.device))
    lengths = None if (pair.lengths == n_pos).all() else pair.lengths
    return PositionTable(
        n_prompts, n_pos, named["clean"], named["corrupt"], pair.clean.device, lengths
    )


def prompts_fingerprint(setup: Setup) -> str:
    """Return a short text that tells prompts from others by their tokens and real lengths."""
    digest = hashlib.sha256()
    lengths = setup.positions.lengths
    for part in (setup.clean, setup.corrupt, *(() if lengths is None else (lengths,))):
        digest.update(str(tuple(part.shape)).encode())
        digest.update(part.to("cpu", torch.int64).numpy().tobytes())
    return digest.hexdigest()[:16]
