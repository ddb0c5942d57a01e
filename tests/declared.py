"""What is declared is imported, and what is imported is declared: ``python -m tests.declared``.

Reads ``pyproject.toml`` and the imports of every file of the package, also those inside functions
and for types only. Imports nothing of the package.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "circuitgraph"


def normal(name: str) -> str:
    """A distribution's name as registries compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(project: dict[str, object]) -> set[str]:
    """The distributions that the package needs at run time, those of its users' extras included."""
    table: dict = project["project"]  # type: ignore[assignment,type-arg]
    extras = table.get("optional-dependencies", {})
    asked = [*table["dependencies"]]
    asked += [line for extra in extras if extra not in ("dev", "docs") for line in extras[extra]]
    return {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in asked}


def imported(sources: Iterable[str]) -> set[str]:
    """The top-level names that sources import and that neither Python nor the package brings."""
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {PACKAGE}


def problems(wanted: set[str], names: set[str]) -> list[str]:
    """What is declared and not imported, or imported and not declared, a line each."""
    brought = packages_distributions()
    owners = {name: {normal(one) for one in brought.get(name, [name])} for name in names}
    missing = [
        f"{name} is imported, and {' or '.join(sorted(dists))} is not declared"
        for name, dists in sorted(owners.items())
        if not dists & wanted
    ]
    used = {one for dists in owners.values() for one in dists}
    return missing + [f"{name} is declared and never imported" for name in sorted(wanted - used)]


def found() -> list[str]:
    """The problems of this working tree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return problems(declared(project), imported(file.read_text(encoding="utf-8") for file in files))


if __name__ == "__main__":
    sys.exit("\n".join(found()) or 0)
