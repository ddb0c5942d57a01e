"""Where a model's weights lie: all on one device, or it is refused before anything is run."""

from collections import defaultdict

from torch import nn

from circuitgraph.errors import ModelError
from circuitgraph.lens.fingerprint import modules_of

__all__ = ["placement_problem"]


def placement_problem(model: nn.Module) -> ModelError | None:
    """Return what is wrong with where a model's weights lie; None where one device has them all.

    Weights and what is replayed with them are read outside of the model's own forward, where nobody
    fetches them from another device, from main memory or from a disk.

    Args:
        model: Any module.
    """
    places = defaultdict[str, list[str]](list)
    for path, module in modules_of(model).items():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                places[str(tensor.device)].append(f"{path}.{name}".removeprefix("."))
    away = places.pop("meta", [])
    if not away and len(places) <= 1:
        return None
    said = [f"{len(names)} on {place} (such as {names[0]})" for place, names in places.items()]
    if away:
        said.append(f"{len(away)} offloaded to main memory or a disk (such as {away[0]})")
    return ModelError(
        f"the model's weights are spread: {', '.join(said)}. A model has to lie on one device: "
        "load it without device_map and offloading, such as cg.load_model(name, device='cuda'), in "
        "a smaller type (dtype=torch.bfloat16) if it does not fit otherwise"
    )
