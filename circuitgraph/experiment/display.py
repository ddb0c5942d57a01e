"""How an experiment shows itself in a notebook: what it is, and its first prompts."""

from html import escape
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from circuitgraph.engines.setup import Setup
from circuitgraph.metrics import Prompts

__all__ = ["experiment_html"]

_SHOWN = 3


def experiment_html(
    summary: str, setup: Setup, prompts: Prompts, metrics: dict[str, np.ndarray[Any, Any]]
) -> str:
    """Return model, metric and the first prompt pairs as HTML; every text is escaped.

    Args:
        summary: What the experiment is, the first line being its heading.
        setup: Holds the tokens.
        prompts: Holds lengths and tokenizer.
        metrics: The metric per prompt, by ``clean`` and ``corrupt``.
    """
    head, _, rest = summary.partition("\n")
    tokens = {"clean": setup.clean, "corrupt": setup.corrupt}
    rows = []
    for number in range(min(_SHOWN, setup.n_prompts)):
        for which, side in tokens.items():
            text = _text(prompts.tokenizer, side[number, : int(prompts.lengths[number])])
            first = number + 1 if which == "clean" else ""
            rows.append(
                f"<tr><td>{first}</td><td>{which}</td><td style='text-align:left'>{escape(text)}"
                f"</td><td>{metrics[which][number]:.3g}</td></tr>"
            )
    names = ("", "", "prompt", setup.metric.name)
    columns = "".join(f"<th>{escape(name)}</th>" for name in names)
    more = setup.n_prompts - _SHOWN
    left = f"<small>and {more} more pair{'s' * (more != 1)}</small>" if more > 0 else ""
    return (
        f"<div><strong>{escape(head)}</strong><br>{escape(rest.strip())}<table><thead><tr>{columns}"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table>{left}</div>"
    )


def _text(tokenizer: Any, tokens: Int[Tensor, "pos"]) -> str:
    """Return tokens as text, or as numbers where there is no tokenizer."""
    if tokenizer is None:
        return " ".join(map(str, tokens.tolist()))
    return str(tokenizer.decode(tokens.tolist()))
