"""The report as text: what is in it, what is not, and that no text can become markup."""

import base64
import hashlib
import json
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
from circuitgraph.draw.palette import DIVERGING, STROKES, TINTS
from circuitgraph.draw.plans.looks import LOOKS
from circuitgraph.draw.report import Report, write_report
from circuitgraph.draw.report.circuits import MAX_KNOWN, circuit_data
from circuitgraph.draw.report.page import SCRIPTS
from circuitgraph.draw.report.results import MAX_PANELS
from circuitgraph.draw.report.sections import marked
from circuitgraph.draw.report.tables import MAX_ROWS
from circuitgraph.draw.report.words import in_words
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import EffectsError, PlanError
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


def data_of(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


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
        assert page.sections == ["notes", "prompts", "plan", "result-1", "circuit", "reproduce"]
        links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and "href" in attrs]
        assert [f"#{section}" for section in page.sections] == links[1:]

    def test_only_what_was_given(self):
        assert Page(report().html).sections == ["reproduce"]
        assert Page(report(results=effects()).html).sections == ["result-1", "reproduce"]

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
        assert page.sections[:2] == ["result-1", "result-2"]
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
        assert scripts == [{"type": "application/json", "id": "data"}, {}]
        assert not any(tag == "img" for tag, _ in page.tags)
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert page.problems == []
        assert NASTY in "".join(page.texts)

    def test_data_cannot_end_its_element(self):
        html = self.everything().html
        inside = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1]
        assert not set(inside) & set("<>&")
        assert data_of(html)["circuit"]["groups"][0]["name"] == NASTY

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
            "import sys, circuitgraph.draw.report\n"
            "assert not {'torch', 'vl_convert', 'pygraphviz'} & set(sys.modules), sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_it_stays_small(self):
        assert len(full().html) < 200_000


class TestNumbers:
    def test_the_table_has_every_cell(self):
        html = report(results=effects()).html
        rows = re.findall(r'<tr data-cell="(\d+)">(.*?)</tr>', html)
        assert len(rows) == 12
        values = effects().normalized().to_numpy().ravel()
        for cell, row in rows:
            assert f'data-value="{values[int(cell)]:.6g}"' in row
        shown = [abs(values[int(cell)]) for cell, _ in rows]
        assert shown == sorted(shown, reverse=True)

    def test_the_data_has_every_number(self):
        found = data_of(full().html)["results"][0]
        both = comparison()
        assert [view["name"] for view in found["views"]] == [
            "mlps",
            "single-pass",
            "mlps − single-pass",
        ]
        for view, name in zip(found["views"], both.names, strict=False):
            exact = both.effects[name].normalized().to_numpy().ravel()
            np.testing.assert_allclose(view["values"], exact, rtol=1e-4, atol=1e-9)
            assert view["limit"] == pytest.approx(
                max(np.abs(each).max() for each in both.values().values()), rel=1e-4
            )
        apart = found["views"][2]
        statistics = both.difference()
        np.testing.assert_allclose(apart["low"], statistics["ci_low"].to_numpy().ravel(), rtol=1e-3)
        assert apart["stands"] == np.flatnonzero(statistics["significant"].to_numpy()).tolist()

    def test_empty_cells(self):
        one = effects()
        data = one.data.copy(deep=True)
        holed = data["patched"].to_numpy().copy()
        holed[0] = np.nan
        found = report(results=Effects(data.assign(patched=(data["patched"].dims, holed))))
        assert data_of(found.html)["results"][0]["views"][0]["values"][:3] == [None] * 3
        assert len(re.findall("<tr data-cell", found.html)) == 9

    def test_without_statistics(self):
        found = data_of(full(statistics=None).html)["results"][0]
        assert found["confidence"] is None
        assert all(view["low"] == [] and view["stands"] == [] for view in found["views"])
        assert len(found["views"]) == 3
        assert "% interval</th>" not in full(statistics=None, circuit=None).html

    def test_one_prompt(self):
        html = report(results=effects(prompts=1)).html
        assert data_of(html)["results"][0]["confidence"] is None

    def test_a_sweep_over_one_dimension(self):
        one = effects(request="mlp -> logits", sweep={"layer": range(4)})
        found = data_of(report(results=one).html)["results"][0]
        assert found["bars"]
        assert found["names"] == ["mlp0", "mlp1", "mlp2", "mlp3"]

    def test_no_sweep(self):
        one = Effects.from_arrays([3.0, 2.0], [4.0, 4.0], [0.0, 0.0], request="2.1 -> logits")
        found = data_of(report(results=one).html)["results"][0]
        assert found["views"][0]["values"] == [-0.375]

    def test_small_multiples(self):
        sweep = {"layer": range(4), "head": range(3), "receiver": [f"3.0.{port}" for port in "qkv"]}
        one = effects(request="head -> [3.0.q, 3.0.k, 3.0.v] => logits", sweep=sweep)
        found = data_of(report(results=one).html)["results"][0]
        assert found["panels"] == ["→ 3.0.q", "→ 3.0.k", "→ 3.0.v"]
        assert len(found["names"]) == len(found["views"][0]["values"]) == 36

    def test_many_panels_and_cells_are_cut_and_it_says_so(self):
        sweep = {"layer": range(10), "head": range(10), "position": range(MAX_PANELS + 2)}
        html = report(results=effects(sweep=sweep, prompts=2, request=""), statistics=None).html
        assert "2 panels with smaller effects are not shown" in html
        assert f"the strongest {MAX_ROWS} of {100 * MAX_PANELS:,} cells" in html
        assert len(re.findall("<tr data-cell", html)) == MAX_ROWS

    def test_three_ways(self):
        three = Comparison({name: effects(seed) for seed, name in enumerate("abc")})
        html = report(results=three).html
        views = data_of(html)["results"][0]["views"]
        assert [view["name"] for view in views] == ["a", "b", "c", "a − b", "a − c"]
        assert [view["difference"] for view in views] == [False] * 3 + [True] * 2
        assert views[3]["limit"] == views[4]["limit"]
        expected = three.difference("a", "c")["effect"].to_numpy().ravel()
        np.testing.assert_allclose(views[4]["values"], expected, atol=1e-3)
        assert re.findall(r'data-draw="scatter" data-result="0" data-other="(\d)"', html) == [
            "1",
            "2",
        ]

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
        found = data_of(report(results=both).html)["results"][0]
        assert found["panels"] == ["logit difference", "accuracy"]

    def test_clean_equal_to_corrupt_is_refused(self):
        same = Effects.from_arrays([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], request="9.9 -> logits")
        with pytest.raises(EffectsError):
            _ = report(results=same).html


