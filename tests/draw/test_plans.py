"""Plans and schedules as pictures: what happens to each node, in words, and drawn in its place."""

from itertools import combinations

import pytest

from circuitgraph import MLP, Embed, Head, Logits, ModelGraph, ModelShape, Plan, Through, schedule
from circuitgraph.compiler import compile
from circuitgraph.draw import (
    Chart,
    draw_plan,
    draw_plans,
    draw_schedule,
    plan_html,
    schedule_html,
)
from circuitgraph.draw.plans.boards import board_spec
from circuitgraph.draw.plans.looks import LOOKS
from circuitgraph.draw.plans.phrases import listed, run_words, some, span
from circuitgraph.draw.plans.picture import compared_boards
from circuitgraph.draw.plans.schedules import stage_words
from circuitgraph.draw.plans.steps import Board, boards_of, differing, find_cell
from circuitgraph.errors import PlanError
from tests.draw.marks import marks, written

GPT2 = ModelGraph(ModelShape(n_layers=12, n_heads=12))
SMOLLM2 = ModelGraph(ModelShape(n_layers=30, n_heads=9, n_kv_heads=3))
ONE_EDGE = "5.5 -> 8.6.v => logits"
LONG = "5.5 -> 8.6.v -> 9.9.q -> logits"


def plan(request: str = ONE_EDGE, variant="mlps", graph=GPT2, **options) -> Plan:
    return compile(graph, request, variant, n_positions=20, **options)


def text_of(drawing: Chart) -> str:
    """What a picture says, written in it or when pointed at."""
    return "\n".join([*written(drawing), *marks(drawing)])


def boards(*args, **options) -> tuple[Board, ...]:
    found = plan(*args, **options)
    return boards_of(found, found.cells[0])


def looks(board: Board, look: str) -> set[str]:
    return {str(node) for node, spot in board.spots.items() if spot.look == look}


def words(*args, **options) -> list[str]:
    found = plan(*args, **options)
    return [run_words(found, run) for run in found.cells[0].runs]


class TestWhatHappensToEachNode:
    def test_the_recordings_come_first(self):
        clean, corrupt, *_ = boards()
        assert (clean.title, corrupt.title) == ("clean", "corrupt")
        assert looks(clean, "frozen") == {str(node) for node in GPT2.nodes}
        assert looks(corrupt, "corrupt") == {str(node) for node in GPT2.nodes}
        assert clean.recording
        assert corrupt.recording

    def test_send_sets_freezes_recomputes_and_records(self):
        send = boards()[2]
        assert send.title == "1 send"
        assert looks(send, "corrupt") == {"5.5"}
        assert looks(send, "recomputed") == {"mlp5", "mlp6", "mlp7"}
        frozen = {f"{layer}.{head}" for layer in range(8) for head in range(12)} - {"5.5"}
        assert looks(send, "frozen") == frozen | {"embed"}
        assert looks(send, "unchanged") == {f"mlp{layer}" for layer in range(5)}
        kept = [str(node) for node, spot in send.spots.items() if spot.kept]
        assert kept == ["8.6"]
        assert send.spots[Head(8, 6)].mark == "v"
        assert send.spots[Head(8, 6)].look == "idle"

    def test_what_lies_after_the_last_receiver_is_not_run(self):
        send = boards()[2]
        late = {f"{layer}.{head}" for layer in range(8, 12) for head in range(12)}
        assert looks(send, "idle") == late | {f"mlp{n}" for n in range(8, 12)} | {"logits"}

    def test_measure_recomputes_only_what_the_receiver_reaches(self):
        measure = boards()[3]
        assert looks(measure, "patched") == {"8.6"}
        later = {f"{layer}.{head}" for layer in range(9, 12) for head in range(12)}
        mlps = {f"mlp{layer}" for layer in range(8, 12)}
        assert looks(measure, "recomputed") == later | mlps | {"logits"}
        assert "8.5" in looks(measure, "unchanged"), "other heads of the layer read clean values"
        assert measure.spots[Logits()].kept

    def test_single_pass_freezes_mlps(self):
        send = boards(variant="single-pass")[2]
        assert looks(send, "recomputed") == set()
        assert {f"mlp{layer}" for layer in range(8)} <= looks(send, "frozen")

    def test_a_longer_path_sends_what_was_recomputed(self):
        _, _, first, second, third, *_ = boards(LONG)
        assert looks(first, "corrupt") == {"5.5"}
        assert looks(second, "patched") == {"8.6"}
        assert second.spots[Head(8, 6)].kept
        assert looks(third, "sent") == {"8.6"}
        assert looks(third, "corrupt") == set()

    def test_the_logits_can_be_patched(self):
        *_, read_out = boards("9.9 -> logits")
        assert looks(read_out, "patched") == {"logits"}
        assert read_out.spots[Logits()].words == (
            "logits: receiver, reads a patched value, and is recomputed from it, the metric is read"
        )

    def test_several_ports_of_one_head_are_written_into_it(self):
        measure = boards("{5.5, 6.9} -> {8.6.q, 8.6.v} => logits")[3]
        assert measure.spots[Head(8, 6)].mark == "qv"

    def test_an_mlp_that_receives_is_recorded(self):
        send = boards("embed -> mlp3 => logits")[2]
        assert send.spots[MLP(3)].kept
        assert looks(send, "corrupt") == {"embed"}

    @pytest.mark.parametrize("source", ["zero", "mean", "mean-position", "given"])
    def test_other_sources_say_so(self, source):
        found = boards("9.9 -> logits", source=source)
        titles = [board.title for board in found]
        assert titles[: 1 if source == "zero" else 2] == ["clean", source][: len(titles) - 2]
        assert "corrupt run" not in found[-2].words

    def test_a_model_without_mlps(self):
        graph = ModelGraph(ModelShape(2, 2, attn_only=True))
        send = boards("0.0 -> 1.1.q => logits", graph=graph)[2]
        assert set(send.spots) == {Embed(), *graph.heads, Logits()}
        assert "MLP" not in send.words


