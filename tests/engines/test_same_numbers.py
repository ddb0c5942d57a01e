"""Both engines against the outside oracle, and against each other, on random requests."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines.cases import METRICS, MODELS, N_POS, case, close, run
from tests.engines.requests import asked, examples, sweeps

pytestmark = pytest.mark.filterwarnings("ignore::circuitgraph.engines.fast.engine.ReplayWarning")


@pytest.mark.parametrize("model", MODELS)
class TestOneRequest:
    """Requests without sweeps."""

    def test_reference_is_the_oracle(self, model: str) -> None:
        one = case(model)

        @given(asked(one.graph, N_POS))
        @examples(15)
        def check(request: Any) -> None:
            plan = request.plan(one.graph, N_POS)
            (expected,) = one.oracle(plan)
            assert close(one.reference.outcome(plan.cells[0]).logits, expected)
            assert close(run(one.fast, plan), one.measured([expected]))

        check()

    def test_fast_is_the_reference(self, model: str) -> None:
        graph = case(model).graph

        @given(asked(graph, N_POS), st.sampled_from(list(METRICS)))
        @examples(20)
        def check(request: Any, metric: str) -> None:
            one = case(model, metric)
            plan = request.plan(graph, N_POS)
            assert close(run(one.fast, plan), run(one.reference, plan))

        check()

    def test_fast_sweeps_are_the_reference(self, model: str) -> None:
        graph = case(model).graph

        @given(sweeps(graph, N_POS), st.sampled_from(list(METRICS)))
        @examples(6)
        def check(request: Any, metric: str) -> None:
            one = case(model, metric)
            plan = request.plan(graph, N_POS)
            assert close(run(one.fast, plan), run(one.reference, plan))

        check()
