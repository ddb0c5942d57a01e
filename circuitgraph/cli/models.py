"""``circuitgraph models``: the models worth naming, and whether each is here."""

from circuitgraph.cli.telling import say, say_table
from circuitgraph.models import known_models
from circuitgraph.models.available import missing

__all__ = ["EXAMPLES", "models"]

EXAMPLES = ("circuitgraph models",)


def models() -> None:
    """List the models worth naming, and whether each can be loaded here and now.

    They are suggestions: any model of the Hugging Face hub that TransformerLens can wrap, and any
    folder that save_pretrained wrote, will do.
    """
    rows, notes = [], []
    for model in known_models():
        shape = model.shape
        size = f"{shape.n_layers}x{shape.n_heads}{f':{shape.kv_heads}' if shape.grouped else ''}"
        needs = missing(model)
        if needs:
            notes.append(f"{model.name} needs {needs}")
        name = f"{model.name}\n  {model.description}"
        rows.append((name, model.size, size, "no" if needs else "yes"))
    say_table(("model", "size#", "shape#", "ready"), rows)
    say("", "shape: layers x heads; after the colon, key-value heads where heads share them.")
    say("", *notes)
