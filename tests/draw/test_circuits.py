"""Pictures of circuits: what stands where, how lines are drawn, what is said around them."""

import os
import re
import xml.etree.ElementTree as ET

import pygraphviz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitgraph.circuit import Circuit
from circuitgraph.draw import draw_circuit
from circuitgraph.draw.circuits import rendering
from circuitgraph.draw.palette import STROKES
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelGraph, ModelShape
from tests.draw.marks import written
from tests.strategies_circuit import NAMES, circuits, run_python

GPT2 = ModelShape(n_layers=12, n_heads=12)
GROUPS = {
    "name movers": ["9.6", "9.9", "10.0"],
    "S-inhibition": ["7.3", "8.6"],
    "induction": ["5.5"],
}
WEIGHTS = {
    "embed -> 0.1.q": -0.02,
    "embed -> mlp0": -0.04,
    "0.1 -> 5.5.k": 0.06,
    "mlp0 -> 5.5.v": -0.08,
    "5.5 -> 7.3.v": -0.1,
    "5.5 -> 8.6.v": -0.15,
    "7.3 -> 9.9.q": -0.2,
    "8.6 -> 9.9.q": -0.25,
    "8.6 -> 10.0.q": 0.05,
    "9.6 -> logits": -0.3,
    "9.9 -> logits": -0.5,
    "10.0 -> logits": -0.1,
    "mlp11 -> logits": 0.01,
}
IOI = Circuit.from_edges(GPT2, WEIGHTS, GROUPS)


def parts(drawing, kind):
    """Groups of the SVG that are lines, or boxes: what each says, and its first path's look."""
    found = {}
    for element in ET.fromstring(drawing.svg).iter():
        if element.get(f"data-{kind}") is not None:
            path = next((e for e in element.iter() if e.tag.endswith("}path")), None)
            look = {} if path is None else dict(path.attrib)
            found[element.find("{*}title").text] = dict(element.attrib) | look
    return found


def lines(drawing):
    """Lines by the edge they stand for."""
    return {
        re.split(r": | \(", words)[0].replace("→", "->"): look
        for words, look in parts(drawing, "line").items()
    }


def positions(drawing):
    graph = pygraphviz.AGraph(string=drawing.dot)
    return {
        str(node): tuple(map(float, node.attr["pos"].split(",")))
        for node in graph.nodes()
        if node.attr["pos"]
    }


@pytest.fixture(scope="module")
def plain():
    return IOI.draw()


class TestStructure:
    def test_every_node_and_edge_is_there_once(self, plain):
        assert set(lines(plain)) == set(WEIGHTS)
        boxes = {words.split(" (")[0] for words in parts(plain, "box")}
        assert boxes == {str(node) for node in IOI.nodes}
        assert "8.6 → 9.9.q: −0.25 (queries of head 9.9)" in parts(plain, "line")

    def test_lines_name_their_boxes(self, plain):
        names = {look["data-box"]: words for words, look in parts(plain, "box").items()}
        for edge, look in lines(plain).items():
            sender, receiver = edge.split(" -> ")
            assert names[look["data-from"]].split(" (")[0] == sender
            assert re.match(rf"{re.escape(names[look['data-to']].split(' (')[0])}\b", receiver)
            assert float(look["data-size"]) == abs(WEIGHTS[edge])

    @pytest.mark.parametrize(
        ("rankdir", "axis", "sign"), [("TB", 1, -1), ("BT", 1, 1), ("LR", 0, 1)]
    )
    def test_layers_are_ranks_along_the_stream(self, rankdir, axis, sign):
        at = positions(IOI.draw(rankdir=rankdir))
        stream = ["embed", "0.1", "mlp0", "5.5", "7.3", "8.6", "9.9", "10.0", "mlp11", "logits"]
        ordered = [sign * at[name][axis] for name in stream]
        assert ordered == sorted(set(ordered))
        assert at["9.6"][axis] == at["9.9"][axis]
        assert "layer 0" in written(IOI.draw())
        assert "layer 1" not in written(IOI.draw())

    def test_groups_are_around_their_nodes_and_apart(self, plain):
        graph = pygraphviz.AGraph(string=plain.dot)
        boxes = {}
        for cluster in graph.subgraphs():
            name, frame = cluster.graph_attr["tooltip"], cluster.graph_attr["bb"]
            boxes[name] = tuple(map(float, frame.split(",")))
        assert boxes.keys() == GROUPS.keys()
        at = positions(plain)
        for name, (left, bottom, right, top) in boxes.items():
            inside = {n for n, (x, y) in at.items() if left < x < right and bottom < y < top}
            assert inside & {str(node) for node in IOI.nodes} == set(GROUPS[name])
            assert name in written(plain)


