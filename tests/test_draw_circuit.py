"""Pictures of circuits: what stands where, how lines are drawn, what is said around them."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pygraphviz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitgraph.circuit import Circuit
from circuitgraph.draw import draw_circuit, rendering
from circuitgraph.draw.legend import legend_items, legend_label
from circuitgraph.draw.palette import STROKES
from circuitgraph.draw.rendering import draw_dot
from circuitgraph.draw.routing import Route
from circuitgraph.draw.sketch import sketch_nodes
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelGraph, ModelShape
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


def parsed(drawing):
    return pygraphviz.AGraph(string=drawing.dot)


def edges_of(drawing):
    """The attributes of every edge; the graph must outlive its edges, so they are copied."""
    graph = parsed(drawing)
    return [dict(graph.get_edge(*edge).attr) for edge in graph.edges(keys=True)]


def clusters_of(drawing):
    """Members and attributes of every cluster, by its group's name."""
    graph = parsed(drawing)
    return {
        cluster.graph_attr["tooltip"]: (set(cluster.nodes()), dict(cluster.graph_attr))
        for cluster in graph.subgraphs()
        if cluster.graph_attr["bb"]
    }


def positions(drawing, nodes):
    graph = parsed(drawing)
    return {
        str(node): tuple(map(float, graph.get_node(str(node)).attr["pos"].split(",")))
        for node in nodes
    }


def edge_attributes(drawing):
    """Attributes by the edge's text, from the tooltip that every line carries."""
    found = {}
    for edge in edges_of(drawing):
        text = edge["tooltip"].split(": ")[0].split(" (")[0]
        found[text.replace("→", "->")] = edge
    return found


@pytest.fixture(scope="module")
def plain():
    return IOI.draw()


class TestStructure:
    def test_every_node_and_edge_is_there_once(self, plain):
        graph = parsed(plain)
        assert {str(node) for node in IOI.nodes} <= set(graph.nodes())
        assert set(edge_attributes(plain)) == set(WEIGHTS)
        assert graph.number_of_edges() == len(WEIGHTS)
        for edge in IOI.edges:
            assert graph.has_edge(str(edge.sender), str(edge.receiver.node))

    @pytest.mark.parametrize(
        ("rankdir", "axis", "sign"), [("TB", 1, -1), ("BT", 1, 1), ("LR", 0, 1)]
    )
    def test_layers_are_ranks_along_the_stream(self, rankdir, axis, sign):
        at = positions(IOI.draw(rankdir=rankdir), IOI.nodes)
        along = {name: sign * place[axis] for name, place in at.items()}
        assert along["9.6"] == along["9.9"]
        stream = ["embed", "0.1", "mlp0", "5.5", "7.3", "8.6", "9.9", "10.0", "mlp11", "logits"]
        ordered = [along[name] for name in stream]
        assert ordered == sorted(ordered)
        assert len(set(ordered)) == len(ordered)

    def test_rows_are_also_written_as_ranks(self, plain):
        assert "{ rank=same; 9.6; 9.9 }" in plain.dot
        for layer in (0, 5, 7, 8, 9, 10, 11):
            assert f'label="layer {layer}"' in plain.dot
        assert 'label="layer 1"' not in plain.dot

    def test_groups_are_clusters_around_their_nodes(self, plain):
        clusters = clusters_of(plain)
        assert set(GROUPS) == set(clusters)
        at = positions(plain, IOI.nodes)
        for name, members in GROUPS.items():
            inside, attrs = clusters[name]
            assert inside == set(members)
            left, bottom, right, top = map(float, attrs["bb"].split(","))
            for member in members:
                x, y = at[member]
                assert left < x < right
                assert bottom < y < top
            assert f"<B>{name}</B>" in plain.dot

    def test_groups_do_not_overlap(self, plain):
        boxes = [
            tuple(map(float, attrs["bb"].split(","))) for _, attrs in clusters_of(plain).values()
        ]
        for number, (left, bottom, right, top) in enumerate(boxes):
            for other in boxes[:number]:
                apart = left >= other[2] or right <= other[0] or bottom >= other[3]
                assert apart or top <= other[1]

    def test_lines_say_everything_when_pointed_at(self, plain):
        words = {edge["tooltip"] for edge in edges_of(plain)}
        assert "8.6 → 9.9.q: −0.25 (queries of head 9.9)" in words
        circuit = Circuit.from_edges(GPT2, {"9.9 -> logits": (-0.5, -0.6, -0.4)})
        assert "9.9 → logits: −0.5 [−0.6, −0.4] (the logits)" in circuit.draw().dot


