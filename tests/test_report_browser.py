"""The report in a real browser: what is drawn, what answers, what a keyboard reaches.

Skipped, and saying so, where no Chromium is installed (on Debian: ``apt-get install chromium``).
"""

import re
import time

import pytest

from circuitgraph import ModelGraph, compile
from circuitgraph.circuit import Circuit
from circuitgraph.circuit.weights import signed
from circuitgraph.draw.report import Report
from tests.browser import chromium_path, open_browser
from tests.reports import NASTY, SHAPE, circuit, comparison, effects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(
        chromium_path() is None,
        reason="NO CHROMIUM: the report's pictures are not tested; install Debian's `chromium`",
    ),
]

NARROW, WIDE = 390, 1280


@pytest.fixture(scope="module")
def browser():
    with open_browser() as found:
        yield found


@pytest.fixture
def tab(browser):
    found = browser.tab()
    yield found
    found.call("Page.close")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with everything in it."""
    graph = ModelGraph(SHAPE)
    sweep = {"layer": range(4), "head": range(3), "receiver": ["3.0.q", "3.0.k"]}
    return Report(
        question="Which heads write the answer?",
        results={
            "Both": comparison(),
            "MLPs": effects(request="mlp -> logits", sweep={"layer": range(4)}),
            "Ports": effects(request="head -> [3.0.q, 3.0.k] => logits", sweep=sweep),
        },
        prompts=[(NASTY, "nothing")] * 12,
        plans=[compile(graph, "head -> logits", name) for name in ("mlps", "single-pass")],
        circuit=circuit(),
        command="circuitgraph compare 'head -> logits'",
        versions={"circuitgraph": "1.2"},
    ).save(tmp_path_factory.mktemp("report") / "report.html")


def test_it_loads_without_complaints_and_without_the_network(tab, page):
    tab.open(page)
    assert tab.problems() == []
    assert tab.requests() == [page.resolve().as_uri()]
    assert tab.run("document.title") == "Which heads write the answer?"


def test_a_prompt_with_a_script_stays_text(tab, page):
    tab.open(page)
    assert tab.run("document.title") != "owned"
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert tab.run("document.querySelector('#prompts .pair').textContent").startswith(
        f"clean {NASTY}"
    )


def test_even_a_script_that_got_in_would_not_run(tab, page, tmp_path):
    path = tmp_path / "report.html"
    html = page.read_text(encoding="utf-8")
    path.write_text(html.replace("<main", "<script>document.title = 'owned'</script><main", 1))
    tab.open(path)
    assert tab.run("document.title") != "owned"
    assert any("Content Security Policy" in problem for problem in tab.problems())


class TestHeatmaps:
    def test_pictures_are_drawn(self, tab, page):
        tab.open(page)
        cells = "document.querySelectorAll('#result-1 .heatmaps .cell').length"
        assert tab.run(cells) == 3 * 12
        assert tab.run("document.querySelectorAll('#result-2 .bar').length") == 4
        assert tab.run("document.querySelectorAll('#result-3 .image').length") == 2

    def test_hover_shows_the_right_numbers(self, tab, page):
        tab.open(page)
        both = comparison()
        tab.hover("#result-1 .heatmaps [data-cell='7']")
        said = tab.run("document.getElementById('tip').innerText").splitlines()
        assert said[0] == "2.1"
        for line, name in zip(said[1:], both.names, strict=False):
            found = both.effects[name].statistics().sel(layer=2, head=1)
            low, high = (signed(float(found[end])) for end in ("ci_low", "ci_high"))
            value = signed(float(found["effect"]), 3)
            assert line == f"{name}: {value} [{low}, {high}], stands out"
        difference = signed(float(both.difference()["effect"].sel(layer=2, head=1)), 3)
        assert said[3].startswith(f"mlps − single-pass: {difference} [")
        assert said[3].endswith(", differs")

    def test_every_row_and_column_of_a_small_sweep_is_named(self, tab, tmp_path):
        sweep = {"sender": ["2.0", "1.2"], "receiver": ["3.0.q@end", "3.1.q@end"]}
        found = effects(request="[2.0, 1.2] -> [3.0, 3.1].q@end => logits", sweep=sweep)
        small = Report(question="Which?", results=found).save(tmp_path / "small.html")
        tab.open(small, width=WIDE)
        texts = "[...document.querySelectorAll('svg.image text')].map((text) => text.textContent)"
        assert {"2.0", "1.2", "3.0.q@end", "3.1.q@end"} <= set(tab.run(texts))
        tab.open(small, width=NARROW)
        assert {"2.0", "1.2", "3.0.q@end", "3.1.q@end"} <= set(tab.run(texts))

    def test_it_goes_away_again(self, tab, page):
        tab.open(page)
        tab.hover("#result-1 .heatmaps [data-cell='7']")
        tab.hover("h1")
        assert tab.run("document.getElementById('tip').hidden")

    def test_a_cell_is_marked_everywhere(self, tab, page):
        tab.open(page)
        tab.hover("#result-1 .heatmaps [data-cell='7']")
        linked = "[...document.querySelectorAll('#result-1 .linked')].map(e => e.tagName)"
        assert sorted(tab.run(linked)) == ["TR", "path", "rect", "rect", "rect"]

    def test_arrow_keys_move_between_cells(self, tab, page):
        tab.open(page)
        tab.run("document.querySelector('#result-1 .image .cell').focus()")
        tab.press("ArrowDown", 40)
        tab.press("ArrowRight", 39)
        assert tab.run("document.activeElement.dataset.cell") == "4"
        assert tab.run("document.getElementById('tip').innerText").startswith("1.1\n")
        assert (
            tab.run(
                "document.querySelector('#result-1 .image')"
                ".querySelectorAll('[tabindex=\"0\"]').length"
            )
            == 1
        )
        tab.press("Escape", 27)
        assert tab.run("document.getElementById('tip').hidden")

    def test_red_below_zero_blue_above_by_the_same_measure(self, tab, page):
        tab.open(page)
        color = "getComputedStyle(document.querySelector(\"#result-1 .cell[data-cell='%d']\")).fill"
        red, _, blue = rgb(tab.run(color % 7))
        assert red > blue
        red, _, blue = rgb(tab.run(color % 11))
        assert blue > red


def rgb(text):
    """Numbers of a colour as the browser writes it, whichever of its two ways."""
    return [float(part) for part in re.findall(r"[\d.]+", text.replace("srgb", ""))[:3]]


class TestScatter:
    def test_points_and_names(self, tab, page):
        tab.open(page)
        assert tab.run("document.querySelectorAll('.scatter .point').length") == 12
        assert "2.1" in tab.run(
            "[...document.querySelectorAll('.scatter .name')].map(e => e.textContent)"
        )

    def test_hover(self, tab, page):
        tab.open(page)
        tab.hover(".scatter [data-cell='7']")
        assert tab.run("document.getElementById('tip').innerText").startswith("2.1\nmlps: −0.")


class TestTables:
    FIRST = (
        "[...document.querySelectorAll('#table-0 tbody tr')].map(row => row.cells[%d].innerText)"
    )

    def test_a_click_sorts_and_a_second_turns_around(self, tab, page):
        tab.open(page)
        tab.click("#table-0 thead th:nth-child(2) button")
        values = [float(text.replace("−", "-")) for text in tab.run(self.FIRST % 1)]
        assert values == sorted(values, reverse=True)
        assert (
            tab.run("document.querySelector('#table-0 th:nth-child(2)').getAttribute('aria-sort')")
            == "descending"
        )
        tab.click("#table-0 thead th:nth-child(2) button")
        values = [float(text.replace("−", "-")) for text in tab.run(self.FIRST % 1)]
        assert values == sorted(values)

    def test_names_sort_as_numbers(self, tab, page):
        tab.open(page)
        tab.click("#table-0 thead th:first-child button")
        names = tab.run(self.FIRST % 0)
        assert names == sorted(names, key=lambda name: tuple(map(int, name.split("."))))

    def test_by_keyboard(self, tab, page):
        tab.open(page)
        tab.run("document.querySelector('#table-0 th button').focus()")
        tab.call(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key="Enter",
            code="Enter",
            text="\r",
            windowsVirtualKeyCode=13,
        )
        tab.call(
            "Input.dispatchKeyEvent",
            type="keyUp",
            key="Enter",
            code="Enter",
            windowsVirtualKeyCode=13,
        )
        assert tab.run(self.FIRST % 0)[0] == "0.0"

    def test_a_search_narrows(self, tab, page):
        tab.open(page)
        tab.run("document.querySelector('[data-filter=table-0]').focus()")
        tab.call("Input.insertText", text="2.1")
        assert tab.run(
            "[...document.querySelectorAll('#table-0 tbody tr')].filter(row => !row.hidden)"
            ".map(row => row.cells[0].innerText)"
        ) == ["2.1"]

    def test_it_can_be_kept_as_a_file(self, tab, page, tmp_path):
        tab.open(page)
        tab.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        tab.click("[data-keep=table-circuit]")
        path = tmp_path / "table-circuit.csv"
        until = time.monotonic() + 20
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "from,to,effect,interval,in the circuit"
        assert lines[1] == "2.1,logits,-0.6,-0.700 to -0.500,yes"
        assert len(lines) == 11


class TestCircuit:
    EDGES = "document.querySelectorAll('#circuit .edge').length"

    def slide(self, tab, value):
        tab.run(
            f"(() => {{ const s = document.getElementById('edges'); s.value = {value};"
            "s.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    def test_the_slider_changes_the_number_of_edges(self, tab, page):
        tab.open(page)
        said = "document.getElementById('edges-said').value"
        assert tab.run(self.EDGES) == 6
        assert tab.run(said) == "6 of 10 edges: effect at least 0.08, either sign"
        self.slide(tab, 3)
        assert tab.run(self.EDGES) == 3
        assert tab.run(said) == "3 of 10 edges: effect at least 0.2, either sign"
        self.slide(tab, 10)
        assert tab.run(self.EDGES) == 10

    def test_by_keyboard(self, tab, page):
        tab.open(page)
        tab.run("document.getElementById('edges').focus()")
        tab.press("ArrowLeft", 37)
        assert tab.run(self.EDGES) == 5

    def test_hover_an_edge_for_its_effect_and_interval(self, tab, page):
        tab.open(page)
        tab.run("document.querySelector('#circuit .edge').scrollIntoView()")
        tab.run("document.querySelector(\"#circuit [data-edge='0']\").focus()")
        said = tab.run("document.getElementById('tip').innerText").splitlines()
        assert said == ["2.1 → logits", "effect −0.6 [−0.7, −0.5]", "helps"]
        tab.press("ArrowRight", 39)
        said = tab.run("document.getElementById('tip').innerText").splitlines()
        assert said == ["3.2 → logits", "effect 0.3 [0.2, 0.4]", "works against"]

    def test_the_mouse_reaches_edges(self, tab, page):
        tab.open(page)
        self.slide(tab, 1)
        tab.hover("#circuit .edge .hit")
        assert tab.run("document.getElementById('tip').innerText").startswith("2.1 → logits")

    def test_a_click_says_what_goes_in_and_out(self, tab, page):
        tab.open(page)
        node = "[...document.querySelectorAll('#circuit .node')].find(n => n.textContent === '2.1')"
        tab.run(f"{node}.id = 'wanted'")
        tab.click("#wanted")
        said = tab.run("document.querySelector('#circuit .details').innerText")
        assert said.splitlines()[0] == "2.1 (movers)"
        assert "In: 2" in said
        assert "mlp0 → 2.1.v: −0.1 [−0.2, 0]" in said
        assert "Out: 1" in said
        assert tab.run("document.querySelectorAll('#circuit .edge.chosen').length") == 3
        assert tab.run("document.querySelector('#wanted').getAttribute('aria-pressed')") == "true"
        tab.press("Escape", 27)
        assert tab.run("document.querySelectorAll('#circuit .edge.chosen').length") == 0

    def test_lines_go_around_the_boxes_of_others(self, tab, tmp_path):
        """Behind another box, a line would seem to be two: one into the box, one out of it."""
        edges = [f"{layer}.1 -> logits" for layer in range(4)] + ["0.1 -> 3.1.q", "embed -> 2.1.v"]
        column = Circuit.from_edges(SHAPE, dict.fromkeys(edges, -0.2))
        page = Report(question="Who?", circuit=column).save(tmp_path / "column.html")
        for width in (NARROW, WIDE):
            tab.open(page, width)
            crossed = tab.run(
                "(() => { const boxes = [...document.querySelectorAll('#circuit .node')]"
                ".filter(n => !['embed', 'logits'].includes(n.textContent))"
                ".map(n => n.querySelector('rect').getBBox());"
                "return [...document.querySelectorAll('#circuit .edge .hit')].map(path => {"
                "  const long = path.getTotalLength();"
                "  return boxes.filter(box => Array.from({length: 301}, (_, at) => "
                "path.getPointAtLength(long * at / 300)).some(p => p.x > box.x + 1 "
                "&& p.x < box.x + box.width - 1 && p.y > box.y + 1 && p.y < box.y + box.height - 1)"
                ").length; }); })()"
            )
            assert crossed == [0] * len(edges)

    def test_nodes_keep_inside_and_apart(self, tab, page):
        for width in (NARROW, WIDE):
            tab.open(page, width)
            self.slide(tab, 10)
            boxes = tab.run(
                "[...document.querySelectorAll('#circuit .node > rect:first-child')].map(r => {"
                "const b = r.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]})"
            )
            assert len(boxes) == 10
            for at, one in enumerate(boxes):
                assert one[0] >= 0
                assert one[2] <= width
                for other in boxes[at + 1 :]:
                    across = min(one[2], other[2]) - max(one[0], other[0])
                    down = min(one[3], other[3]) - max(one[1], other[1])
                    assert min(across, down) <= 0.5


class TestEverywhere:
    @pytest.mark.parametrize("width", [NARROW, 768, WIDE])
    def test_nothing_is_wider_than_the_screen(self, tab, page, width):
        tab.open(page, width)
        assert tab.run("document.documentElement.scrollWidth") <= width

    def test_pictures_follow_the_width(self, tab, page):
        tab.open(page, WIDE)
        wide = tab.run("document.querySelector('#circuit svg').clientWidth")
        tab.size(NARROW, 800)
        tab.wait(f"document.querySelector('#circuit svg').clientWidth < {wide}")
        assert tab.run("document.documentElement.scrollWidth") <= NARROW
        assert tab.problems() == []

    def test_dark_where_the_system_is_dark_or_the_reader_says_so(self, tab, page):
        paper = "getComputedStyle(document.body).backgroundColor"
        tab.open(page)
        light = tab.run(paper)
        assert light == "rgb(255, 255, 255)"
        tab.theme(dark=True)
        dark = tab.run(paper)
        assert dark != light
        tab.click("#theme")
        assert tab.run("document.getElementById('theme').textContent") == "Theme: light"
        assert tab.run(paper) == light
        tab.theme(dark=False)
        tab.click("#theme")
        assert tab.run(paper) == dark

    def test_words_can_be_read_in_both_themes(self, tab, page):
        for dark in (False, True):
            tab.open(page, dark=dark)
            paper = luminance(tab.run("getComputedStyle(document.body).backgroundColor"))
            for selector in ("h1", ".small", "nav a", ".heatmaps text", ".node text"):
                paint = "fill" if "text" in selector else "color"
                ink = luminance(
                    tab.run(f"getComputedStyle(document.querySelector('{selector}')).{paint}")
                )
                low, high = sorted((paper, ink))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (selector, dark)

    def test_everything_that_answers_has_a_name(self, tab, page):
        tab.open(page)
        nameless = (
            "[...document.querySelectorAll('button, input, [role=button], [role=img],"
            " [role=group], [role=region], svg:not([aria-hidden=true])')].filter(e =>"
            " !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))"
            ".map(e => e.outerHTML.slice(0, 80))"
        )
        assert tab.run(nameless) == []

    def test_tab_reaches_each_picture_once(self, tab, page):
        tab.open(page)
        for picture in (".image", ".bars", ".plot"):
            stops = (
                f"document.querySelector('{picture}').querySelectorAll('[tabindex=\"0\"]').length"
            )
            assert tab.run(stops) == 1
        assert tab.run("document.querySelectorAll('#circuit svg [tabindex=\"0\"]').length") == 2

    def test_it_prints(self, tab, page, tmp_path):
        tab.open(page, dark=True)
        tab.pdf(tmp_path / "report.pdf")
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
        tab.call("Emulation.setEmulatedMedia", media="print", features=[])
        assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert tab.run("getComputedStyle(document.querySelector('.tools')).display") == "none"

    def test_what_is_folded_is_unfolded_on_paper(self, tab, page):
        tab.open(page)
        folded = "document.querySelectorAll('details:not([open])').length"
        before = tab.run(folded)
        assert before > 0
        tab.run("window.dispatchEvent(new Event('beforeprint'))")
        assert tab.run(folded) == 0
        tab.run("window.dispatchEvent(new Event('afterprint'))")
        assert tab.run(folded) == before

    def test_without_a_script_the_tables_are_there(self, tab, page):
        tab.call("Emulation.setScriptExecutionDisabled", value=True)
        tab.load(page)
        root = tab.call("DOM.getDocument")["root"]["nodeId"]
        html = tab.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]
        assert 'class="ready"' not in html
        assert html.count("<tr data-cell") == 12 + 4 + 24
        assert "JavaScript, which is switched off" in html


def luminance(color):
    def linear(part):
        share = part / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = rgb(color)
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