class TestLines:
    def test_ports_differ_by_colour_and_by_dash(self, plain):
        found = lines(plain)
        ports = {"8.6 -> 9.9.q": "q", "0.1 -> 5.5.k": "k", "5.5 -> 8.6.v": "v"}
        for edge, port in (ports | {"9.9 -> logits": "in"}).items():
            assert found[edge]["stroke"] == STROKES[port].color.lower()
        dashes = [found[edge].get("stroke-dasharray") for edge in ports]
        assert dashes[0] is None
        assert dashes[1] != dashes[2]
        assert 'stroke-linecap="round" stroke-dasharray="0.1,' in plain.svg

    def test_widths_grow_with_the_weight(self, plain):
        found = lines(plain)
        ordered = sorted(WEIGHTS, key=lambda edge: abs(WEIGHTS[edge]))
        widths = [float(found[edge]["stroke-width"]) for edge in ordered]
        assert widths == sorted(widths)
        assert (widths[0] >= 0.9, widths[-1]) == (True, 5.0)
        bare = lines(Circuit.from_edges(GPT2, list(WEIGHTS)).draw())
        assert {look["stroke-width"] for look in bare.values()} == {"1.4"}

    def test_an_effect_that_is_rounding_is_no_wide_line(self):
        weights = {"9.9 -> logits": -2.7e-8, "9.6 -> logits": 1.1e-8}
        circuit = Circuit.from_edges(GPT2, weights, attrs={"quantity": "effect"})
        drawn = lines(circuit.draw()).values()
        assert all(float(look.get("stroke-width", 1)) < 1 for look in drawn)

    def test_the_sign_is_the_shape_of_the_head(self, plain):
        assert "arrowhead=tee" in next(
            line for line in plain.dot.splitlines() if "9.9 → logits" in line
        )
        assert {"positive", "negative", "widest: weight ±0.5"} <= set(written(plain))
        effects = IOI.with_attrs(helps="negative", quantity="effect").draw()
        line = next(line for line in effects.dot.splitlines() if "9.9 → logits" in line)
        assert "arrowhead=normal" in line
        assert {"helps", "works against", "widest: effect ±0.5"} <= set(written(effects))

    def test_labels_on_demand(self, plain):
        assert "−0.25" not in written(plain)
        labelled = written(IOI.draw(labels=True))
        assert {"−0.25", "−0.5", "0.06"} <= set(labelled)


class TestWords:
    def test_the_legend_has_what_the_picture_has(self, plain):
        ports = {"into queries (q)", "into keys (k)", "into values (v)", "into MLPs and the logits"}
        assert ports <= set(written(plain))
        small = written(Circuit.from_edges(GPT2, ["8.6 -> 9.9.q", "9.9 -> logits"]).draw())
        assert {"into queries (q)", "into the logits"} <= set(small)
        assert not {"into keys (k)", "positive"} & set(small)
        assert "into queries (q)" not in written(IOI.draw(legend=False))

    def test_titles_and_long_names(self):
        circuit = IOI.with_attrs(request="head -> logits", variant="mlps")
        assert "head -> logits, mlps" in written(circuit.draw())
        assert "Mine" in written(circuit.draw(title="Mine"))
        assert not any("logits, mlps" in text for text in written(circuit.draw(title="")))
        title = "what a head that is patched by itself sends into the logits, " * 3
        long = Circuit.from_edges(GPT2, ["9.9 -> logits"]).draw(title=title.strip())
        assert title.strip() in " ".join(written(long)[::-1]) or title.strip() in " ".join(
            written(long)
        )
        assert float(ET.fromstring(long.svg).get("width").removesuffix("pt")) < 620

    def test_text_stays_text(self):
        evil = '<script>alert("x")</script>\\N\\G{|}&];id="a"class="b"[label=1'
        circuit = Circuit.from_edges(GPT2, {"9.9 -> logits": 1.0}, {evil: ["9.9"]})
        for drawing in (circuit.draw(title=evil), circuit.draw(title=evil, bundle=True)):
            assert written(drawing).count(evil) == 2
            assert "<script" not in drawing.svg

    @pytest.mark.parametrize("name", ["\n", "\n\n", " ", "\r", "a\nb", "\n0", "\u2028"])
    def test_names_of_line_breaks_can_be_drawn(self, name):
        circuit = Circuit.from_edges(GPT2, {"9.9 -> logits": 1.0}, {name: ["9.9"]})
        for bundle in (False, True):
            ET.fromstring(circuit.draw(title=name, bundle=bundle).svg)

    @settings(max_examples=10, deadline=None)
    @given(NAMES, NAMES)
    def test_any_name_and_title_can_be_drawn(self, name, title):
        circuit = Circuit.from_edges(GPT2, {"9.9 -> logits": 1.0}, {name: ["9.9"]})
        ET.fromstring(circuit.draw(title=title).svg)


