"""Engines: how a plan is run. All exact ones give the same numbers.

`engine` says what an engine is, and `choice` which one is meant. `reference` runs a plan op by op
with ordinary hooks, one request at a time; it is the oracle. `fast` replays what is frozen and
stacks the requests of a sweep. None knows files or drawing.
"""
