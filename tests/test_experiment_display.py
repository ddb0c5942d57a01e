"""An experiment in a notebook: its first prompts as text, and nothing in them as markup."""

from types import SimpleNamespace

import numpy as np
import torch

from circuitgraph.experiment.display import experiment_html

WORDS = ["<script>alert(1)</script>", "John", "Mary", "[pad]"]


class Tokenizer:
    def decode(self, tokens):
        return " ".join(WORDS[token] for token in tokens)


def shown(n_prompts=2, tokenizer=None):
    clean = torch.tensor([[0, 1, 3], [1, 2, 1], [2, 2, 2], [1, 1, 1]])[:n_prompts]
    setup = SimpleNamespace(
        clean=clean,
        corrupt=clean.flip(1),
        n_prompts=n_prompts,
        metric=SimpleNamespace(name="a & b"),
    )
    prompts = SimpleNamespace(lengths=torch.tensor([2, 3, 3, 3])[:n_prompts], tokenizer=tokenizer)
    metrics = {"clean": np.arange(4.0), "corrupt": -np.arange(4.0)}
    return experiment_html("Experiment: <4>\n  ModelGraph", setup, prompts, metrics)


def test_prompts_are_text():
    html = shown(tokenizer=Tokenizer())
    assert "&lt;script&gt;alert(1)&lt;/script&gt; John<" in html
    assert "<script" not in html
    assert "Experiment: &lt;4&gt;" in html
    assert "<th>a &amp; b</th>" in html


def test_padding_is_left_out():
    assert "[pad] John" in shown(tokenizer=Tokenizer()), "the corrupt prompt is turned around"
    assert "John [pad]" not in shown(tokenizer=Tokenizer())


def test_without_a_tokenizer_tokens_are_numbers():
    assert ">0 1<" in shown()


def test_more_prompts_are_counted():
    assert "and 1 more pair<" in shown(4)
    assert "more" not in shown(3)
