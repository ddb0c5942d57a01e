"""Whatever font a reader has, no text of a circuit runs over a border, another text or a line.

Looked at in a real Chromium that knows one family of fonts only, where text boxes are measured.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from circuitgraph.circuit import Circuit
from circuitgraph.graph import ModelGraph, ModelShape
from tests.browser import chromium_path, open_browser
from tests.draw.test_circuits import IOI

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(chromium_path() is None, reason="needs Chromium"),
]

FAMILIES = {
    "dejavu": "/usr/share/fonts/truetype/dejavu",
    "liberation": "/usr/share/fonts/truetype/liberation",
    "serif": "/usr/share/fonts/truetype/dejavu",
}
CONFIG = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>{folder}</dir><cachedir>{cache}</cachedir><selectfont>{reject}</selectfont></fontconfig>"""
SANS = (
    "<rejectfont><pattern><patelt name='family'><string>DejaVu Sans</string></patelt></pattern>"
    "</rejectfont>"
)
FAULTS = """(() => {
  const faults = [];
  const near = (a, b, gap) => a.left < b.right - gap && b.left < a.right - gap
    && a.top < b.bottom - gap && b.top < a.bottom - gap;
  const texts = [...document.querySelectorAll("svg text")].filter((e) => e.textContent.trim());
  const boxes = texts.map((text) => {
    const at = text.getBoundingClientRect(), cut = at.height * 0.22;
    return { left: at.left, right: at.right, top: at.top + cut, bottom: at.bottom - cut };
  });
  const page = document.querySelector("svg").getBoundingClientRect();
  texts.forEach((text, n) => {
    const own = boxes[n];
    if (own.left < page.left - 1 || own.right > page.right + 1) faults.push("out: " + text.textContent);
    for (let m = 0; m < n; m += 1) {
      if (near(own, boxes[m], 0.5)) faults.push("text: " + text.textContent + " / " + texts[m].textContent);
    }
    const group = text.closest(".box");
    const border = group && group.querySelector("path, polygon");
    if (border) {
      const at = border.getBoundingClientRect();
      if (own.left < at.left - 0.5 || own.right > at.right + 0.5) faults.push("border: " + text.textContent);
    }
  });
  for (const path of document.querySelectorAll("svg [data-line] > g > path, svg [data-line] > path")) {
    const length = path.getTotalLength(), to = path.getScreenCTM();
    for (let at = 0; at <= length; at += 2) {
      const { x, y } = path.getPointAtLength(at).matrixTransform(to);
      boxes.forEach((box, n) => {
        if (texts[n].closest("[data-line]") || texts[n].closest(".box")) return;
        if (x > box.left + 1 && x < box.right - 1 && y > box.top + 1 && y < box.bottom - 1) {
          faults.push("line over " + texts[n].textContent);
        }
      });
    }
  }
  return [...new Set(faults)];
})()"""


def published():
    """The circuit that the documentation draws."""
    source = Path("examples/ioi_published.py").read_text(encoding="utf-8").split("# %%\ntitle")[0]
    found: dict = {}
    exec(source.replace("print(circuit.summary)", ""), found)
    return found["circuit"]


def random_circuit(seed):
    """A connected circuit of a small model, with groups whose names are long."""
    draw = np.random.default_rng(seed)
    shape = ModelShape(int(draw.integers(3, 9)), int(draw.integers(2, 9)))
    every = list(ModelGraph(shape).edges())
    chosen = draw.choice(len(every), size=min(len(every), int(draw.integers(3, 22))), replace=False)
    edges = {every[at]: float(draw.normal(0, 0.3)) for at in chosen}
    heads = sorted({str(e.sender) for e in edges if re.match(r"\d+\.", str(e.sender))})
    names = ["previous token", "negative name movers (copy suppression)", "WWW MMM"]
    groups = {name: heads[at::4] for at, name in enumerate(names) if heads[at::4]}
    return Circuit.from_edges(shape, edges, groups, {"quantity": "effect"})


def drawings(count):
    circuit = published()
    title = "Indirect objects in GPT-2 small (Wang et al. 2022)"
    yield circuit.draw(title=title, bundle=True, rankdir="LR")
    yield circuit.draw(title=title, bundle=True)
    yield IOI.draw(title="Name movers, and what feeds them")
    yield IOI.draw(rankdir="LR")
    for seed in range(count):
        yield random_circuit(seed).draw(rankdir=("TB", "LR")[seed % 2])


@pytest.fixture(scope="module", params=FAMILIES)
def browser(request, tmp_path_factory):
    if not Path(FAMILIES[request.param]).exists():
        pytest.skip(f"the fonts of {request.param} are not installed")
    folder = tmp_path_factory.mktemp(request.param)
    reject = SANS if request.param == "serif" else ""
    config = CONFIG.format(folder=FAMILIES[request.param], cache=folder, reject=reject)
    (folder / "fonts.conf").write_text(config, encoding="utf-8")
    before = os.environ.get("FONTCONFIG_FILE")
    os.environ["FONTCONFIG_FILE"] = str(folder / "fonts.conf")
    try:
        with open_browser() as found:
            yield found
    finally:
        os.environ.pop("FONTCONFIG_FILE")
        if before:
            os.environ["FONTCONFIG_FILE"] = before


@pytest.mark.parametrize("count", [2, pytest.param(50, marks=pytest.mark.large)])
def test_no_text_runs_over_anything(browser, tmp_path, count):
    tab = browser.tab()
    faults = {}
    for number, drawing in enumerate(drawings(count)):
        path = drawing.save(tmp_path / f"{number}.html")
        tab.load(path)
        if found := tab.run(FAULTS):
            faults[number] = found
    assert not faults


def test_the_look_would_see_a_fault(browser, tmp_path):
    """Without the widths that every text carries, words of another font do run over."""
    drawing = IOI.draw(title="x")
    wide = re.sub(r'textLength="[\d.]+"', 'textLength="90"', drawing.svg)
    path = tmp_path / "fault.html"
    path.write_text(f"<body>{wide}</body>", encoding="utf-8")
    tab = browser.tab()
    tab.load(path)
    assert {fault.split(":")[0] for fault in tab.run(FAULTS)} >= {"border", "text"}
