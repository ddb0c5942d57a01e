"""Tests of circuitgraph."""
