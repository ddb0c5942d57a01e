"""What outside ``lens`` gives away that it knows a library: `make check` runs this.

    python -m tests.seam

Imports are import-linter's business. This looks at names and texts in the code: attributes of a
bridge, and names of its hooks. Docstrings and error texts may speak of libraries.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["problems"]

PACKAGE = Path(__file__).parents[1] / "circuitgraph"
ATTRIBUTES = {
    "cfg",
    "fwd_hooks",
    "hook_dict",
    "original_component",
    "ln_final",
    "boot_transformers",
}
HOOK = re.compile(r"(blocks\.(\d+\.)?(attn|mlp|ln|hook)|hook_(in|out|z|q|k|v|resid|pattern|mlp)\b)")
MODULES = {"transformer_lens"}


def problems(package: Path = PACKAGE) -> Iterator[str]:
    """Yield every place outside ``lens`` that knows how a bridge is made."""
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0]
        if room != "lens":
            for line, what in _known(ast.parse(path.read_text(encoding="utf-8"))):
                yield f"{path.relative_to(package.parent)}:{line}: {what}"


def _known(tree: ast.AST) -> Iterator[tuple[int, str]]:
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if name in ATTRIBUTES:
                yield node.lineno, f".{name} is a bridge's"
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=name), *_]) if (
                name in ATTRIBUTES
            ):
                yield node.lineno, f"{name!r} is a bridge's"
            case ast.Import(names=names) if any(one.name.split(".")[0] in MODULES for one in names):
                yield node.lineno, "imports TransformerLens"
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield node.lineno, "imports TransformerLens"
            case ast.Constant(value=str(text)) if id(node) not in docstrings and HOOK.search(text):
                yield node.lineno, f"{text!r} names a bridge's hook"


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) or "Outside lens nothing knows a bridge.")
    sys.exit(bool(found))
