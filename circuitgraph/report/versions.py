"""Which versions of what made a report."""

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_versions"]

_PACKAGES = ("torch", "transformer-lens", "transformers", "numpy", "scipy", "xarray")


def installed_versions() -> dict[str, str]:
    """Return the versions of this package, of Python and of what the numbers depend on.

    Packages that are not installed are left out; nothing is imported to find out.
    """
    import circuitgraph

    found = {"circuitgraph": circuitgraph.__version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["platform"] = f"{platform.system()} {platform.machine()}"
    return found