class TestWords:
    def test_the_three_steps(self):
        assert words() == [
            (
                "5.5 speaks as in the corrupt run; every other head is frozen; MLPs 5–7 answer; "
                "what "
                "arrives at 8.6.v is recorded."
            ),
            (
                "8.6.v reads its clean value plus the change of run 1; everything after it is "
                "recomputed; the metric is read from the logits."
            ),
        ]

    def test_without_a_pass(self):
        assert words("9.9 -> logits", "single-pass") == [
            (
                "9.9 speaks as in the corrupt run; every other head and every MLP are frozen; what "
                "arrives at the logits is recorded. No pass: a sum of recorded writes."
            ),
            (
                "The logits read their clean value plus the change of run 1; "
                "the metric is read from "
                "them. No pass: norm and unembedding only."
            ),
        ]

    def test_a_longer_path(self):
        said = words(LONG)
        assert said[1] == (
            "8.6.v reads its clean value plus the change of run 1; only 8.6 is recomputed from "
            "that; what 8.6 writes is recorded."
        )
        assert said[2].startswith("8.6 speaks as in run 2; every other head is frozen; MLP 8 ")

    def test_modes(self):
        assert (
            "read their live value plus the change"
            in words("5.5 -> {8.6, 7.9}.v => logits", mode="add")[1]
        )
        assert words("5.5 -> {8.6, 7.9}.v => logits", mode="replace")[0].startswith(
            "8.6.v and 7.9.v read their live value with 5.5 replaced; "
        )

    def test_a_variant_of_ones_own(self):
        said = words("5.5 -> 8.6.v => logits", Through([MLP(5), Head(7, 1)]))[0]
        assert "every other head but 7.1 and every MLP but MLP 5 are frozen; 7.1 and MLP 5 " in said

    def test_positions(self):
        assert words("5.5@3 -> 8.6.v@3 => logits")[0].startswith("5.5 at 3 speaks")
        assert words("5.5@3 -> 8.6.v@3 => logits")[1].startswith("8.6.v at 3 reads")

    def test_activation_patching(self):
        assert words("9.9 => logits") == [
            (
                "9.9 speaks as in the corrupt run; everything after it is recomputed; "
                "the metric is "
                "read from the logits."
            )
        ]

    def test_small_words(self):
        assert listed([]) == ""
        assert listed(["a"]) == "a"
        assert some([Head(0, 0)]) == "0.0"
        assert span([1, 2, 3, 5]) == "1–3, 5"