class TestBundles:
    def test_edges_between_groups_become_one_line_per_port(self):
        drawing = IOI.draw(bundle=True)
        said = parts(drawing, "line")
        assert "S-inhibition → name movers, q: 3 edges, together −0.4" in said
        assert "name movers → logits: 3 edges, together −0.9" in said
        assert {"9.6", "9.9", "10.0", "5.5", "0.1", "name movers"} <= set(written(drawing))
        few = IOI.draw(bundle=True, max_edges=3)
        assert len(parts(few, "line")) == 3
        assert f"the strongest 3 of {len(said)} lines" in written(few)

    def test_edges_inside_groups_are_counted(self):
        edges, groups = ["7.3 -> 8.6.v", "8.6 -> logits"], {"S-inhibition": ["7.3", "8.6"]}
        drawing = Circuit.from_edges(GPT2, edges, groups).draw(bundle=True)
        assert "1 edge inside a group is not drawn" in written(drawing)

    def test_bundles_stand_where_the_stream_has_them(self):
        """Also those that only the logits read."""
        edges = {"0.1 -> 5.5.q": -0.1, "5.5 -> 9.9.q": -0.1, "9.9 -> logits": -0.4}
        edges |= {"11.8 -> logits": -0.1, "8.2 -> logits": 0.1}
        circuit = Circuit.from_edges(GPT2, edges, {"movers": ["9.9", "9.6"]})
        down = {name: -y for name, (_, y) in positions(circuit.draw(bundle=True)).items()}
        assert down["0.1"] < down["5.5"] < down["8.2"]
        assert down["group 1"] < down["11.8"]

    def test_it_needs_groups_and_something_between_them(self):
        with pytest.raises(CircuitError, match="the circuit has none: use with_groups"):
            IOI.with_groups({}).draw(bundle=True)
        one = IOI.restrict(["7.3", "9.9"]).with_groups({"all": ["7.3", "9.9"]})
        with pytest.raises(CircuitError, match="every edge runs inside one group"):
            one.draw(bundle=True)