class TestLines:
    def test_ports_differ_by_colour_and_by_dash(self, plain):
        found = edge_attributes(plain)
        for text, port in [
            ("8.6 -> 9.9.q", "q"),
            ("0.1 -> 5.5.k", "k"),
            ("5.5 -> 8.6.v", "v"),
            ("9.9 -> logits", "in"),
            ("embed -> mlp0", "in"),
        ]:
            assert found[text]["color"] == STROKES[port].color
            assert found[text]["style"] == STROKES[port].style
        assert len({stroke.color for stroke in STROKES.values()}) == 4
        assert len({STROKES[port].style for port in "qkv"}) == 3

    def test_widths_grow_with_the_weight(self, plain):
        found = edge_attributes(plain)
        by_weight = sorted(WEIGHTS, key=lambda text: abs(WEIGHTS[text]))
        widths = [float(found[text]["penwidth"]) for text in by_weight]
        assert widths == sorted(widths)
        assert len(set(widths)) == len({abs(weight) for weight in WEIGHTS.values()})
        assert widths[0] >= 0.9
        assert widths[-1] == 5.0

    def test_without_weights_all_are_equally_wide(self):
        found = edge_attributes(Circuit.from_edges(GPT2, list(WEIGHTS)).draw())
        assert {attrs["penwidth"] for attrs in found.values()} == {"1.4"}

    def test_an_effect_that_is_rounding_is_no_wide_line(self):
        weights = {"9.9 -> logits": -2.7e-8, "9.6 -> logits": 1.1e-8}
        circuit = Circuit.from_edges(GPT2, weights, attrs={"quantity": "effect"})
        assert all(float(edge["penwidth"]) < 1 for edge in edges_of(circuit.draw()))
        scores = circuit.with_attrs(quantity="weight")  # of another kind, which may well be small
        assert max(float(edge["penwidth"]) for edge in edges_of(scores.draw())) == 5

    def test_the_sign_is_the_shape_of_the_head(self, plain):
        found = edge_attributes(plain)
        assert found["9.9 -> logits"]["arrowhead"] == "tee"
        assert found["8.6 -> 10.0.q"]["arrowhead"] == "normal"
        assert "negative" in plain.dot

    def test_of_effects_the_blunt_head_is_what_works_against(self):
        drawing = IOI.with_attrs(helps="negative", quantity="effect").draw()
        found = edge_attributes(drawing)
        assert found["9.9 -> logits"]["arrowhead"] == "normal"
        assert found["8.6 -> 10.0.q"]["arrowhead"] == "tee"
        assert "works against" in drawing.dot
        assert "widest: effect ±0.5" in drawing.dot

    def test_labels_on_demand(self, plain):
        assert 'label="−0.25"' not in plain.dot
        labelled = IOI.draw(labels=True)
        for weight in ('"−0.25"', '"−0.5"', "0.06"):
            assert f"label={weight} " in labelled.dot

    @pytest.mark.parametrize("which", ["all", "parallel"])
    def test_labels_stand_apart_and_off_the_heads_of_lines(self, which):
        weights = {"8.6 -> 9.9.q": -0.2, "8.6 -> 9.9.k": -0.15, "8.6 -> 9.9.v": -0.1}
        circuit = IOI if which == "all" else Circuit.from_edges(GPT2, weights)
        graph = parsed(circuit.draw(labels=True))
        frames = []
        for node in graph.nodes():
            if node.startswith("weight "):
                x, y = map(float, node.attr["pos"].split(","))
                width, height = 72 * float(node.attr["width"]), 72 * float(node.attr["height"])
                frames.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        assert len(frames) == len(circuit)
        for number, one in enumerate(frames):
            for other in frames[:number]:
                wide = min(one[2], other[2]) - max(one[0], other[0])
                high = min(one[3], other[3]) - max(one[1], other[1])
                assert wide <= 0.5 or high <= 0.5  # points
        for edge in graph.edges(keys=True):
            x, y = map(float, graph.get_edge(*edge).attr["pos"].split()[0].split(",")[1:])
            assert not any(f[0] < x < f[2] and f[1] < y < f[3] for f in frames)


