"""The report in a real browser: what is drawn, what answers, what a keyboard reaches.

Skipped, and saying so, where no Chromium is installed (on Debian: ``apt-get install chromium``).
"""

import re
import time

import pytest

from circuitgraph import ModelGraph, compile
from circuitgraph.circuit.weights import signed
from circuitgraph.report import Report
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


TIP = "document.getElementById('tip').innerText"
MARKS = "document.querySelectorAll('#result-1 .picture:first-child .says')"


class TestPictures:
    def test_hover_says_the_number_and_marks_the_row(self, tab, page):
        tab.open(page)
        tab.run(f"[...{MARKS}].find(m => m.ariaLabel.startsWith('2.1:')).id = 'wanted'")
        tab.hover("#wanted")
        value = signed(float(comparison().effects["mlps"].normalized().sel(layer=2, head=1)))
        assert tab.run(TIP).splitlines()[0] == "2.1"
        assert tab.run(TIP).splitlines()[1].startswith(f"{value} of the logit difference [")
        rows = "[...document.querySelectorAll('tr.linked')].map(row => row.dataset.name)"
        assert tab.run(rows) == ["2.1"]
        tab.hover("h1")
        assert tab.run("document.getElementById('tip').hidden")

    def test_arrow_keys_move_between_marks(self, tab, page):
        tab.open(page)
        tab.run(f"{MARKS}[0].focus()")
        tab.press("ArrowDown", 40)
        tab.press("ArrowRight", 39)
        assert tab.run("document.activeElement.ariaLabel").startswith("1.1:")
        assert tab.run(TIP).startswith("1.1\n")
        stops = (
            "document.querySelector('#result-1 svg').querySelectorAll('[tabindex=\"0\"]').length"
        )
        assert tab.run(stops) == 1
        tab.press("Escape", 27)
        assert tab.run("document.getElementById('tip').hidden")

    def test_every_picture_is_there(self, tab, page):
        tab.open(page)
        count = "[...document.querySelectorAll('section')].map(s => [s.id, s.querySelectorAll('svg').length])"
        found = dict(tab.run(count))
        assert found == {
            "answer": 0, "circuit": 1, "result-1": 2, "result-2": 1, "result-3": 1,
            "prompts": 0, "plan": 1, "reproduce": 0,
        }  # fmt: skip


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
        tab.run("document.querySelector('#circuit details').open = true")
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
    SEEN = "document.querySelectorAll('#circuit [data-line]:not(.off)').length"

    def slide(self, tab, value):
        tab.run(
            f"(() => {{ const s = document.getElementById('edges'); s.value = {value};"
            "s.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )

    def test_the_slider_hides_the_weakest_lines_and_what_only_they_touch(self, tab, page):
        tab.open(page)
        assert tab.run(self.SEEN) == 6
        self.slide(tab, 3)
        assert tab.run(self.SEEN) == 3
        said = "document.getElementById('edges-said').value"
        assert tab.run(said) == "3 of 6: at least 0.2, either sign"
        left = "[...document.querySelectorAll('#circuit .box:not(.off)')].map(b => b.ariaLabel)"
        assert {words.split(" (")[0] for words in tab.run(left)} == {"2.1", "3.2", "3.0", "logits"}
        tab.run("document.getElementById('edges').focus()")
        tab.press("ArrowLeft", 37)
        assert tab.run(self.SEEN) == 2

    def test_lines_say_their_weight_by_mouse_and_by_keyboard(self, tab, page):
        tab.open(page)
        tab.run("document.querySelector('#circuit [data-line]').focus()")
        assert "−" in tab.run(TIP)
        line = "[...document.querySelectorAll('#circuit [data-line]')].find(l => l.ariaLabel.startsWith('2.1 →'))"
        tab.run(f"{line}.querySelector('polygon').id = 'wanted'")
        tab.hover("#wanted")
        assert tab.run(TIP).splitlines() == ["2.1 → logits", "−0.6 [−0.7, −0.5] (the logits)"]

    def test_a_click_says_what_goes_in_and_out(self, tab, page):
        tab.open(page)
        box = "[...document.querySelectorAll('#circuit .box')].find(b => b.ariaLabel.startsWith('2.1'))"
        tab.run(f"{box}.id = 'wanted'")
        tab.click("#wanted")
        said = tab.run("document.querySelector('#circuit .details').innerText")
        assert said.splitlines()[0] == "2.1 (movers)"
        assert "In: 2" in said
        assert "mlp0 → 2.1.v: −0.1 [−0.2, 0]" in said
        assert "Out: 1" in said
        assert tab.run("document.querySelectorAll('#circuit .line.chosen').length") == 3
        assert tab.run("document.querySelector('#wanted').ariaPressed") == "true"
        tab.press("Escape", 27)
        assert tab.run("document.querySelectorAll('#circuit .line.chosen').length") == 0


class TestEverywhere:
    @pytest.mark.parametrize("width", [NARROW, 768, WIDE])
    def test_nothing_is_wider_than_the_screen(self, tab, page, width):
        tab.open(page, width)
        assert tab.run("document.documentElement.scrollWidth") <= width

    def test_a_wide_screen_is_used(self, tab, page):
        tab.open(page, 1500)
        sides = "['#answer', '#circuit'].map(id => document.querySelector(id).getBoundingClientRect().top)"
        assert len(set(tab.run(sides))) == 1
        edge = "document.querySelector('#circuit').getBoundingClientRect().right"
        assert tab.run(edge) > 1400

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
            for selector in ("h1", ".small", "nav a"):
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
        assert html.count("<tr data-name") == 12 + 4 + 24 + 10
        assert html.count("<svg") == 6


def rgb(text):
    """Numbers of a colour as the browser writes it, whichever of its two ways."""
    return [float(part) for part in re.findall(r"[\d.]+", text.replace("srgb", ""))[:3]]


def luminance(color):
    def linear(part):
        share = part / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = rgb(color)
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
