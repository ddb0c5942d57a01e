"""What was measured of a circuit: is it enough, is it necessary, would any other do?"""

from collections.abc import Sequence
from html import escape

from circuitgraph.draw.curves import plot_curves
from circuitgraph.evaluation import Curve, Evaluation
from circuitgraph.evaluation.storage import Judgement
from circuitgraph.report.sections import Section

__all__ = ["judgements_section"]


def judgements_section(judgements: Sequence[Judgement]) -> Section:
    """Return a section with every judgement: its warnings first, then its numbers."""
    warned = dict.fromkeys(
        warning
        for judgement in judgements
        if isinstance(judgement, Evaluation)
        for warning in judgement.warnings
    )
    body = ""
    if warned:
        items = "".join(f"<li>{escape(warning)}</li>" for warning in warned)
        body += f'<ul class="findings">{items}</ul>'
    curves = {
        f"{judgement.how}, {judgement.sign}": judgement
        for judgement in judgements
        if isinstance(judgement, Curve)
    }
    if curves:
        said = "Faithfulness of the circuit cut at each size; the table below has the numbers."
        picture = plot_curves(curves).inline
        body += f'<figure class="picture scroll">{picture}<figcaption>{said}</figcaption></figure>'
    body += "".join(
        f'<div class="judgement scroll">{judgement._repr_html_()}</div>' for judgement in judgements
    )
    return Section.of("judgement", "Is the circuit right?", body)
