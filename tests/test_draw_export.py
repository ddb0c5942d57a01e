"""Figures as files: pages by themselves, pictures where kaleido and a browser are."""

import base64
import hashlib
import importlib.util
import sys
from types import SimpleNamespace

import pytest

from circuitgraph.cli.keeping import Folder
from circuitgraph.draw import export, save_figure
from circuitgraph.draw.heatmap import heatmap
from circuitgraph.errors import EffectsError
from tests.browser import chromium_path, open_browser
from tests.test_draw_heatmap import HEADS


@pytest.fixture(scope="module")
def figure():
    return heatmap(HEADS)


def kaleido_that(draws):
    return SimpleNamespace(calc_fig_sync=draws)


def install(monkeypatch, draws):
    monkeypatch.setitem(sys.modules, "kaleido", kaleido_that(draws))
    monkeypatch.setattr(export, "find_spec", lambda name: object())


def test_a_page_holds_everything(figure, tmp_path):
    path = save_figure(figure, tmp_path / "heads.html")
    page = path.read_text(encoding="utf-8")
    assert len(page) > 1_000_000
    assert "head -\\u003e logits" in page or "head -&gt; logits" in page


def test_a_page_runs_its_own_scripts_and_nothing_else(figure, tmp_path):
    page = save_figure(figure, tmp_path / "heads.html").read_text(encoding="utf-8")
    head, _, rest = page.partition('<meta http-equiv="Content-Security-Policy" content="')
    policy = rest.partition('">')[0]
    assert "<script" not in head, "a policy holds for what follows it"
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    scripts = [part.partition(">")[2] for part in page.split("<script")[1:]]
    for script in scripts:
        text = script.partition("</script>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(scripts) == policy.count("sha256-") > 1


def in_a_folder(figure, place):
    folder = Folder(place)
    folder.keep_figure(figure, "heads.html", "a heatmap")
    folder.finish()
    return place / "heads.html"


def test_a_page_of_a_folder_loads_what_is_beside_it_and_nothing_else(figure, tmp_path):
    page = in_a_folder(figure, tmp_path / "results").read_text(encoding="utf-8")
    head, _, rest = page.partition('<meta http-equiv="Content-Security-Policy" content="')
    policy = rest.partition('">')[0]
    assert "<script" not in head
    assert "default-src 'none'; script-src 'self' file: 'sha256-" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert (tmp_path / "results" / "plotly.min.js").stat().st_size > 1_000_000
    assert len(page) < 200_000


@pytest.mark.skipif(chromium_path() is None, reason="needs Chromium")
def test_a_page_of_a_folder_draws_under_its_policy(figure, tmp_path):
    path = in_a_folder(figure, tmp_path / "results")
    with open_browser() as browser:
        tab = browser.tab()
        tab.load(path)
        tab.wait("document.querySelectorAll('.main-svg').length > 0")


@pytest.mark.skipif(chromium_path() is None, reason="needs Chromium")
def test_a_page_draws_under_its_policy(figure, tmp_path):
    path = save_figure(figure, tmp_path / "heads.html")
    with open_browser() as browser:
        tab = browser.tab()
        tab.load(path)
        tab.wait("document.querySelectorAll('.main-svg').length > 0")
        assert tab.problems() == []
        elsewhere = [url for url in tab.requests() if not url.startswith("data:")]
        assert elsewhere == [path.resolve().as_uri()]
        assert tab.run("document.querySelector('.xtitle').textContent") == "head"


def test_without_kaleido_it_says_what_to_install(figure, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(EffectsError) as error:
        save_figure(figure, tmp_path / "heads.svg")
    assert str(error.value) == (
        "saving 'heads.svg' needs kaleido, and Chrome or Chromium for it to draw with: "
        "pip install 'circuitgraph-lens[images]'; 'heads.html' needs neither"
    )
    assert not (tmp_path / "heads.svg").exists()


def test_without_a_browser_it_says_so(figure, tmp_path, monkeypatch):
    class ChromeNotFoundError(RuntimeError):
        pass

    def fails(*_, **__):
        raise ChromeNotFoundError("many lines\nof text")

    install(monkeypatch, fails)
    with pytest.raises(EffectsError) as error:
        save_figure(figure, tmp_path / "heads.png")
    assert str(error.value) == (
        "saving 'heads.png' needs a Chrome or Chromium that starts, and kaleido found none "
        "(ChromeNotFoundError): install one, or name it in the environment variable BROWSER_PATH; "
        "'heads.html' needs none"
    )


def test_the_figures_own_size_is_kept_and_the_network_left_alone(figure, tmp_path, monkeypatch):
    asked = {}

    def draws(drawn, opts, kopts):
        asked.update(opts, **kopts)
        return b"picture"

    install(monkeypatch, draws)
    path = save_figure(figure, tmp_path / "heads.PNG", scale=3)
    assert path.read_bytes() == b"picture"
    assert asked == {
        "format": "png",
        "width": figure.layout.width,
        "height": figure.layout.height,
        "scale": 3,
        "mathjax": False,
    }


def test_another_suffix(figure, tmp_path):
    with pytest.raises(EffectsError, match=r"must end in \.html, \.svg, \.png, \.pdf"):
        save_figure(figure, tmp_path / "heads.jpeg")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("kaleido") is None or chromium_path() is None,
    reason="needs kaleido (pip install 'circuitgraph-lens[images]') and Chrome or Chromium",
)
@pytest.mark.parametrize(
    ("suffix", "start"), [("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_pictures_for_real(figure, tmp_path, suffix, start):
    assert save_figure(figure, tmp_path / f"heads.{suffix}").read_bytes().startswith(start)
