"""Schedules: exact counts, and error messages."""

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench import Context, Downsampler, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.schedule import kept, planned_counts, planned_targets
from tokbench.schedule_text import split_schedules, takes_keep

QUICK = settings(max_examples=200, deadline=None, derandomize=True)


class Plain(Downsampler):
    """Keeps the requested number of tokens."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        raise NotImplementedError


class OneMore(Plain):
    """Returns one token more than requested, like EViT's fused token."""

    def count(self, keep, n_patches, depth, layout):
        return keep + 1


def error_message(function, *arguments, **named):
    """The error message, which must be one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **named)
    message = str(caught.value)
    assert message
    assert len(message.splitlines()) == 1
    return message


# The count for a fraction


@pytest.mark.parametrize(
    ("keep", "n", "k"),
    [
        (0.1, 30, 3),
        (0.7, 10, 7),
        (0.7, 196, 138),
        (0.7, 138, 97),
        (0.7, 97, 68),
        (0.5, 7, 4),
        (1, 5, 5),
        (0.001, 196, 1),
        (0.29, 100, 29),
        (0.57, 100, 57),
        (0.07, 100, 7),
        (1e-5, 196, 1),
    ],
)
def test_a_keep_is_used_as_an_exact_decimal(keep, n, k):
    assert kept(keep, n) == k
    assert Schedule.stages(keep).target(0, n) == k


@QUICK
@given(st.integers(1, 1000), st.integers(1, 2000))
def test_the_count_is_rounded_up_only_if_it_is_not_whole(thousandths, n):
    k = kept(thousandths / 1000, n)
    assert k >= Fraction(thousandths, 1000) * n > k - 1
    assert 1 <= k <= n


# The kinds


def test_stages_keep_the_same_fraction_at_the_given_depths():
    schedule = Schedule.stages(0.5, at=(0, 5, 11))
    assert schedule.depths(12) == (0, 5, 11)
    assert [schedule.target(stage, 99) for stage in range(3)] == [50, 50, 50]
    assert Schedule.stages(0.5).depths(12) == (3, 6, 9)


@pytest.mark.parametrize("blocks", [1, 4, 12])
def test_every_block_acts_in_all_blocks(blocks):
    for schedule in (Schedule.every_block(keep=0.9), Schedule.every_block(r=3)):
        assert schedule.depths(blocks) == tuple(range(blocks))


@QUICK
@given(st.integers(1, 50), st.integers(1, 300))
def test_r_removes_r_tokens_but_never_the_last_one(r, n):
    target = Schedule.every_block(r=r).target(0, n)
    assert target == (n - r if n - r >= 1 else 1)


def test_explicit_counts_are_limited_by_the_present_tokens():
    schedule = Schedule.explicit((138, 97, 68), at=(3, 6, 9))
    assert schedule.depths(12) == (3, 6, 9)
    assert [schedule.target(stage, 100) for stage in range(3)] == [100, 97, 68]


def test_explicit_counts_without_depths_are_one_per_block():
    assert Schedule.explicit((9, 8, 7)).depths(3) == (0, 1, 2)


# The plan


@QUICK
@given(
    st.integers(1, 99), st.sets(st.integers(0, 11), min_size=1), st.integers(2, 14), st.integers(2, 14), st.booleans()
)
def test_the_plan_follows_schedule_and_method_stage_by_stage(hundredths, depths, h, w, one_more):
    at = tuple(sorted(depths))
    plan = planned_counts(Schedule.stages(hundredths / 100, at), OneMore() if one_more else Plain(), 12, (h, w))
    n, expected = h * w, []
    for _ in at:
        keep = -(-hundredths * n // 100)
        if keep < n:
            n = keep + 1 if one_more else keep
        expected.append(n)
    assert plan == tuple(expected)


def test_the_plan_of_every_block_decreases_by_r_to_one():
    assert planned_counts(Schedule.every_block(r=5), Plain(), 6, (4, 5)) == (15, 10, 5, 1, 1, 1)


def test_the_plan_of_explicit_counts_never_increases():
    assert planned_counts(Schedule.explicit((10, 12, 4)), Plain(), 3, (4, 4)) == (10, 10, 4)


def test_the_targets_do_not_depend_on_what_the_method_returns():
    assert planned_targets(Schedule.stages(0.7), 12, 196) == (138, 97, 68)
    assert planned_targets(Schedule.every_block(r=5), 6, 20) == (15, 10, 5, 1, 1, 1)
    assert planned_targets(Schedule.explicit((10, 12, 4)), 3, 16) == (10, 10, 4)


def test_a_keep_of_one_plans_no_reduction():
    assert planned_counts(Schedule.stages(1), OneMore(), 12, (14, 14)) == (196, 196, 196)


@pytest.mark.parametrize(("keep", "plan"), [(0.5, (98, 49)), (0.7, (132, 90)), (0.25, (49, 12))])
def test_the_plan_of_grid_pooling_uses_the_grid_of_the_previous_stage(keep, plan):
    def best(h, w, k):
        # The most cells, then the nearest in shape, by trying all grids.
        return max(
            ((a, b) for a in range(1, h + 1) for b in range(1, w + 1) if a * b <= k),
            key=lambda grid: (grid[0] * grid[1], -abs(Fraction(grid[0], h) - Fraction(grid[1], w))),
        )

    first = best(14, 14, kept(keep, 196))
    second = best(*first, kept(keep, first[0] * first[1]))
    assert planned_counts(Schedule.stages(keep, (3, 6)), create("grid_pooling"), 12, (14, 14)) == (
        first[0] * first[1],
        second[0] * second[1],
    )
    assert planned_counts(Schedule.stages(keep, (3, 6)), create("grid_pooling"), 12, (14, 14)) == plan


# As text


@pytest.mark.parametrize(
    ("text", "keep", "schedule"),
    [
        ("stages", 0.7, Schedule.stages(0.7)),
        ("stages(at=3-6-9)", 0.7, Schedule.stages(0.7, (3, 6, 9))),
        ("stages(at=5)", 0.25, Schedule.stages(0.25, (5,))),
        ("every_block", 0.9, Schedule.every_block(keep=0.9)),
        ("every_block(r=13)", None, Schedule.every_block(r=13)),
        ("explicit(counts=138-97-68,at=3-6-9)", None, Schedule.explicit((138, 97, 68), (3, 6, 9))),
        ("explicit(counts=5)", None, Schedule.explicit((5,))),
    ],
)
def test_a_schedule_is_read_from_text(text, keep, schedule):
    assert Schedule.parse(text, keep) == schedule


RISING = st.sets(st.integers(0, 30), min_size=1).map(lambda depths: tuple(sorted(depths)))
SCHEDULES = st.one_of(
    st.builds(Schedule.stages, st.integers(1, 1000).map(lambda k: k / 1000), RISING),
    st.builds(Schedule.every_block, keep=st.integers(1, 1000).map(lambda k: k / 1000)),
    st.builds(Schedule.every_block, r=st.integers(1, 99)),
    RISING.map(lambda at: Schedule.explicit(tuple(n + 1 for n in reversed(at)), at)),
    RISING.map(lambda at: Schedule.explicit(tuple(n + 1 for n in at))),
)


@QUICK
@given(SCHEDULES)
def test_the_text_of_a_schedule_parses_to_itself(schedule):
    again = Schedule.parse(str(schedule), schedule.keep)
    assert again == schedule
    assert str(again) == str(schedule)


def test_a_schedule_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Schedule.stages(0.5).keep = 0.7


@pytest.mark.parametrize("text", ["searched(0.7)", "searched(0.55,trials=50)", "searched(0.7,trials=9,seed=3)"])
def test_a_search_is_written_as_it_is_read(text):
    assert str(Schedule.parse(text)) == text
    assert not takes_keep(text)
    assert "--keep" in error_message(Schedule.parse, text, 0.7)


def test_the_defaults_of_a_search_go_without_saying():
    assert str(Schedule.parse("searched(fraction=0.7,trials=200,seed=0)")) == "searched(0.7)"


def test_several_searches_are_split():
    assert split_schedules("searched(0.7,0.5,trials=9),stages") == [
        "searched(0.7,trials=9)",
        "searched(0.5,trials=9)",
        "stages",
    ]


def test_a_search_that_has_not_been_made_says_who_makes_it():
    assert "tokbench compare searches" in error_message(Schedule.parse("searched(0.7)").depths, 12)


# Invalid schedules


@pytest.mark.parametrize(
    "written",
    ["3-6-9", "3,6,9", "(3,6,9)", "[3,6,9]", "[3, 6, 9]", "3, 6, 9", "(3,6,9,)", "'3,6,9'", "3 - 6 - 9"],
)
def test_numbers_can_be_written_in_several_ways(written):
    assert Schedule.parse(f"stages(at={written})", 0.5) == Schedule.stages(0.5, (3, 6, 9))
    explicit = Schedule.parse(f"explicit(counts={written},at={written})")
    assert explicit == Schedule.explicit((3, 6, 9), (3, 6, 9))
    assert Schedule.parse(str(explicit)) == explicit


@pytest.mark.parametrize(
    ("text", "keep", "expected"),
    [
        ("stages", None, "--keep"),
        ("stages", 0, "(0, 1]"),
        ("stages", -0.5, "(0, 1]"),
        ("stages", 1.5, "(0, 1]"),
        ("stages", 70, "(0, 1]"),
        ("stages", float("nan"), "(0, 1]"),
        ("stages(at=6-3)", 0.5, "6-3"),
        ("stages(at=3-3)", 0.5, "3-3"),
        ("stages(at=3-x)", 0.5, "at"),
        ("stages(at=-1)", 0.5, "invalid depths '-1'"),
        ("stages(at=3.5)", 0.5, "at"),
        ("stages(at='')", 0.5, "at"),
        ("stages(6)", 0.5, "name its arguments"),
        ("stages(when=3)", 0.5, "'when'"),
        ("every_block", None, "--keep"),
        ("every_block", 2, "(0, 1]"),
        ("every_block(r=13)", 0.7, "drop either r or --keep"),
        ("every_block(r=0)", None, "at least 1"),
        ("every_block(r=-2)", None, "at least 1"),
        ("every_block(r=x)", None, "r"),
        ("every_block(13)", None, "name its arguments"),
        ("explicit", None, "counts"),
        ("explicit(counts=5-4)", 0.7, "drop --keep"),
        ("explicit(counts=5-0)", None, "at least 1"),
        ("explicit(counts=5-4,at=3)", None, "2 counts for 1 depths"),
        ("explicit(counts=5-4,at=4-3)", None, "4-3"),
        ("explicit(counts=5-4,at=3-x)", None, "at"),
        ("searched", None, "fraction"),
        ("searched(1.2)", None, "between 0 and 1"),
        ("searched(0.7,trials=0)", None, "at least 1 trial"),
        ("searched(0.7,seed=-1)", None, "not be negative"),
        ("searched(0.7,200)", None, "name its arguments"),
        ("stagse", 0.5, "'stages'"),
        ("nonsense", 0.5, "explicit"),
        ("3-6-9", 0.5, "name(parameter=value"),
        ("", 0.5, "name(parameter=value"),
    ],
)
def test_an_invalid_schedule_is_rejected_in_one_line(text, keep, expected):
    assert expected in error_message(Schedule.parse, text, keep)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (Schedule.stages, {"keep": 0.5, "at": ()}),
        (Schedule.stages, {"keep": 0.5, "at": (-1, 3)}),
        (Schedule.explicit, {"counts": ()}),
        (Schedule.explicit, {"counts": (3,), "at": ()}),
        (Schedule.every_block, {}),
        (Schedule.every_block, {"keep": 0.5, "r": 3}),
    ],
)
def test_invalid_arguments_are_rejected_in_python(make, arguments):
    error_message(make, **arguments)


@pytest.mark.parametrize(
    ("schedule", "blocks", "expected"),
    [
        (Schedule.stages(0.5), 9, "depth 9"),
        (Schedule.explicit((5,), (4,)), 4, "depth 4"),
        (Schedule.explicit((5, 4)), 12, "2 counts"),
    ],
)
def test_a_schedule_that_does_not_fit_the_model_is_rejected_in_one_line(schedule, blocks, expected):
    message = error_message(schedule.depths, blocks)
    assert expected in message
    assert str(blocks) in message
