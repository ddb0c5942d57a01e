"""The folder that a command leaves behind."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitgraph.cli.telling import say_files

if TYPE_CHECKING:
    from circuitgraph.effects import Comparison, Effects

__all__ = ["Folder"]


class Folder:
    """A folder that results are written to, and the list of what is in it.

    Made at once, so that a place that cannot be written to shows before anything slow.

    Args:
        path: Where; made if it is not there, and what it holds under the same names is replaced.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.files: list[tuple[str, str]] = []

    def add(self, name: str, what: str) -> Path:
        """Remember a file, and return where it is to be written."""
        self.files.append((name, what))
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        return target

    def keep_effects(self, effects: "Effects", stem: str = "effects", what: str = "") -> None:
        """Write effects, their table and their heatmap."""
        about = what or "the effects"
        effects.save(self.add(f"{stem}.json", f"{about}; Effects.load reads it"))
        effects.to_csv(self.add(f"{stem}.csv", f"{about}, a row each"))
        self.keep_figure(effects.heatmap(), f"{stem}.html", f"{about}, a heatmap")

    def keep_comparison(self, comparison: "Comparison", stem: str = "comparison") -> None:
        """Write a comparison, its table, its heatmaps and its scatter plot."""
        comparison.save(self.add(f"{stem}.json", "the comparison; Comparison.load reads it"))
        everything = len(comparison.labels)
        table = comparison.table(everything).dropna(subset=list(comparison.names))
        table.to_csv(self.add(f"{stem}.csv", "effects side by side, a row each"), index=False)
        self.keep_figure(comparison.heatmap(), f"{stem}.html", "the effects and their difference")
        self.keep_figure(comparison.scatter(), f"{stem}_scatter.html", "one against the other")

    def keep_figure(self, figure: Any, name: str, what: str) -> None:
        """Write a plotly figure as a page; all pages of a folder share one copy of plotly."""
        figure.write_html(self.add(name, what), include_plotlyjs="directory")

    def keep_report(self, **parts: Any) -> None:
        """Write the report, one page with everything; see `circuitgraph.draw.report.Report`."""
        from circuitgraph.draw.report import write_report

        what = "all of it on one page: open this first"
        self.files.insert(0, ("report.html", what))
        write_report(self.path / "report.html", **parts)

    def say(self) -> None:
        """Print what is in the folder."""
        say_files(self.path, self.files)
