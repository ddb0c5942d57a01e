"""Lays out one DOT graph: ``python worker.py ENGINE FORMAT < graph.dot > picture``.

Runs as a process of its own, because Graphviz is C code that prints to the terminal, cannot be
interrupted, and takes the whole process with it when it fails.
"""

import sys

import pygraphviz


def main(engine: str, output: str) -> None:
    """Read a graph from standard input and write its picture to standard output."""
    graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode("utf-8"))
    sys.stdout.buffer.write(graph.draw(format=output, prog=engine))


if __name__ == "__main__":
    main(*sys.argv[1:])
