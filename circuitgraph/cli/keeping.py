"""The folder that a command leaves behind, which takes the place of an older one as a whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitgraph.cli.telling import say_files
from circuitgraph.errors import EffectsError
from circuitgraph.files import MANIFEST, ResultsFolder, write_file

if TYPE_CHECKING:
    from circuitgraph.draw.picture import Picture
    from circuitgraph.effects import Comparison, Effects

__all__ = ["Folder"]


class Folder:
    """A folder that results are written to, and the list of what is in it.

    Made at once, so that a place that cannot be written to shows before anything slow; but under
    another name until `finish`, so that files of two runs never stand side by side.

    Args:
        path: Where; made if it is not there. See `circuitgraph.files.ResultsFolder`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: list[tuple[str, str]] = []
        self._results = ResultsFolder(path)

    def add(self, name: str, what: str) -> Path:
        """Remember a file, and return where it is to be written."""
        self.files.append((name, what))
        return self._results.staged / name

    def keep_effects(self, effects: "Effects", stem: str = "effects", what: str = "") -> None:
        """Write effects, their table and their heatmap."""
        about = what or "the effects"
        effects.save(self.add(f"{stem}.json", f"{about}; Effects.load reads it"))
        effects.to_csv(self.add(f"{stem}.csv", f"{about}, a row each"))
        self.keep_picture(effects.heatmap(), f"{stem}.html", f"{about}, a heatmap")

    def keep_comparison(self, comparison: "Comparison", stem: str = "comparison") -> None:
        """Write a comparison, its table, its heatmaps and its scatter plot."""
        from circuitgraph.effects.files import write_table

        comparison.save(self.add(f"{stem}.json", "the comparison; Comparison.load reads it"))
        everything = len(comparison.labels)
        table = comparison.table(everything).dropna(subset=list(comparison.names))
        write_table(self.add(f"{stem}.csv", "effects side by side, a row each"), table)
        self.keep_picture(comparison.heatmap(), f"{stem}.html", "the effects and their difference")
        self.keep_picture(comparison.scatter(), f"{stem}_scatter.html", "one against the other")

    def keep_picture(self, picture: "Picture", name: str, what: str) -> None:
        """Write a chart or a drawing, by the ending of its name."""
        picture.save(self.add(name, what))

    def keep_table(self, table: Any, name: str, what: str) -> None:
        """Write a table as comma-separated values."""
        from circuitgraph.effects.files import write_table

        write_table(self.add(name, what), table)

    def keep_text(self, text: str, name: str, what: str) -> None:
        """Write a text."""
        write_file(self.add(name, what), f"{text}\n", EffectsError)

    def keep_report(self, **parts: Any) -> None:
        """Write the report, one page with everything; see `circuitgraph.report.Report`."""
        from circuitgraph.report import write_report

        what = "all of it on one page: open this first"
        self.files.insert(0, ("report.html", what))
        write_report(self._results.staged / "report.html", **parts)

    def finish(self) -> None:
        """Put the folder in its place, and print what is in it."""
        self._results.publish()
        self.files.append((MANIFEST, "which run these files are from, with their checksums"))
        say_files(self.path, self.files)
