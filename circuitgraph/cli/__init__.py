"""The command line: ``circuitgraph demo | patch | compare | plan | draw | models``.

Thin: a command reads its options, calls the library as anybody would, and shows what comes back.
A module per command; `app` puts them together and turns errors into one clear message. Nothing here
imports torch before it is needed, so that ``--help`` answers at once.
"""

from circuitgraph.cli.app import app, main

__all__ = ["app", "main"]
