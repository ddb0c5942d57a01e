"""Loading a model while watching what it writes and whom it calls."""

import io
import socket
from contextlib import redirect_stderr, redirect_stdout

import pytest

from circuitgraph.models import DEFAULT_MODEL, load_model


class Loaded:
    """A model, what was written while it was loaded, and what was asked of the network."""

    def __init__(self, name=DEFAULT_MODEL, **options):
        self.connections = []

        def refuse(*address, **_):
            self.connections.append(address)
            raise OSError("the test cut the network")

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", refuse)
            patch.setattr(socket.socket, "connect", refuse)
            with redirect_stdout(out), redirect_stderr(err):
                self.model = load_model(name, **options)
        self.out, self.err = out.getvalue(), err.getvalue()