def _metric(one, name):
    data = one.data.expand_dims(metric=[name])
    return Effects(data.assign_attrs(metric=name))


class TestCircuits:
    def test_data(self):
        found = circuit_data(circuit())
        assert found["shown"] == 6
        assert len(found["edges"]) == 10, "edges it knows can be added by the slider"
        assert found["edges"][0] == {
            "from": [node["name"] for node in found["nodes"]].index("2.1"),
            "to": [node["name"] for node in found["nodes"]].index("logits"),
            "port": "in",
            "name": "2.1 → logits",
            "weight": -0.6,
            "low": -0.7,
            "high": -0.5,
        }
        assert found["helps"] == -1
        assert [node.get("group") for node in found["nodes"] if node["name"] == "3.2"] == [1]

    def test_a_circuit_that_is_no_choice_by_strength_is_not_widened(self):
        chosen = circuit().restrict(["embed", "0.1", "mlp0"])
        data = circuit_data(chosen)
        assert len(data["edges"]) == data["known"] == len(chosen)
        html = report(circuit=chosen).html
        left = len(circuit()) + 4 - len(chosen)
        assert f"{len(chosen)} edges; {left} others, not in the circuit, are not shown" in html
        assert "weaker" not in html.partition("All edges")[2].partition("<table")[0]

    def test_edges_without_weights_come_first(self):
        edges = {"2.1 -> logits": None, "3.2 -> logits": 0.3}
        found = circuit_data(Circuit.from_edges(SHAPE, edges))
        assert "weight" not in found["edges"][0]

    def test_many_edges_are_cut_and_it_says_so(self):
        graph = ModelGraph(SHAPE.__class__(n_layers=8, n_heads=8))
        edges = list(graph.edges())[: MAX_KNOWN + 50]
        large = Circuit.from_edges(graph, {edge: 1 / (at + 1) for at, edge in enumerate(edges)})
        assert len(circuit_data(large)["edges"]) == MAX_KNOWN
        assert "50 weaker ones are not shown" in report(circuit=large).html

    def test_the_table_has_intervals_and_members(self):
        html = report(circuit=circuit()).html
        rows = re.findall(r'<tr data-edge="([^"]+)">(.*?)</tr>', html)
        assert len(rows) == 10
        name, row = rows[0]
        assert unescape(name) == "2.1 -> logits"
        assert "−0.700 to −0.500" in row
        assert [("<td>yes</td>" in row) for _, row in rows] == [True] * 6 + [False] * 4

    def test_an_empty_circuit(self):
        empty = Circuit.from_edges(SHAPE, [])
        assert data_of(report(circuit=empty).html)["circuit"]["edges"] == []


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
    def test_the_style_has_the_colours_of_other_pictures(self):
        html = report().html.lower()
        colors = [color for _, color in DIVERGING] + [stroke.color for stroke in STROKES.values()]
        colors += [tint.fill for tint in TINTS] + [paint.fill for paint in LOOKS.values()]
        for color in colors:
            if color.lower() not in ("#d55e00", "#f0a93b"):
                assert color.lower() in html, color

    def test_every_script_is_joined(self):
        from importlib.resources import files

        there = {
            found.name
            for found in files("circuitgraph.draw.report").joinpath("static").iterdir()
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
