"""Reads an SVG as a person does: what is written in it, and what marks say when pointed at."""

from xml.etree import ElementTree as ET

__all__ = ["marks", "written"]


def marks(picture):
    """Return what each mark says, with its colour; Graphviz and Vega both write it as a title."""
    found = {}
    for element in ET.fromstring(picture.svg).iter():
        title = element.find("{*}title")
        if title is not None and title.text:
            found[title.text] = element.get("fill")
    return found


def written(picture):
    """Return every line of text."""
    root = ET.fromstring(picture.svg)
    return ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
