"""Whether a model still computes what it computed: its weights and settings, by value.

Recordings and verdicts hold for one state of a model only. Version counters see most changes, but
not those written through ``.data``, NumPy or a kernel of somebody's own, so the weights themselves
are summed: at about 12 GB/s on one core, in one pass over memory.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

__all__ = ["Fingerprint", "Marks", "fingerprint", "marks", "modules_of", "weights_digest"]

SUMMED_WHOLE = {"cpu": 2 * 2**30, "cuda": 128 * 2**30}
"""Bytes of weights up to which every byte is read, by device; of larger models a sample is."""

SAMPLE = 4096
"""How many 8-byte words of a tensor are read where not all are."""

_CHUNK = 127
"""Words per partial sum; odd, so that no row of a usual width is a whole number of chunks."""

Marks = tuple[tuple[int, int], ...]
"""Address and version counter of every parameter; some models write their buffers as they run."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a model computes, as far as its tensors and settings tell.

    Args:
        tensors: Name, type, shape and device of each parameter and buffer.
        sums: A checksum of each: of all its bytes, or of a sample of a large model's.
        settings: Kinds of modules and their numbers, and the configuration: attention
            implementation, caps, scales, epsilons.
        marks: Addresses and version counters, where the sums are of samples; empty otherwise.
    """

    tensors: tuple[tuple[str, str, tuple[int, ...], str], ...]
    sums: tuple[int, ...]
    settings: tuple[Any, ...]
    marks: Marks = ()


def fingerprint(model: nn.Module) -> Fingerprint:
    """Return a model's fingerprint; two are equal where nothing has changed in between.

    Up to `SUMMED_WHOLE` bytes of weights any changed bit makes another fingerprint, however it was
    written; equal values written anew do not. Beyond, a change shows where PyTorch counts it
    (everything but writes through ``.data``, NumPy or foreign kernels), where a tensor moved, or
    where it touches the sample.
    """
    named = list(_tensors(model))
    size = Counter[str]()
    for _, tensor in named:
        size[tensor.device.type] += tensor.numel() * tensor.element_size()
    whole = all(held <= SUMMED_WHOLE.get(device, 0) for device, held in size.items())
    return Fingerprint(
        tuple((name, str(t.dtype), tuple(t.shape), str(t.device)) for name, t in named),
        _sums([tensor for _, tensor in named], whole),
        tuple(chain(_module_settings(model), _config_settings(model))),
        () if whole else marks(model),
    )


def weights_digest(model: nn.Module, known: Fingerprint) -> str:
    """Return a short text that tells weights and settings from others, on any device and machine.

    Every byte of the weights counts, also where a fingerprint takes a sample; it is taken once for
    each fingerprint.

    Args:
        model: The model.
        known: Its fingerprint now.
    """
    held = _DIGESTS.get(model)
    if held is not None and held[0] == known:
        return held[1]
    named = list(_tensors(model))
    sums = known.sums if not known.marks else _sums([tensor for _, tensor in named], whole=True)
    tensors = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in named]
    settings = [entry for entry in known.settings if entry[0] not in _ELSEWHERE]
    text = repr((tensors, sums, settings))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    _DIGESTS[model] = (known, digest)
    return digest


_DIGESTS: WeakKeyDictionary[nn.Module, tuple[Fingerprint, str]] = WeakKeyDictionary()

_FORWARD = "forward of the class"
_ELSEWHERE = frozenset({"device", "name_or_path", "_name_or_path", "n_devices", _FORWARD})
"""Settings that say where a model is or came from, or that differ from process to process."""


def marks(model: nn.Module) -> Marks:
    """Return where parameters lie and how often PyTorch saw them change; reads no weight."""
    return tuple(
        (tensor.data_ptr(), tensor._version)
        for module in modules_of(model).values()
        for tensor in module._parameters.values()
        if tensor is not None
    )


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules of a model by name, those that a bridge wraps among them."""
    found = {id(module): (name, module) for name, module in model.named_modules()}
    inner = getattr(model, "original_model", None)
    if isinstance(inner, nn.Module):
        for name, module in inner.named_modules():
            found.setdefault(id(module), (f"original_model.{name}", module))
    return dict(found.values())


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer once, by name."""
    seen = set[int]()
    for name, module in modules_of(model).items():
        for held, tensor in chain(module._parameters.items(), module._buffers.items()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{name}.{held}", tensor


def _sums(tensors: list[Tensor], whole: bool) -> tuple[int, ...]:
    """Return a checksum of each tensor; one transfer from each device."""
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
    with torch.no_grad():
        for number, tensor in enumerate(tensors):
            if not tensor.is_meta:
                total = _checksum(tensor.detach(), whole)
                by_device.setdefault(tensor.device, []).append((number, total))
    sums = [0] * len(tensors)
    for made in by_device.values():
        values = torch.stack([value for _, value in made]).tolist()
        for (number, _), value in zip(made, values, strict=True):
            sums[number] = value
    return tuple(sums)


def _checksum(tensor: Tensor, whole: bool) -> Tensor:
    """Return a sum of 8-byte words modulo 2**64, in which the place of each chunk counts.

    Weights are odd, so a change within one chunk never cancels itself.
    """
    flat = tensor.contiguous().flatten()
    n_words = flat.numel() * flat.element_size() // 8
    if not whole and n_words > 2 * SAMPLE:
        picked = _sample(flat.numel(), flat.device)
        flat = flat[picked]
    flat = flat.view(torch.uint8)
    rest = flat.numel() % (8 * _CHUNK)
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    if rest:
        tail = flat[flat.numel() - rest :].to(torch.int64)
        total = total + (tail * _odd(rest, flat.device)).sum()
        flat = flat[: flat.numel() - rest]
    if not flat.numel():
        return total
    if flat.storage_offset() % 8:
        flat = flat.clone()
    chunks = flat.view(torch.int64).view(-1, _CHUNK).sum(dim=-1)
    return total * _FACTOR + (chunks * _odd(len(chunks), flat.device)).sum()


_FACTOR = 6364136223846793005


def _odd(n: int, device: torch.device) -> Tensor:
    """Return ``n`` different odd numbers."""
    return torch.arange(n, device=device) * (2 * 0x5851F42D) + 1


def _sample(n: int, device: torch.device) -> Tensor:
    """Return places spread over a tensor, at no regular distance."""
    places = torch.arange(SAMPLE, device=device, dtype=torch.float64)
    return ((places * ((math.sqrt(5) - 1) / 2)) % 1 * n).long()


def _module_settings(model: nn.Module) -> Iterator[tuple[Any, ...]]:
    """Yield the kind of every module and the numbers it computes with."""
    for name, module in modules_of(model).items():
        held = vars(module)
        numbers = tuple((key, value) for key, value in held.items() if type(value) is float)
        yield name, type(module).__qualname__, held["training"], numbers
    for kind in {type(module) for module in modules_of(model).values()}:
        yield _FORWARD, kind.__qualname__, tuple(_code(kind.forward, set()))


def _code(function: Any, seen: set[Any]) -> Iterator[int]:
    """Yield what tells a function from another: its code, and that of those it calls by name.

    Code is compared by value, so a function that was only defined anew is the same.
    """
    if not isinstance(function, FunctionType) or function.__code__ in seen:
        return
    if (function.__module__ or "").partition(".")[0] == "torch":
        return
    seen.add(function.__code__)
    yield hash(function.__code__)
    for name in function.__code__.co_names:
        yield from _code(function.__globals__.get(name), seen)


def _config_settings(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield what configurations say, attention implementation included.

    Some modules read them at every call: a bridge's norm its epsilon, a head its cap.
    """
    configs: dict[int, Any] = {}
    for module in modules_of(model).values():
        held = vars(module)
        configs |= {id(held[name]): held[name] for name in ("cfg", "config") if name in held}
    for config in configs.values():
        for name, value in getattr(config, "__dict__", {}).items():
            if isinstance(value, bool | int | float | str):
                yield name, value