class TestComparing:
    def test_the_variants_differ_where_mlps_answer(self):
        rows, said = compared_boards([plan(), plan(variant="single-pass")])
        assert said == ["mlps and single-pass differ in 1 send at MLPs 5–7"]
        for _, _, drawn in rows:
            framed = {str(node) for node, spot in drawn[2].spots.items() if spot.differs}
            assert framed == {"mlp5", "mlp6", "mlp7"}

    def test_frozen_and_unchanged_are_not_told_apart(self):
        one, other = boards()[2], boards(variant="single-pass")[2]
        assert MLP(0) not in differing(one, other)

    def test_equal_plans_do_the_same(self):
        _, said = compared_boards({"first": plan(), "second": plan()})
        assert said == ["first and second do the same"]

    def test_modes_differ_in_what_is_said(self):
        request = "0.0 -> {8.6, 9.9}.q => logits"
        _, said = compared_boards([plan(request), plan(request, mode="add")])
        assert said == ["set and add differ in what is said below 2 measure"]

    def test_sources_are_compared_run_by_run(self):
        """Though one of them needs no recording of a corrupt prompt."""
        plans = [plan("9.9 -> logits", source=source) for source in ("corrupt", "zero", "mean")]
        rows, said = compared_boards(plans)
        assert said == ["corrupt, zero and mean differ in what senders are set to"]
        assert not any(
            s.differs for _, _, row in rows for board in row for s in board.spots.values()
        )
        assert "sender: set to what is patched in" in text_of(draw_plans(plans))
        assert "sender: set to what is patched in" not in text_of(draw_plans(plans[:1]))

    def test_more_steps_in_one(self):
        """Runs are held together from the end: what measures is compared with what measures."""
        modes = ("set", "add", "replace")
        rows, said = compared_boards({mode: plan(mode=mode) for mode in modes})
        assert said[0] == "only set and add have 1 send"
        assert all(" 1 send at" not in sentence for sentence in said)
        assert [row[-1].title for _, _, row in rows] == ["2 measure", "2 measure", "1 measure"]
        _, said = compared_boards({"set": plan(), "replace": plan(mode="replace")})
        assert said[0] == "only set has 1 send"

    def test_plans_for_other_models_are_refused(self):
        with pytest.raises(PlanError, match="different models"):
            draw_plans([plan(), plan("9.2 -> logits", graph=SMOLLM2)])

    def test_nothing_to_draw(self):
        with pytest.raises(PlanError, match="there are no plans"):
            draw_plans([])


class TestChoosingACell:
    SWEEP = "head -> logits"

    def test_by_number_and_by_name(self):
        found = plan(self.SWEEP)
        assert find_cell(found, None).name == "0.0 -> logits"
        assert find_cell(found, -1).name == "11.11 -> logits"
        assert find_cell(found, "9.9->logits").name == "9.9 -> logits"

    @pytest.mark.parametrize("wanted", [144, "12.0 -> logits"])
    def test_a_cell_that_is_not_there(self, wanted):
        with pytest.raises(
            PlanError, match=r"it has 144, numbered from 0 and named '0\.0 -> logits'"
        ):
            find_cell(plan(self.SWEEP), wanted)

    def test_it_is_drawn(self):
        drawing = draw_plan(plan(self.SWEEP), cell="9.9 -> logits")
        assert "9.9 -> logits, one of 144 cells over layer 12 × head 12" in text_of(drawing)


MODELS = {
    "GPT-2": ModelShape(12, 12),
    "SmolLM2": ModelShape(30, 9, 3),
    "one layer": ModelShape(1, 1),
    "no MLPs": ModelShape(2, 8, attn_only=True),
    "large": ModelShape(80, 64, 8),
}


def tiles(board, graph):
    """The tiles of a board by node, as left, top, right, bottom."""
    spec = board_spec(graph, board, {look: look for look in LOOKS})
    rows = spec["layer"][0]["data"]["values"]
    return {
        row["says"].split(":")[0]: tuple(row[key] for key in ("x", "y", "x2", "y2")) for row in rows
    }, (spec["width"], spec["height"])


@pytest.mark.parametrize("name", MODELS)
def test_cells_have_their_own_places_on_a_page(name):
    graph = ModelGraph(MODELS[name])
    found, (width, height) = tiles(boards("0.0 -> logits", graph=graph)[2], graph)
    assert found.keys() == {str(node) for node in graph.nodes}
    assert width < 660
    assert height < 800
    assert all(
        0 <= x < x2 <= width + 0.01 and 0 <= y < y2 <= height + 0.01
        for x, y, x2, y2 in found.values()
    )
    if name != "large":
        for one, other in combinations(found.values(), 2):
            apart = one[0] >= other[2] or other[0] >= one[2]
            assert apart or one[1] >= other[3] or other[1] >= one[3]
    assert found["logits"][1] < found["0.0"][1] < found["embed"][1]


