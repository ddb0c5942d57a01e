"""Files on disk: every one is written whole or not at all, and read against a schema.

`writing` is the one writer of the package, `folders` swaps a folder of results as one, `reading`
opens files and reads strict JSON, `schema` says what is wrong with what was read and where. Knows
nothing of what the files are about.
"""

from circuitgraph.files.folders import MANIFEST, ResultsFolder
from circuitgraph.files.reading import parse_json, path_of, read_bytes, read_json, read_text
from circuitgraph.files.schema import Strict, check_sum, check_with, checksum
from circuitgraph.files.writing import remove_unfinished, write_file

__all__ = [
    "MANIFEST",
    "ResultsFolder",
    "Strict",
    "check_sum",
    "check_with",
    "checksum",
    "parse_json",
    "path_of",
    "read_bytes",
    "read_json",
    "read_text",
    "remove_unfinished",
    "write_file",
]
