"""The report: question, prompts, plan, effects, comparison and circuit as one HTML file.

The file needs no network and no library: its pictures are drawn by a few hundred lines of plain
JavaScript that travel in it, next to `report.css` in the folder ``static``. An embedded plotly
would be 4.8 MB, slow on a phone, and unreachable by keyboard; what is here prints as vectors, takes
its colours from the page's theme and stays in the tens of kilobytes. Without JavaScript the text,
the plans and all tables are still there.
"""

from circuitgraph.draw.report.report import Report, write_report

__all__ = ["Report", "write_report"]
