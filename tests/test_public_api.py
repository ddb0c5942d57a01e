"""The face of the package: what it offers, that all of it is documented, and what importing costs.

The list of signatures in golden/public_api.txt is written anew with

    CIRCUITGRAPH_GOLDEN=write python -m pytest tests/test_public_api.py
"""

import doctest
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import ModuleType

import pytest

import circuitgraph as cg
from tests.golden import check_golden

ROOT = Path(__file__).parent.parent
LIGHT_ROOMS = ["errors", "nodes", "graph", "request", "plan", "compiler", "schedule"]
HEAVY = {"torch", "transformer_lens", "transformers", "pandas", "xarray", "numpy", "scipy"}
HEAVY |= {"vl_convert", "networkx", "graphviz", "pygraphviz", "rich", "typer", "statsmodels"}


def light_modules() -> list[str]:
    """Every module of the rooms that know no torch."""
    found = []
    for room in LIGHT_ROOMS:
        package = importlib.import_module(f"circuitgraph.{room}")
        found.append(package.__name__)
        for _, name, _ in pkgutil.walk_packages(
            getattr(package, "__path__", ()), f"{package.__name__}."
        ):
            found.append(name)
    return found


def plain_signature(function: object) -> str:
    """A signature without types, which are written differently from one Python to the next."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    plain = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(plain))


def members(cls: type) -> list[str]:
    """The public methods and properties of a class that are written in this package."""
    lines = []
    for name in sorted(dir(cls)):
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if name.startswith("_") or owner is None or not owner.__module__.startswith("circuitgraph"):
            continue
        member = inspect.getattr_static(cls, name)
        match member:
            case property() | cached_property():
                lines.append(f"    .{name}")
            case classmethod() | staticmethod():
                kind = type(member).__name__
                lines.append(f"    .{name}{plain_signature(getattr(cls, name))}  [{kind}]")
            case _ if inspect.isfunction(member):
                lines.append(f"    .{name}{plain_signature(member)}")
            case _:
                pass  # fields, which the signature of the class names
    return lines


def public_api() -> str:
    lines = []
    for name in cg.__all__:
        thing = getattr(cg, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            lines.append(f"{name}  [{' '.join(base.__name__ for base in thing.__mro__[1:-2])}]")
            continue
        if isinstance(thing, ModuleType):
            lines.append(f"{name}  [module]")
            lines += [
                f"    .{n}{plain_signature(getattr(thing, n))}" for n in sorted(thing.__all__)
            ]
        else:
            lines.append(f"{name}{plain_signature(thing)}")
        if inspect.isclass(thing):
            lines += members(thing)
    return "\n".join(lines)


class TestNames:
    def test_all_is_complete_and_sorted(self):
        for name in cg.__all__:
            getattr(cg, name)  # also those that are imported when first touched
        own = {
            name
            for name, value in vars(cg).items()
            if not name.startswith("_") and not isinstance(value, ModuleType)
        }
        assert own - {"Any", "TYPE_CHECKING", "import_module"} == set(cg.__all__) - {
            "discover",
            "draw",
            "tasks",
        }
        assert len(set(cg.__all__)) == len(cg.__all__)
        assert dir(cg) == sorted(cg.__all__)

    @pytest.mark.parametrize("name", cg.__all__)
    def test_every_name_is_documented(self, name):
        doc = inspect.getdoc(getattr(cg, name)) or ""
        assert len(doc.splitlines()[0]) > 20, f"cg.{name} has no docstring to speak of"
        # A dataclass without a docstring of its own gets its signature as one.
        assert not doc.startswith(f"{name}(")

    def test_a_name_that_is_not_there(self):
        with pytest.raises(AttributeError, match="module 'circuitgraph' has no attribute 'Heads'"):
            _ = cg.Heads

    def test_signatures(self):
        check_golden("public_api.txt", public_api())


class TestRooms:
    @pytest.mark.parametrize("name", light_modules())
    def test_every_public_name_is_there_and_documented(self, name):
        module = importlib.import_module(name)
        assert (module.__doc__ or "").strip()
        assert len(set(module.__all__)) == len(module.__all__)
        for public in module.__all__:
            value = getattr(module, public)
            if inspect.isclass(value) or inspect.isfunction(value):
                doc = inspect.getdoc(value) or ""
                assert len(doc) > 20, f"{name}.{public}"
                assert not doc.startswith(f"{public}("), f"{name}.{public}"

    @pytest.mark.parametrize("name", light_modules())
    def test_the_examples_in_docstrings_run(self, name):
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        module = importlib.import_module(name)
        assert doctest.testmod(module, optionflags=flags).failed == 0

    def test_each_room_has_an_example(self):
        finder = doctest.DocTestFinder()
        for room in LIGHT_ROOMS:
            names = [name for name in light_modules() if name.split(".")[1] == room]
            found = [
                example
                for name in names
                for test in finder.find(importlib.import_module(name))
                for example in test.examples
            ]
            assert found, room


class TestImport:
    @staticmethod
    def modules_after(code: str) -> set[str]:
        """The modules that are loaded after running some code in a fresh interpreter."""
        script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
        command = [sys.executable, "-c", script]
        found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        assert not found.stderr
        return set(json.loads(found.stdout))

    def test_brings_in_nothing_heavy(self):
        before, after = self.modules_after(""), self.modules_after("import circuitgraph")
        brought = {name.partition(".")[0] for name in after - before}
        assert "circuitgraph" in brought
        assert not brought & HEAVY
        # A third of a second at most: our own modules, and a few of the standard library.
        assert len(after - before) < 120, sorted(after - before)
        assert brought - {"circuitgraph"} <= sys.stdlib_module_names

    def test_compiling_and_scheduling_brings_in_nothing_heavy(self):
        after = self.modules_after(
            "import circuitgraph as cg\n"
            "graph = cg.ModelGraph(cg.ModelShape(3, 2))\n"
            "plan = cg.compile(graph, 'head -> logits').lint()\n"
            "plan.cost, cg.schedule(plan), graph.n_edges"
        )
        assert not {name.partition(".")[0] for name in after} & HEAVY

    def test_printing_needs_only_rich_and_the_whole_graph_only_networkx(self):
        after = self.modules_after(
            "import circuitgraph as cg\n"
            "graph = cg.ModelGraph(cg.ModelShape(3, 2))\n"
            "plan = cg.compile(graph, 'head -> logits')\n"
            "str(plan), str(cg.schedule(plan)), graph.dag"
        )
        assert not {name.partition(".")[0] for name in after} & {"torch", "transformer_lens"}