class TestPictures:
    def test_every_look_can_be_told_without_colour(self):
        # Either the symbol or a clear difference in lightness sets two looks of a plan apart.
        def lightness(color: str) -> float:
            red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
            return (0.299 * red + 0.587 * green + 0.114 * blue) / 255

        in_plans = [look for look in LOOKS if look not in ("live", "replayed")]
        for one, other in combinations(in_plans, 2):
            a, b = LOOKS[one], LOOKS[other]
            assert a.mark != b.mark or abs(lightness(a.fill) - lightness(b.fill)) > 0.1

    def test_what_is_written_in_a_cell_can_be_read(self):
        def linear(part: int) -> float:
            share = part / 255
            return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

        def luminance(color: str) -> float:
            red, green, blue = (linear(int(color[at : at + 2], 16)) for at in (1, 3, 5))
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue

        for paint in LOOKS.values():
            low, high = sorted((luminance(paint.fill), luminance(paint.ink)))
            assert (high + 0.05) / (low + 0.05) > 3

    def test_what_it_says(self, tmp_path):
        said = text_of(draw_plan(plan()))
        assert "5.5: sender, set to its write in the corrupt run" in said
        assert "= frozen: set to its clean write" in said
        assert draw_plan(plan()).save(tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")

    def test_the_legend_has_only_what_the_picture_has(self):
        svg = text_of(draw_plan(plan()))
        assert "in an earlier run" not in svg
        assert "in an earlier run" in text_of(draw_plan(plan(LONG)))
        assert "frozen: set" not in text_of(draw_plan(plan(), legend=False))

    def test_titles(self):
        assert "5.5 -> 8.6.v => logits, variant mlps" in text_of(draw_plan(plan()))
        nasty = draw_plan(plan(), title="My <script>")
        assert "My <script>" in text_of(nasty)
        assert "<script>" not in nasty.svg
        assert repr(draw_plan(plan(), title="T")).startswith("Chart: T: 1 send: 5.5 speaks")

    def test_plans_draw_themselves(self):
        assert plan().draw(title="").caption.startswith("1 send")

    def test_variants_side_by_side(self):
        drawing = draw_plans([plan(), plan(variant="single-pass")])
        assert drawing.caption.endswith("mlps and single-pass differ in 1 send at MLPs 5–7")
        assert "dashed frame" in text_of(drawing)

    def test_plans_without_cells_are_refused(self):
        empty = Plan(GPT2, plan().request, "mlps", "set", "corrupt", (), ())
        with pytest.raises(PlanError, match="has no valid cell"):
            draw_plan(empty)
        assert plan_html(empty).startswith("<pre>")


class TestSchedules:
    def test_what_runs_live_and_in_how_many_rows(self):
        svg = text_of(draw_schedule(schedule(plan("head -> logits", graph=SMOLLM2))))
        assert "1 send: 270 rows" in svg
        assert "1 send: MLP of layer 23: live in 216 of 270 rows" in svg
        assert "1 send: attention of layer 23: replayed from the recording" in svg
        assert "2 read out: attention of layer 0: left out" in svg

    def test_words(self):
        found = schedule(plan("mlp -> [8.6, 9.9].q => logits"))
        assert stage_words(found, 0) == (
            "MLPs 1–8 run live, attention is replayed. 17 cells share 9 rows. Positions: all."
        )
        assert stage_words(found, 1).startswith("Attention of layers 8–11 and MLPs 8–11 run live.")
        one = schedule(plan("head -> logits", "single-pass"))
        assert stage_words(one, 0).startswith("No module runs: a sum of recorded writes.")

    def test_a_schedule_draws_itself(self):
        assert "forward passes" in schedule(plan()).draw().caption

    def test_without_stages(self):
        empty = schedule(Plan(GPT2, plan().request, "mlps", "set", "corrupt", (), ()), ())
        with pytest.raises(PlanError, match="has no stages"):
            draw_schedule(empty)

    def test_without_mlps(self):
        graph = ModelGraph(ModelShape(2, 2, attn_only=True))
        assert "MLP of layer" not in draw_schedule(schedule(plan("0.0 -> logits", graph=graph))).svg


class TestNotebooks:
    def test_a_plan_is_short_as_text(self):
        assert repr(plan("head -> logits")) == (
            "Plan of 'head -> logits' (variant mlps, mode set): 144 cells over layer (12) x head "
            "(12)\n  144 forward passes + 2 recordings one request at a time, 144 runs in closed "
            "form"
        )
        assert repr(plan()).startswith(f"Plan of '{ONE_EDGE}' (variant mlps, mode set): 1 cell\n")

    def test_a_schedule_is_short_as_text(self):
        assert repr(schedule(plan("head -> logits"))) == (
            "Schedule of 'head -> logits' (variant mlps, mode set): send 144 rows, read out 144 "
            "rows\n  39.0 forward passes' worth of live modules, the plan has 144"
        )

    def test_a_plan_shows_boards_and_table(self):
        html = plan()._repr_html_()
        assert html == plan_html(plan())
        assert "5.5 -&gt; 8.6.v" in html
        assert html.count("<svg") == 1
        assert "<script" not in html

    def test_a_schedule_shows_stages_and_table(self):
        html = schedule(plan())._repr_html_()
        assert html == schedule_html(schedule(plan()))
        assert html.count("<svg") == 1