class TestLimits:
    def test_beyond_the_limit_it_draws_the_strongest_and_says_so(self):
        edges = [edge for edge, _ in zip(ModelGraph(GPT2).edges(), range(300), strict=False)]
        drawing = Circuit.from_edges(GPT2, {edge: 1 + n for n, edge in enumerate(edges)}).draw()
        assert set(lines(drawing)) == {str(edge) for edge in edges[100:]}
        assert "the strongest 200 of 300 edges" in written(drawing)
        assert "the strongest 200 of 300 edges" in repr(drawing)
        bare = Circuit.from_edges(GPT2, edges[:20])
        with pytest.raises(CircuitError, match=r"strongest 5 of 20 edges: 20 have no weight.*=20"):
            bare.draw(max_edges=5)

    def test_what_is_refused(self):
        with pytest.raises(CircuitError, match="nothing to draw: the circuit has no edges"):
            Circuit.from_edges(GPT2, []).draw()
        with pytest.raises(CircuitError, match="max_edges must be a whole number of at least 1"):
            IOI.draw(max_edges=0)
        with pytest.raises(CircuitError, match="rankdir must be one of 'TB', 'BT', 'LR', got 'RL'"):
            IOI.draw(rankdir="RL")

    @settings(max_examples=8, deadline=None)
    @given(
        circuits().filter(lambda circuit: len(circuit) > 0),
        st.sampled_from(["TB", "BT", "LR"]),
        st.booleans(),
    )
    def test_any_circuit_can_be_drawn(self, circuit, rankdir, labels):
        drawing = draw_circuit(circuit, rankdir=rankdir, labels=labels)
        assert len(parts(drawing, "line")) == len(circuit)
        at = [place for name, place in positions(drawing).items() if "layer" not in name]
        assert len(set(at)) == len(at)

    def test_the_largest_weights_there_are_and_one_edge_from_end_to_end(self):
        huge = Circuit.from_edges(GPT2, {"8.0 -> logits": 1.7e308, "9.0 -> logits": -1e308}).draw()
        assert len(parts(huge, "line")) == 2
        assert "inf" not in huge.svg
        for rankdir in ("TB", "BT", "LR"):
            drawing = Circuit.from_edges(GPT2, {"embed -> logits": 1.0}).draw(rankdir=rankdir)
            assert len(parts(drawing, "line")) == 1


class TestFiles:
    @pytest.mark.parametrize(
        ("suffix", "start"),
        [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph"),
         ("html", b"<!doctype html>")],
    )  # fmt: skip
    def test_formats(self, plain, tmp_path, suffix, start):
        path = plain.save(tmp_path / f"circuit.{suffix}")
        assert path.read_bytes().startswith(start)
        with pytest.raises(CircuitError, match=r"must end in \.svg, \.png, \.pdf, \.html, \.dot"):
            plain.save(tmp_path / "circuit.gif")

    def test_more_dots_make_a_larger_picture(self, plain):
        width = [int.from_bytes(plain.png(dpi)[16:20], "big") for dpi in (50, 200)]
        assert width[1] == pytest.approx(4 * width[0], rel=0.02)

    def test_the_dot_text_draws_itself_again(self, plain):
        assert rendering.draw_dot(plain.dot, plain.caption) == plain

    def test_no_graphviz_program_is_needed(self, tmp_path):
        code = (
            "import sys; from circuitgraph.circuit import Circuit; "
            "from circuitgraph.graph import ModelShape; "
            "Circuit.from_edges(ModelShape(2, 2), ['0.0 -> logits']).draw().save(sys.argv[1])"
        )
        target = tmp_path / "c.png"
        done = run_python(code, str(target), env={**os.environ, "PATH": str(tmp_path)})
        assert (done.returncode, done.stderr, target.exists()) == (0, "", True)

    def test_what_graphviz_says_is_passed_on(self, monkeypatch):
        with pytest.raises(CircuitError, match="Graphviz could not draw svg"):
            rendering.render("digraph {", "dot", "svg")
        monkeypatch.setattr(rendering, "find_spec", lambda name: None)
        with pytest.raises(CircuitError, match=r"pip install 'pygraphviz>=2'"):
            rendering.render("digraph { unseen }", "dot", "svg")

    def test_notebooks(self, plain):
        assert repr(plain) == "Drawing: 13 edges, 11 nodes"
        assert '<svg role="group" aria-label="13 edges, 11 nodes"' in plain._repr_html_()
        assert "13 edges, 11 nodes on 12 layers of 12 heads" in IOI._repr_html_()
        edges = [edge for edge, _ in zip(ModelGraph(GPT2).edges(), range(300), strict=False)]
        html = Circuit.from_edges(GPT2, edges)._repr_html_()
        assert "300 edges" in html
        assert "have no weight" in html
        assert "<svg" not in html

    def test_drawing_brings_in_neither_library_before_it_draws(self):
        code = (
            "import sys; import circuitgraph.draw; "
            "print([m for m in ('vl_convert', 'pygraphviz', 'torch') if m in sys.modules])"
        )
        done = run_python(code)
        assert done.stdout.strip() == "[]", done.stderr
