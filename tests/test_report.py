"""The report as text: what is in it, what is not, and that no text can become markup."""

import base64
import hashlib
import re
import subprocess
import sys
import time
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from circuitgraph import ModelGraph, compile
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.weights import signed
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import EffectsError, PlanError
from circuitgraph.report import Report, write_report
from circuitgraph.report.circuits import MAX_KNOWN
from circuitgraph.report.page import SCRIPTS
from circuitgraph.report.results import MAX_PANELS
from circuitgraph.report.sections import marked
from circuitgraph.report.tables import MAX_ROWS
from circuitgraph.report.words import in_words
from tests.reports import NASTY, SHAPE, circuit, comparison, effects

VOID = {"meta", "input", "img", "br", "link"}


class Page(HTMLParser):
    """A page taken apart: its tags, what attributes they carry, and whether they are balanced."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.problems = [], [], [], []
        self.texts = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"{tag} on line {self.getpos()[0]}")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def sections(self):
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]


def report(**parts):
    return Report(question=parts.pop("question", "Which heads write the answer?"), **parts)


def full(**parts):
    graph = ModelGraph(SHAPE)
    plans = [compile(graph, "head -> logits", variant) for variant in ("mlps", "single-pass")]
    given = {
        "results": comparison(),
        "prompts": [("John gave", "Tom gave")] * 12,
        "answers": [(" Mary", " John")] * 12,
        "plans": plans,
        "circuit": circuit(),
        "command": "circuitgraph compare 'head -> logits'",
        "code": 'exp.compare("head -> logits")',
        "versions": {"circuitgraph": "1.2"},
        "notes": ["Twelve prompts."],
    }
    return report(**{**given, **parts})


class TestWhatIsThere:
    def test_everything_in_order(self):
        page = Page(full().html)
        assert page.sections == ["answer", "circuit", "result-1", "prompts", "plan", "reproduce"]
        links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and "href" in attrs]
        assert [f"#{section}" for section in page.sections] == links[1:]

    def test_only_what_was_given(self):
        assert Page(report().html).sections == ["reproduce"]
        assert Page(report(results=effects()).html).sections == ["answer", "result-1", "reproduce"]

    def test_well_formed(self):
        page = Page(full().html)
        assert page.problems == []
        assert page.open == []
        assert len(set(page.ids)) == len(page.ids)

    def test_the_question_is_the_title(self):
        assert "<title>Why?</title>" in report(question="Why?").html
        html = report(question="Why?", title="A & B").html
        assert "<title>A &amp; B</title>" in html
        assert '<p class="lead">Why?</p>' in html

    def test_saved_and_returned(self, tmp_path):
        path = full().save(tmp_path / "report.html")
        assert path.read_text(encoding="utf-8") == full().html
        again = write_report(str(tmp_path / "again.html"), question="Why?", results=effects())
        assert again.read_text(encoding="utf-8").startswith("<!doctype html>")

    def test_several_results_by_name(self):
        html = report(results={"First": effects(), "Then": comparison()}).html
        page = Page(html)
        assert page.sections[:3] == ["answer", "result-1", "result-2"]
        assert 'id="result-1-title">First</h2>' in html
        html = report(results=[effects(), effects(request="head -> 3.0.q => logits")]).html
        assert "Effects: head -&gt; 3.0.q =&gt; logits</h2>" in html

    def test_the_command_may_be_a_list(self):
        html = report(command=["circuitgraph", "patch", "head -> logits"]).html
        assert "circuitgraph patch &#x27;head -&gt; logits&#x27;" in html

    def test_versions_are_found(self):
        html = report().html
        assert "<dt>Python</dt>" in html
        assert "<dt>circuitgraph</dt>" in html

    def test_findings(self):
        html = unescape(report(results=effects()).html)
        assert "Patching these lowers the logit difference most: 2.1 (−0.5" in html
        assert "Patching these raises it most: 3.2 (0.2" in html
        assert "MLPs carry" in unescape(full().html)

    def test_prompts_say_what_differs_and_what_was_measured(self):
        html = full().html
        assert "<mark>John</mark> gave" in html
        assert "<mark>Tom</mark> gave" in html
        assert "<b>Mary</b>, not John" in html
        assert "<summary>7 more</summary>" in html
        assert "<b>clean</b> 3.9" in html or "<b>clean</b> 4." in html

    def test_metrics_are_left_out_where_the_prompts_are_others(self):
        html = full(prompts=[("a", "b")], answers=()).html
        assert '<td class="number"><p>' not in html

    def test_repr(self):
        assert repr(full()) == "Report: Which heads write the answer? (1 results, a circuit)"

    def test_what_is_no_result(self):
        with pytest.raises(EffectsError, match="shows Effects and Comparisons, got int for 'x'"):
            _ = report(results={"x": 3}).html

    def test_a_cell_that_the_plan_does_not_have(self):
        with pytest.raises(PlanError, match=r"no cell '9\.9 -> logits'"):
            _ = full(cell="9.9 -> logits").html


class TestNoTextBecomesMarkup:
    def everything(self):
        one = effects()
        attrs = {**one.attrs, "metric": NASTY, "model": NASTY}
        nasty = Effects(one.data.assign_attrs(attrs))
        named = Circuit.from_edges(
            SHAPE, {"2.1 -> logits": -0.5}, {NASTY: ["2.1"]}, {"quantity": NASTY}
        )
        return Report(
            question=NASTY,
            title=NASTY,
            results={NASTY: nasty, "b": Comparison({NASTY: nasty, "plain": nasty})},
            prompts=[(NASTY, NASTY)],
            answers=[(NASTY, NASTY)],
            plans={NASTY: compile(ModelGraph(SHAPE), "head -> logits")},
            circuit=named,
            command=NASTY,
            code=NASTY,
            versions={NASTY: NASTY},
            notes=[NASTY],
        )

    def test_only_our_own_elements(self):
        page = Page(self.everything().html)
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert scripts == [{}]
        assert not any(tag == "img" for tag, _ in page.tags)
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert page.problems == []
        assert NASTY in "".join(page.texts)

    def test_dollars_are_not_placeholders(self):
        assert "<title>$data and $$5</title>" in report(question="$data and $$5").html


class TestNothingFromOutside:
    def test_no_addresses(self):
        page = Page(full().html)
        for tag, attrs in page.tags:
            assert "src" not in attrs
            assert tag != "link"
            if "href" in attrs:
                assert attrs["href"].startswith("#")
        html = full().html.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in html
        assert "https:" not in html
        assert "@import" not in html
        assert "url(//" not in html

    def test_only_the_one_script_may_run(self):
        html = full().html
        script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
        assert len(script) == 1
        digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in html
        assert "default-src 'none'" in html

    def test_no_torch_and_no_vega(self):
        code = (
            "import sys, circuitgraph.report\n"
            "assert not {'torch', 'vl_convert', 'pygraphviz'} & set(sys.modules), sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_it_stays_small(self):
        assert len(full().html) < 300_000


class TestNumbers:
    def test_the_table_has_every_cell(self):
        html = report(results=effects()).html
        rows = re.findall(r'<tr data-name="(\S+)">(.*?)</tr>', html)
        assert len(rows) == 12
        values = effects().normalized()
        for name, row in rows:
            layer, head = map(int, name.split("."))
            assert f'data-value="{float(values.sel(layer=layer, head=head)):.6g}"' in row
        shown = [abs(float(re.search(r'data-value="([^"]+)"', row)[1])) for _, row in rows]
        assert shown == sorted(shown, reverse=True)

    def test_the_pictures_say_every_number(self):
        html = unescape(full().html)
        both = comparison()
        for name in both.names:
            value = float(both.effects[name].normalized().sel(layer=2, head=1))
            assert f"2.1: {signed(value)} of the logit difference [" in html
        apart = float(both.difference()["effect"].sel(layer=2, head=1))
        assert f"2.1, mlps − single-pass: {signed(apart)} of" in html
        assert html.count("differ by more than chance") == both.difference()["significant"].sum()
        assert "2.1: mlps −0.55, single-pass" in html

    def test_empty_cells(self):
        one = effects()
        data = one.data.copy(deep=True)
        holed = data["patched"].to_numpy().copy()
        holed[0] = np.nan
        found = report(results=Effects(data.assign(patched=(data["patched"].dims, holed)))).html
        assert found.count(": no such request</title>") == 3
        assert len(re.findall("<tr data-name", found)) == 9

    def test_without_statistics(self):
        assert "% interval</th>" not in full(statistics=None, circuit=None).html
        assert "stands out" not in report(results=effects(prompts=1)).html

    def test_one_dimension_and_none(self):
        bars = report(results=effects(request="mlp -> logits", sweep={"layer": range(4)})).html
        assert "share of the logit difference" in bars
        one = Effects.from_arrays([3.0, 2.0], [4.0, 4.0], [0.0, 0.0], request="2.1 -> logits")
        assert "2.1 -&gt; logits: −0.38 of" in report(results=one).html

    def test_many_panels_and_cells_are_cut_and_it_says_so(self):
        sweep = {"layer": range(10), "head": range(10), "position": range(MAX_PANELS + 2)}
        html = report(results=effects(sweep=sweep, prompts=2, request=""), statistics=None).html
        assert "2 panels with smaller effects are not shown" in html
        assert f"the strongest {MAX_ROWS} of {100 * MAX_PANELS:,} cells" in html
        assert len(re.findall("<tr data-name", html)) == MAX_ROWS

    def test_three_ways(self):
        three = Comparison({name: effects(seed) for seed, name in enumerate("abc")})
        html = unescape(report(results=three).html)
        assert {"a − b", "a − c"} <= set(re.findall(r">(a − .)</t", html))
        apart = float(three.difference("a", "c")["effect"].sel(layer=2, head=1))
        assert f"2.1, a − c: {signed(apart)} of" in html
        assert {"b against a", "c against a"} == set(re.findall(r"[bc] against a", html))

    @pytest.mark.parametrize(
        ("one", "other", "heading"),
        [
            ({"variant": "mlps"}, {"variant": "single-pass"}, "Variants compared"),
            ({"mode": "set"}, {"mode": "add"}, "Modes compared"),
            ({"source": "zero"}, {"source": "mean"}, "Sources compared"),
            ({"engine": "fast"}, {"engine": "reference"}, "Engines compared"),
            (
                {"variant": "x", "mode": "set"},
                {"variant": "y", "mode": "add"},
                "Variants and modes",
            ),
            ({}, {}, "Compared"),
        ],
    )
    def test_the_heading_says_what_differs(self, one, other, heading):
        both = {
            name: Effects(effects().data.assign_attrs(attrs))
            for name, attrs in (("one", one), ("other", other))
        }
        html = report(results=Comparison(both)).html
        assert re.search(rf"<h2 [^>]*>{heading}( compared)?</h2>", html)

    def test_several_metrics(self):
        one = effects()
        both = Effects.concat(
            [_metric(one, name) for name in ("logit difference", "accuracy")], "metric"
        )
        assert {">logit difference</text>", ">accuracy</text>"} <= set(
            re.findall(r">[\w ]+</text>", report(results=both).html)
        )

    def test_clean_equal_to_corrupt_is_refused(self):
        same = Effects.from_arrays([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], request="9.9 -> logits")
        with pytest.raises(EffectsError):
            _ = report(results=same).html


def _metric(one, name):
    data = one.data.expand_dims(metric=[name])
    return Effects(data.assign_attrs(metric=name))


class TestCircuits:
    def test_the_picture_and_the_table(self):
        html = unescape(report(circuit=circuit()).html)
        assert html.count("<g data-line=") == 6
        assert "2.1 → logits: −0.6 [−0.7, −0.5] (the logits)" in html
        rows = re.findall(r'<tr data-name="([^"]+)">(.*?)</tr>', html)
        assert len(rows) == 10
        name, row = rows[0]
        assert name == "2.1 -> logits"
        assert "−0.700 to −0.500" in row
        assert [("<td>yes</td>" in row) for _, row in rows] == [True] * 6 + [False] * 4

    def test_many_edges_are_cut_and_it_says_so(self):
        graph = ModelGraph(SHAPE.__class__(n_layers=8, n_heads=8))
        edges = list(graph.edges())[: MAX_KNOWN + 50]
        large = Circuit.from_edges(graph, {edge: 1 / (at + 1) for at, edge in enumerate(edges)})
        html = report(circuit=large).html
        assert "50 others are not shown" in html
        assert html.count("<g data-line=") == 200
        bare = report(circuit=Circuit.from_edges(graph, edges)).html
        assert "have no weight" in bare

    def test_an_empty_circuit(self):
        assert "The circuit has no edges." in report(circuit=Circuit.from_edges(SHAPE, [])).html


class TestWords:
    @pytest.mark.parametrize(
        ("request_text", "said"),
        [
            (
                "5.5 -> 8.6.v => logits",
                "into 8.6.v what it sends on the corrupt prompts, along direct paths only; every",
            ),
            (
                "{5.5, 6.9} -> 8.6.v => logits",
                "5.5 and 6.9 send into 8.6.v what they send on the corrupt prompts",
            ),
            ("head.q", ""),
            ("nonsense", ""),
            (
                "head -> 8.6.v -> logits",
                "One at a time, each head sends into 8.6.v and on into the",
            ),
            ("5.5 -> head.q => logits", "sends into the queries of each head what it sends"),
            ("head => logits", "each head writes what it writes on the corrupt prompts, and every"),
            ("[5.5, 6.9] -> logits", "One at a time, each of 5.5 and 6.9 sends into the logits"),
            ("9.9@end -> logits", "9.9 at end sends into the logits"),
            ("head@S2 -> logits", "each head at S2 sends"),
        ],
    )
    def test_requests(self, request_text, said):
        found = in_words(request_text)
        assert said in found
        assert bool(found) == bool(said)

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("zero", "9.9 sends into the logits nothing (zero), along"),
            ("mean", "9.9 sends into the logits what it sends on average, along"),
            ("mean-position", "what it sends on average at each position, along"),
            ("given", "9.9 sends into the logits values that were given, along"),
            ("several", "9.9 sends into the logits the values of each source in turn, along"),
        ],
    )
    def test_sources(self, source, said):
        assert said in in_words("9.9 -> logits", source)

    def test_compared_sources_are_not_said_to_be_corrupt(self):
        ways = {}
        for source in ("corrupt", "zero"):
            effects = Effects.from_arrays(
                [[1.0, 2.0]], [3.0, 3.0], [0.0, 0.0], {"layer": [0]}, request="head -> logits",
                source=source,
            )  # fmt: skip
            ways[source] = effects
        assert "the values of each source in turn" in report(results=Comparison(ways)).html

    def test_edges_patched_together(self):
        said = in_words("5.5 -> 8.6.v, 9.9 -> logits => logits")
        assert said.startswith("These edges carry what they carry on the corrupt prompts, all at")


class TestAssets:
    def test_every_script_is_joined(self):
        from importlib.resources import files

        there = {
            found.name
            for found in files("circuitgraph.report").joinpath("static").iterdir()
            if found.name.endswith(".js")
        }
        assert there == set(SCRIPTS)


class TestMarkedWords:
    @pytest.mark.parametrize(
        ("clean", "corrupt", "expected"),
        [
            # The same places, also where a longest common stretch lies elsewhere.
            ("a b a b", "b a b a", ("<a> <b> <a> <b>", "<b> <a> <b> <a>")),
            # A word that became two.
            ("I saw John go", "I saw Mary Ann go", ("I saw <John> go", "I saw <Mary Ann> go")),
            ("so it is", "so it", ("so it< is>", "so it")),
            ("", "x", ("", "<x>")),
        ],
    )
    def test_what_differs(self, clean, corrupt, expected):
        found = [
            side.replace("<mark>", "<").replace("</mark>", ">") for side in marked(clean, corrupt)
        ]
        assert tuple(found) == expected

    def test_long_repetitive_prompts_take_no_time(self):
        start = time.perf_counter()
        one, other = "a b " * 2000, "b a " * 2000
        marked(one, other)
        marked(one, other + "c")
        assert time.perf_counter() - start < 1  # 18 s for a fifth of it, once