class TestWords:
    def test_the_legend_has_what_the_picture_has(self, plain):
        for words in (
            "queries (q)",
            "keys (k)",
            "values (v)",
            "MLPs and the logits",
            "weight ±0.5",
        ):
            assert words in plain.dot
        small = Circuit.from_edges(GPT2, ["8.6 -> 9.9.q", "9.9 -> logits"]).draw()
        assert "queries (q)" in small.dot
        assert "into the logits" in small.dot
        for words in ("keys (k)", "values (v)", "positive", "widest"):
            assert words not in small.dot
        assert "queries (q)" not in IOI.draw(legend=False).dot

    def test_the_legend_has_ports_in_one_row_and_signs_in_another(self):
        ports, weights = legend_items(sketch_nodes(IOI, IOI.edges), "weight", 0)
        assert [words for _, words in ports] == [
            *("into queries (q)", "into keys (k)", "into values (v)"),
            "into MLPs and the logits",
        ]
        assert [words for _, words in weights] == ["positive", "negative", "widest: weight ±0.5"]
        for width, rows in ((600, 2), (380, 4)):
            label = legend_label([ports, weights], width)
            assert label.count("<TR>") - label.count("<TD><TABLE") == rows

    def test_the_title_is_the_request_unless_given(self):
        circuit = IOI.with_attrs(request="head -> logits", variant="mlps")
        assert "head -&gt; logits, mlps" in circuit.draw().dot
        assert "<B>Mine</B>" in circuit.draw(title="Mine").dot
        assert '"title"' not in circuit.draw(title="").dot

    def test_a_long_title_is_broken_into_lines(self):
        circuit = Circuit.from_edges(GPT2, ["9.9 -> logits"])
        title = "what a head that is patched by itself sends into the logits, " * 3
        short, long = (
            ET.fromstring(circuit.draw(title=words).svg) for words in ("short", title.strip())
        )
        width, usual = (float(one.get("width").removesuffix("pt")) for one in (long, short))
        assert usual < width < 600
        words = " ".join(" ".join(long.itertext()).split())
        assert title.strip() in words

    def test_a_long_name_of_a_group_is_broken_into_lines(self):
        name = "negative name movers (copy suppression, works against)"
        narrow, wide = (
            clusters_of(Circuit.from_edges(GPT2, ["10.7 -> logits"], {said: ["10.7"]}).draw())
            for said in ("name movers", name)
        )
        left, _, right, _ = map(float, wide[name][1]["bb"].split(","))
        assert right - left < 170
        left, _, right, _ = map(float, narrow["name movers"][1]["bb"].split(","))
        assert right - left < 120

    def test_no_line_runs_behind_the_name_of_a_group_that_it_does_not_enter(self):
        edges = {"9.9 -> logits": -0.5, "9.6 -> logits": -0.3, "10.7 -> logits": 0.2}
        groups = {"movers": ["9.9", "9.6"], "negative name movers, all of them": ["10.7"]}
        drawing = Circuit.from_edges(GPT2, edges, groups).draw()
        graph = parsed(drawing)
        title = graph.get_node("name of negative name movers, all of them").attr
        x, y = map(float, title["pos"].split(","))
        wide, high = 36 * float(title["width"]), 36 * float(title["height"])
        for edge in edges_of(drawing):
            if edge["tooltip"].startswith("9."):
                way = Route(edge["pos"])
                for number in range(201):
                    right, up = way.at(number / 200)
                    assert not (abs(right - x) < wide - 1 and abs(up - y) < high - 1)

    def test_text_stays_text(self, tmp_path):
        evil = '<script>alert("x")</script> \\N \\G {|} & ]; evil [label=1'
        circuit = Circuit.from_edges(GPT2, {"9.9 -> logits": 1.0}, {evil: ["9.9"]})
        for drawing in (circuit.draw(title=evil), circuit.draw(title=evil, bundle=True)):
            root = ET.fromstring(drawing.svg)
            texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
            assert evil in texts
            assert " ".join(texts).count(evil) == 2
            assert not [element for element in root.iter() if element.tag.endswith("script")]
            assert set(parsed(drawing).nodes()) >= {"logits"}

    @settings(max_examples=10, deadline=None)
    @given(NAMES, NAMES)
    def test_any_name_and_title_can_be_drawn(self, name, title):
        circuit = Circuit.from_edges(GPT2, {"9.9 -> logits": 1.0}, {name: ["9.9"]})
        ET.fromstring(circuit.draw(title=title).svg)


