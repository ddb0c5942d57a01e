"""Running checks one after another, and judging what each of them found."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, assert_never

from circuitgraph.checks import engines, positions, properties
from circuitgraph.checks.prompts import random_prompts
from circuitgraph.checks.results import Differs, Fact, Found, LeftOut, Result, Same
from circuitgraph.checks.subject import Subject
from circuitgraph.errors import CircuitGraphError, ModelError, RequestError, UnsupportedError
from circuitgraph.experiment.prompts import PromptsGiven
from circuitgraph.lens.backend import backend_of

__all__ = ["CHECKS", "Check", "checks_named", "run_checks"]

LARGE = 20_000_000
"""In models of more weights the reference engine runs fewer cells of each sweep."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that should hold on any model.

    Args:
        name: What tables call it.
        about: What it says, in a sentence.
        find: Makes the comparisons.
    """

    name: str
    about: str
    find: Callable[[Subject], Iterator[Found]]


_SAME = "fast and reference engine agree on"
CHECKS: tuple[Check, ...] = (
    Check(
        "to logits, mlps",
        f"{_SAME} every node into the logits",
        engines.straight_to_the_logits("mlps"),
    ),
    Check(
        "to logits, single-pass",
        f"{_SAME} every node into the logits",
        engines.straight_to_the_logits("single-pass"),
    ),
    Check("queries", f"{_SAME} embedding, head and MLP into queries", engines.into("q")),
    Check("keys", f"{_SAME} embedding, head and MLP into keys", engines.into("k")),
    Check("values", f"{_SAME} embedding, head and MLP into values", engines.into("v")),
    Check("MLPs", f"{_SAME} embedding, head and MLP into MLPs", engines.into("mlp")),
    Check("key-value heads", f"{_SAME} whole key-value heads", engines.key_value_heads),
    Check("joint receivers", f"{_SAME} several receivers at once", engines.several_receivers),
    Check("longer paths", f"{_SAME} paths of two and more hops", engines.long_paths),
    Check("through", f"{_SAME} paths through chosen nodes", engines.through_some_nodes),
    Check("activation patching", f"{_SAME} nodes with all after them", engines.activation_patching),
    Check("positions", f"{_SAME} patches at named positions", engines.with_positions),
    Check("mode set", f"{_SAME} edges whose receivers interact", engines.edges_in_mode("set")),
    Check("mode add", f"{_SAME} edges whose receivers interact", engines.edges_in_mode("add")),
    Check(
        "mode replace",
        f"{_SAME} edges whose receivers interact",
        engines.edges_in_mode("replace"),
    ),
    Check("1 equal prompts", "clean patched into clean is clean", properties.equal_prompts),
    Check("1 equal sender", "a sender equal in both changes nothing", properties.shared_token),
    Check("2 order", "a sender after its receiver is an error", properties.sender_after_receiver),
    Check("3 position kept", "a direct path keeps its position", positions.kept_position),
    Check("3 position read", "only the position read matters", positions.one_position_read),
    Check("3 causal", "a patch changes nothing before it", positions.later_positions),
    Check("4 sums", "single-pass changes add up at a port", properties.added_up),
    Check("5 all writers", "all writers corrupt give the corrupt run", properties.corrupt_run),
    Check("6 set, all edges", "set: every edge gives corrupt", properties.every_edge_set),
    Check("7 variants", "variants agree where no MLP is between", properties.no_mlp_between),
    Check("8 replace, all edges", "replace: gives corrupt", properties.every_edge_replaced),
    Check("8 modes", "one edge is the same in every mode", properties.one_edge_in_every_mode),
    Check("9 node and edges", "a node is its outgoing edges", properties.node_is_its_edges),
    Check("10 joint", "edges into one port are joint", properties.edges_into_one_receiver),
    Check("10 cut", "edges that all paths cross give corrupt", properties.edges_across_a_cut),
    Check("10 into a node", "a node is its incoming edges", properties.edges_into_one_node),
    Check("11 two hops", "a path is hop after hop", properties.two_hops),
    Check("12 groups", "a KV head is its heads", properties.key_value_head_is_its_heads),
    Check("14 batch", "a batch is its prompts one by one", positions.prompts_alone),
    Check("14 sweep", "a sweep is its requests one by one", positions.one_by_one),
    Check("14 sweep order", "the order of a sweep changes nothing", positions.order),
    Check("14 padding", "right padding changes nothing", positions.padding),
    Check("untouched", "the model is left as it was", positions.untouched),
)
"""Every check, in the order in which they are run. Numbers are those of the properties in
``docs/concepts.md``; property 13 is about changed weights, 15 is the first group."""


def run_checks(
    model: Any,
    clean: PromptsGiven | None = None,
    corrupt: PromptsGiven | None = None,
    *,
    only: Iterable[str] | None = None,
    cells: int | None = None,
    n_prompts: int = 3,
    n_pos: int = 7,
    seed: int = 0,
) -> Iterator[Result]:
    """Put a model to the checks, and yield what comes of each as soon as it is known.

    Deviations are in units of the difference between clean and corrupt run. They may be 1e-9 in
    float64, 1e-4 in float32 and where a float64 model takes norms or softmaxes in float32.

    Args:
        model: Anything that an `Experiment` takes.
        clean: Prompts to use, as an `Experiment` takes them; random tokens by default.
        corrupt: The prompts beside them, aligned token for token.
        only: Names of the checks to run, as in `CHECKS`; all by default.
        cells: How many cells of each sweep the reference engine runs too; by default 6, and 1 on
            models of more than 20 million weights. With 1, receivers take turns between the
            variants rather than meet both.
        n_prompts: How many random prompt pairs.
        n_pos: How long they are.
        seed: Which ones.

    Yields:
        One result per check, in the order of `CHECKS`; of a model that the package refuses, a
        single one of status ``refused``.

    Raises:
        PromptError: Only one of clean and corrupt, or prompts that do not fit together.
        RequestError: No check of such a name.

    Example:
        >>> results = list(run_checks(model))  # doctest: +SKIP
        >>> [result.name for result in results if result.status == "failed"]  # doctest: +SKIP
        []
    """
    chosen = checks_named(only)
    if (clean is None) != (corrupt is None):
        missing = "corrupt" if corrupt is None else "clean"
        raise RequestError(f"no {missing} prompts: give both clean and corrupt ones, or neither")
    try:
        if clean is None or corrupt is None:
            clean, corrupt = random_prompts(model, n_prompts, n_pos, seed)
        if cells is None:
            cells = 1 if backend_of(model).n_parameters > LARGE else 6
        subject = Subject.of(model, clean, corrupt, cells)
    except (ModelError, UnsupportedError) as error:
        about = "what the model is made of can be patched exactly"
        yield Result("model", about, "refused", reason=str(error))
        return
    for check in chosen:
        yield run_one(check, subject)


def checks_named(names: Iterable[str] | None = None) -> tuple[Check, ...]:
    """Return the checks of these names, in their own order; all by default.

    Raises:
        RequestError: No check of such a name.

    Example:
        >>> [check.about for check in checks_named(["5 all writers"])]
        ['all writers corrupt give the corrupt run']
    """
    if names is None:
        return CHECKS
    wanted, known = list(names), [check.name for check in CHECKS]
    wrong = [name for name in wanted if name not in known]
    if wrong:
        near = get_close_matches(wrong[0], known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RequestError(f"no check {wrong[0]!r}: there are {', '.join(known)}{hint}")
    return tuple(check for check in CHECKS if check.name in wanted)


def run_one(check: Check, subject: Subject) -> Result:
    """Return what comes of one check; whatever goes wrong in it is told in its result."""
    try:
        return judge(check, subject, list(check.find(subject)))
    except LeftOut as why:
        return Result(check.name, check.about, "left out", reason=str(why))
    except (ModelError, UnsupportedError) as error:
        return Result(check.name, check.about, "refused", reason=str(error))
    except CircuitGraphError as error:
        return Result(check.name, check.about, "failed", reason=str(error))
    except Exception as error:  # noqa: BLE001  # a foreign model can raise anything
        reason = f"{type(error).__name__}: {error}"
        return Result(check.name, check.about, "failed", reason=reason)


def judge(check: Check, subject: Subject, found: list[Found]) -> Result:
    """Return whether everything that a check found is as it should be."""
    allowed, wrong = subject.precision.allowed, []
    largest, effect, numbers, what = -1.0, 0.0, 0, ""
    for one in found:
        match one:
            case Same():
                scale = max(subject.scale if one.scale is None else one.scale, 1e-30)
                moved = (one.expected - one.clean).abs().max().item() / scale
                apart = (one.found - one.expected).abs().max().item()
                apart /= scale * max(1.0, moved)  # relative to effects larger than the unit
                numbers, effect = numbers + 1, max(effect, moved)
                if not apart <= allowed:
                    wrong.append(f"{one.what} differs by {apart:.1e}, allowed is {allowed:.0e}")
                if not apart <= largest:
                    largest, what = apart, one.what
            case Differs():
                apart = (one.found - one.expected).abs().max().item() / subject.scale
                if not apart > allowed:
                    wrong.append(f"{one.what} should make a difference and makes {apart:.1e}")
            case Fact():
                if not one.holds:
                    wrong.append(one.what)
            case _:
                assert_never(one)
    return Result(
        check.name,
        check.about,
        "failed" if wrong else "passed",
        deviation=largest if numbers else None,
        allowed=allowed,
        effect=effect,
        compared=what,
        reason="; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
    )
