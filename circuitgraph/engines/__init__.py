"""Engines: how a plan is run. Both give the same numbers.

`reference` runs a plan op by op with ordinary hooks, one request at a time; it is the oracle.
`fast` replays what is frozen and stacks the requests of a sweep. Neither knows files or drawing.
"""