class TestBundles:
    def test_edges_between_groups_become_one_line_per_port(self):
        drawing = IOI.draw(bundle=True)
        graph = parsed(drawing)
        assert {"group 1: name movers", "group 2: S-inhibition", "0.1", "mlp0"} <= set(
            graph.nodes()
        )
        words = [edge["tooltip"] for edge in edges_of(drawing)]
        assert "S-inhibition → name movers, q: 3 edges, together −0.4" in words
        assert "name movers → logits: 3 edges, together −0.9" in words
        assert "5.5" in graph.get_node("group 3: induction").attr["label"]

    def test_edges_inside_groups_are_counted(self):
        circuit = Circuit.from_edges(
            GPT2, ["7.3 -> 8.6.v", "8.6 -> logits"], {"S-inhibition": ["7.3", "8.6"]}
        )
        assert "1 edge inside a group is not drawn" in circuit.draw(bundle=True).dot

    def test_bundles_stand_where_the_stream_has_them(self):
        """Also those that only the logits read."""
        edges = {"0.1 -> 5.5.q": -0.1, "5.5 -> 9.9.q": -0.1, "9.9 -> logits": -0.4}
        edges |= {"11.8 -> logits": -0.1, "8.2 -> logits": 0.1}
        circuit = Circuit.from_edges(GPT2, edges, {"movers": ["9.9", "9.6"]})
        at = positions(circuit.draw(bundle=True), ["0.1", "5.5", "8.2", "11.8", "group 1: movers"])
        down = {name: -y for name, (_, y) in at.items()}
        assert down["0.1"] < down["5.5"] < down["8.2"]
        assert down["group 1: movers"] < down["11.8"]

    @pytest.mark.parametrize(
        ("rankdir", "axis", "sign"), [("TB", 1, 1), ("BT", 1, -1), ("LR", 0, -1)]
    )
    def test_a_line_back_into_a_group_ends_where_its_head_can_be_seen(self, rankdir, axis, sign):
        """A group stands where its first head does: what feeds a later one runs backwards."""
        edges = {"embed -> 0.1.q": -0.2, "0.1 -> mlp0": -0.3, "mlp0 -> 3.0.q": -0.4}
        circuit = Circuit.from_edges(GPT2, edges | {"3.0 -> logits": 0.3}, {"dup": ["0.1", "3.0"]})
        drawing = circuit.draw(bundle=True, rankdir=rankdir)
        (back,) = (edge for edge in edges_of(drawing) if edge["tooltip"].startswith("mlp0"))
        at = positions(drawing, ["mlp0", "group 1: dup"])
        tip = [float(part) for part in back["pos"].split()[0].split(",")[1:]]
        box, other = at["group 1: dup"], at["mlp0"]
        assert sign * (box[axis] - other[axis]) > 0
        assert 0 < sign * (tip[axis] - other[axis]) < sign * (box[axis] - other[axis])
        assert back["arrowhead"] == "tee"

    def test_of_many_bundles_the_strongest_are_drawn_and_it_says_so(self):
        every = IOI.draw(bundle=True)
        few = IOI.draw(bundle=True, max_edges=3)
        count = len(edges_of(every))
        assert len(edges_of(few)) == 3
        assert f"the strongest 3 of {count} lines" in few.dot
        widths = sorted((float(edge["penwidth"]) for edge in edges_of(every)), reverse=True)
        assert sorted((float(e["penwidth"]) for e in edges_of(few)), reverse=True) == widths[:3]
        with pytest.raises(CircuitError, match="max_edges must be a whole number of at least 1"):
            IOI.draw(bundle=True, max_edges=0)

    def test_it_needs_groups_and_something_between_them(self):
        with pytest.raises(CircuitError, match="the circuit has none: use with_groups"):
            IOI.with_groups({}).draw(bundle=True)
        one = IOI.restrict(["7.3", "9.9"]).with_groups({"all": ["7.3", "9.9"]})
        with pytest.raises(CircuitError, match="every edge runs inside one group"):
            one.draw(bundle=True)


