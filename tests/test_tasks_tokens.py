"""What counts as a tokenizer: whatever answers, also attributes that it makes up when asked."""

from circuitgraph.tasks.tokens import check_tokenizer


class MakesUp:
    def __getattr__(self, name):
        if name.endswith("_token_id"):
            return 0
        raise AttributeError(name)

    def encode(self, text, *, add_special_tokens=True):
        return [0]


def test_attributes_that_are_made_up_when_asked():
    assert check_tokenizer(MakesUp()) is None
    assert "got str" in str(check_tokenizer("gpt2"))
