"""Tests. Signatures are checked while they run, as `typechecking` says."""

from tests import typechecking

__all__ = ["typechecking"]