class TestLimits:
    def test_beyond_the_limit_it_draws_the_strongest_and_says_so(self):
        edges = [edge for edge, _ in zip(ModelGraph(GPT2).edges(), range(300), strict=False)]
        circuit = Circuit.from_edges(GPT2, {edge: 1 + n for n, edge in enumerate(edges)})
        drawing = circuit.draw()
        assert parsed(drawing).number_of_edges() == 200
        assert "the strongest 200 of 300 edges" in drawing.dot
        assert set(edge_attributes(drawing)) == {str(edge) for edge in edges[100:]}
        assert "the strongest 200 of 300 edges" in repr(drawing)

    def test_without_weights_nobody_can_say_which_matter(self):
        edges = [edge for edge, _ in zip(ModelGraph(GPT2).edges(), range(20), strict=False)]
        circuit = Circuit.from_edges(GPT2, edges)
        with pytest.raises(CircuitError, match=r"strongest 5 of 20 edges: 20 have no weight.*=20"):
            circuit.draw(max_edges=5)
        assert parsed(circuit.draw(max_edges=20)).number_of_edges() == 20

    def test_nothing_to_draw(self):
        with pytest.raises(CircuitError, match="nothing to draw: the circuit has no edges"):
            Circuit.from_edges(GPT2, []).draw()
        with pytest.raises(
            CircuitError, match="max_edges must be a whole number of at least 1, got 0"
        ):
            IOI.draw(max_edges=0)
        with pytest.raises(CircuitError, match="rankdir must be one of 'TB', 'BT', 'LR', got 'RL'"):
            IOI.draw(rankdir="RL")

    @settings(max_examples=12, deadline=None)
    @given(
        circuits().filter(lambda circuit: len(circuit) > 0),
        st.sampled_from(["TB", "BT", "LR"]),
        st.booleans(),
    )
    def test_any_circuit_can_be_drawn(self, circuit, rankdir, labels):
        drawing = draw_circuit(circuit, rankdir=rankdir, labels=labels)
        assert parsed(drawing).number_of_edges() == len(circuit)
        at = positions(drawing, circuit.nodes)
        assert len(set(at.values())) == len(at)

    def test_the_largest_weights_there_are(self):
        huge = Circuit.from_edges(GPT2, {"8.0 -> logits": 1.7e308, "9.0 -> logits": -1e308})
        drawing = huge.draw()
        assert parsed(drawing).number_of_edges() == 2
        assert "inf" not in drawing.svg

    def test_one_edge_from_end_to_end(self):
        for rankdir in ("TB", "BT", "LR"):
            drawing = Circuit.from_edges(GPT2, {"embed -> logits": 1.0}).draw(rankdir=rankdir)
            assert parsed(drawing).number_of_edges() == 1


