"""Memory budgets: reading them, and trying again with less when the device runs out."""

from collections.abc import Sequence

import pytest
import torch

from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.fast.memory import in_stacks, parse_budget, rows_that_fit
from circuitgraph.errors import RequestError
from tests.engines.cases import case

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (1, 1),
        (4096, 4096),
        ("1", 1),
        ("2kB", 2000),
        ("2KiB", 2048),
        ("1.5 GiB", 3 * 2**29),
        ("500MB", 500_000_000),
        (" 3 mib ", 3 * 2**20),
        ("1e", None),
        (None, 2 * 2**30),
    ],
)
def test_budgets(text: object, amount: int | None) -> None:
    if amount is None:
        with pytest.raises(RequestError):
            parse_budget(text, CPU)  # type: ignore[arg-type]
    else:
        assert parse_budget(text, CPU) == amount  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["", "lots", "0", 0, -5, "-1GB", "1.2.3GB", True, "2 TiB"])
def test_what_is_no_budget(wrong: object) -> None:
    message = f"memory_budget={wrong!r} is no amount of memory: write bytes, '500MB' or '2GiB'"
    with pytest.raises(RequestError) as caught:
        FastEngine(case("gpt2").setup, memory_budget=wrong)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_at_least_one_row_fits() -> None:
    assert rows_that_fit(10, 1000) == 1
    assert rows_that_fit(1000, 10) == 100
    assert rows_that_fit(5, 0) == 5


def test_stacks_are_halved_when_the_device_runs_out() -> None:
    tried: list[int] = []

    def run(items: Sequence[int]) -> int:
        tried.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError
        return sum(items)

    found = list(in_stacks(list(range(10)), 8, run))
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    assert [item for items, _ in found for item in items] == list(range(10))
    assert [result for _, result in found] == [1, 5, 9, 13, 17]


def test_one_row_that_does_not_fit_is_an_error() -> None:
    def run(items: Sequence[int]) -> int:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_stacks([1, 2], 2, run))
