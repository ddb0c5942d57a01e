"""The report: question, answer, circuit, evidence, prompts and plan as one HTML file.

Its pictures are those that `circuitgraph.draw` draws anywhere, as SVG; a few hundred lines of plain
JavaScript in the folder ``static`` let them answer by mouse and keyboard. The page needs no network
and runs its one script only. Without JavaScript all pictures and tables are still there.
"""

from circuitgraph.report.report import Report, write_report

__all__ = ["Report", "write_report"]