class TestFiles:
    @pytest.mark.parametrize(
        ("suffix", "start"),
        [(".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".dot", b"digraph")],
    )
    def test_formats(self, plain, tmp_path, suffix, start):
        path = plain.save(tmp_path / f"circuit{suffix}")
        assert path.read_bytes().startswith(start)
        assert path.stat().st_size > 2000

    def test_other_suffixes(self, plain, tmp_path):
        for name in ("circuit.gif", "circuit"):
            with pytest.raises(
                CircuitError, match=r"must end in \.svg, \.png, \.pdf, \.html, \.dot"
            ):
                plain.save(tmp_path / name)

    def test_more_dots_make_a_larger_picture(self, plain, tmp_path):
        small, large = (
            plain.save(tmp_path / f"{dpi}.png", dpi=dpi).read_bytes() for dpi in (50, 200)
        )
        width = [int.from_bytes(data[16:20], "big") for data in (small, large)]
        assert width[1] == pytest.approx(4 * width[0], rel=0.02)

    def test_the_dot_text_draws_itself_again(self, plain):
        assert draw_dot(plain.dot, plain.caption) == plain

    def test_no_graphviz_program_is_needed(self, tmp_path):
        code = (
            "import sys; from circuitgraph.circuit import Circuit; "
            "from circuitgraph.graph import ModelShape; "
            "Circuit.from_edges(ModelShape(2, 2), ['0.0 -> logits']).draw().save(sys.argv[1])"
        )
        target = tmp_path / "c.png"
        done = run_python(code, str(target), env={**os.environ, "PATH": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert target.exists()

    def test_what_graphviz_says_is_passed_on(self):
        with pytest.raises(CircuitError, match="Graphviz could not draw svg"):
            rendering.render("digraph {", "dot", "svg")

    def test_without_pygraphviz(self, monkeypatch):
        monkeypatch.setattr(rendering, "find_spec", lambda name: None)
        with pytest.raises(CircuitError, match=r"pip install 'pygraphviz>=2'"):
            rendering.render("digraph { unseen }", "dot", "svg")


class TestSvg:
    def test_dashes_grow_with_the_line(self):
        circuit = Circuit.from_edges(GPT2, {"0.0 -> 9.9.k": 0.1, "0.1 -> 9.9.k": 1.0})
        root = ET.fromstring(circuit.draw(legend=False).svg)
        lines = [
            (
                float(element.get("stroke-width")),
                float(element.get("stroke-dasharray").split(",")[0]),
            )
            for element in root.iter()
            if element.tag.endswith("}path") and element.get("stroke-dasharray")
        ]
        (thin, short), (thick, long) = sorted(lines)
        assert thin < thick
        assert short < long

    def test_dots_are_round(self):
        svg = Circuit.from_edges(GPT2, {"0.0 -> 9.9.v": 0.1}).draw().svg
        assert 'stroke-linecap="round" stroke-dasharray="0.1,' in svg

    def test_it_says_what_it_shows(self):
        assert (
            '<svg role="group" aria-label="Mine: 13 edges, 11 nodes"' in IOI.draw(title="Mine").svg
        )


class TestNotebooks:
    def test_a_drawing_shows_itself(self, plain):
        assert "<svg" in plain._repr_html_()
        assert repr(plain) == "Drawing: 13 edges, 11 nodes"

    def test_a_circuit_shows_its_picture(self):
        html = IOI._repr_html_()
        assert "13 edges, 11 nodes on 12 layers of 12 heads" in html
        assert "<svg" in html

    def test_what_cannot_be_drawn_is_still_described(self):
        assert "0 edges" in Circuit.from_edges(GPT2, [])._repr_html_()
        edges = [edge for edge, _ in zip(ModelGraph(GPT2).edges(), range(300), strict=False)]
        html = Circuit.from_edges(GPT2, edges)._repr_html_()
        assert "300 edges" in html
        assert "have no weight" in html
        assert "<svg" not in html


def test_drawing_circuits_brings_in_no_vega_and_no_pygraphviz():
    code = (
        "import sys; import circuitgraph.draw; "
        "print([m for m in ('vl_convert', 'pygraphviz', 'torch') if m in sys.modules])"
    )
    done = run_python(code)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_published_circuit(tmp_path):
    """The IOI circuit of Wang et al. 2022: every head in its class, classes in their order."""
    classes = {
        "duplicate token": ["0.1", "3.0"],
        "previous token": ["2.2", "4.11"],
        "induction": ["5.5", "6.9"],
        "S-inhibition": ["7.3", "7.9", "8.6", "8.10"],
        "name movers": ["9.9", "9.6", "10.0"],
        "negative name movers": ["10.7", "11.10"],
    }
    edges = [f"embed -> {head}.{port}" for port in "qkv" for head in classes["duplicate token"]]
    edges += [f"embed -> {head}.{port}" for port in "qkv" for head in classes["previous token"]]
    joins = [
        ("previous token", "induction", "k"),
        ("duplicate token", "S-inhibition", "v"),
        ("induction", "S-inhibition", "v"),
        ("S-inhibition", "name movers", "q"),
        ("S-inhibition", "negative name movers", "q"),
    ]
    shape, graph = GPT2, ModelGraph(GPT2)
    for senders, receivers, port in joins:
        for sender in classes[senders]:
            for receiver in classes[receivers]:
                edges.append(f"{sender} -> {receiver}.{port}")
    edges += [f"{head} -> logits" for head in classes["name movers"]]
    edges += [f"{head} -> logits" for head in classes["negative name movers"]]
    possible = {str(edge) for edge in graph.edges()}
    circuit = Circuit.from_edges(shape, [edge for edge in edges if edge in possible], classes)
    drawing = circuit.draw(title="Indirect object identification", rankdir="LR")
    at = positions(drawing, circuit.nodes)
    order = ["embed", "0.1", "2.2", "5.5", "7.3", "9.9", "11.10", "logits"]
    assert [at[name][0] for name in order] == sorted(at[name][0] for name in order)
    assert Path(drawing.save(tmp_path / "ioi.pdf")).stat().st_size > 10_000
    bundled = parsed(circuit.draw(bundle=True))
    assert bundled.number_of_edges() == 6 + 5 + 2
