"""``python -m circuitgraph``: the command line."""

from circuitgraph.cli import main

if __name__ == "__main__":
    main()
