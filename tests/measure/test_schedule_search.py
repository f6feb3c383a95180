"""The search for counts: as good as trying all, the same after interruptions, never worse than known shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tokbench import DownsampledViT, Downsampler, Schedule, create
from tokbench.measure.equal_cost_counts import Backbone
from tokbench.measure.known_shapes import Direction, known_shapes
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.measure.plain_answers import PlainAnswers
from tokbench.measure.schedule_search import WORST, Subject, Trial, carry_out, propose, search
from tokbench.schedule import Explicit

MakeVit = Callable[..., VisionTransformer]
IMAGES = 24


class Log:
    """Trials in memory."""

    def __init__(self, trials: Sequence[Trial] = ()) -> None:
        self.trials = list(trials)

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)


class Bench:
    """A method in a tiny model, and images."""

    def __init__(self, vit: VisionTransformer, name: str, target: float, room: int = 1 << 30) -> None:
        self.vit, self.name, self.target = vit, name, target
        size = vit.patch_embed.img_size[0]
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(IMAGES, 3, size, size, generator=generator)
        self.plain = DownsampledViT(vit).eval()
        self.answers = PlainAnswers(self.plain, self.images.split(10), None, room)
        self.backbone = Backbone(self.plain, self.method(), self.method().site)
        self.plain_macs = count_macs(self.plain, self.images[:1]).total
        self.compared = 0

    def method(self) -> Downsampler:
        return create(self.name)

    def build(self, schedule: Schedule) -> DownsampledViT:
        return DownsampledViT(self.vit, self.method(), schedule).eval()

    def cost(self, schedule: Schedule) -> float:
        return spread_of_macs(self.build(schedule), [self.images[:1]]).total / self.plain_macs

    def directly(self, schedule: Schedule) -> tuple[int, float]:
        """Agreement and divergence from whole forward passes, by their definitions."""
        with torch.inference_mode():
            plain, other = (model(self.images).double() for model in (self.plain, self.build(schedule)))
        p, q = plain.softmax(dim=1), other.softmax(dim=1)
        same = (plain.argmax(dim=1) == other.argmax(dim=1)).sum()
        return int(same), float((p * (p / q).log()).sum(dim=1).mean())

    def search(self, trials: int, log: Log | None = None, seed: int = 0) -> tuple[Trial, Log]:
        log = Log() if log is None else log

        def closeness(schedule: Explicit):
            self.compared += 1
            return self.answers.closeness(self.build(schedule))

        subject = Subject(self.backbone, self.target, self.cost, closeness)
        best = search(
            known_shapes(self.backbone, self.target),
            range(self.backbone.first, self.backbone.blocks),
            log,
            trials,
            seed,
            lambda number, direction: carry_out(subject, direction, log.trials[:number]),
        )
        return best, log


@pytest.mark.parametrize("name", ["grid_pooling", "tome"])
def test_the_search_finds_the_best_of_all_schedules(tiny_vit: MakeVit, name: str) -> None:
    bench = Bench(tiny_vit(depth=3, img_size=48), name, 0.7)
    every = itertools.combinations_with_replacement(range(36, 0, -1), 3)
    close = [one for one in every if abs(bench.backbone.fraction(one) - 0.7) < 0.015]
    schedules = {bench.backbone.schedule(one) for one in close} - {None}
    fitting = [one for one in schedules if abs(bench.cost(one) - 0.7) <= 0.0025 * 0.7]
    assert len(fitting) > 2
    most = max(bench.directly(one)[0] for one in fitting)
    best, _ = bench.search(80)
    assert best.same >= most
    assert bench.directly(Schedule.parse(best.schedule))[0] == best.same


@pytest.mark.parametrize("room", [0, 40_000, 1 << 30])
@pytest.mark.parametrize("name", ["tome", "evit", "random_selection"])
def test_closeness_is_that_of_whole_forward_passes(tiny_vit: MakeVit, name: str, room: int) -> None:
    bench = Bench(tiny_vit(), name, 0.7, room)
    for schedule in (Explicit(None, (9, 4), (1, 3)), Explicit(None, (12,), (0,)), Explicit(None, (5,), (3,))):
        found = bench.answers.closeness(bench.build(schedule))
        same, kl = bench.directly(schedule)
        assert found.same == same
        assert found.kl == pytest.approx(kl, rel=1e-3, abs=1e-9)


def test_an_interrupted_search_is_the_undisturbed_one(tiny_vit: MakeVit) -> None:
    best, undisturbed = Bench(tiny_vit(), "tome", 0.7).search(25)
    log = Log()
    for trials in (3, 14, 25):
        log = Log(log.trials)
        again, log = Bench(tiny_vit(), "tome", 0.7).search(trials, log)
    assert again == best
    assert log.trials == undisturbed.trials


def test_more_trials_continue_and_fewer_choose_among_the_first(tiny_vit: MakeVit) -> None:
    bench = Bench(tiny_vit(), "tome", 0.7)
    few, log = bench.search(10)
    first = list(log.trials)
    _, log = bench.search(20, log)
    assert log.trials[:10] == first
    assert len(log.trials) == 20
    assert bench.search(10, log)[0] == few


def test_another_seed_proposes_other_directions(tiny_vit: MakeVit) -> None:
    bench = Bench(tiny_vit(), "tome", 0.7)
    _, one = bench.search(14)
    _, other = bench.search(14, seed=1)
    known = len(known_shapes(bench.backbone, 0.7))
    assert one.trials[:known] == other.trials[:known]
    assert one.trials[known:] != other.trials[known:]


def test_the_result_is_no_worse_than_any_known_shape_and_meets_the_budget(tiny_vit: MakeVit) -> None:
    bench = Bench(tiny_vit(img_size=64), "evit", 0.6)
    best, log = bench.search(12)
    known = known_shapes(bench.backbone, 0.6)
    assert all(trial.same <= best.same for trial in log.trials[: len(known)])
    model = bench.build(Schedule.parse(best.schedule))
    assert count_macs(model, bench.images[:1]).total / bench.plain_macs == pytest.approx(0.6, rel=0.01)


def test_the_same_schedule_is_compared_once(tiny_vit: MakeVit) -> None:
    bench = Bench(tiny_vit(), "grid_pooling", 0.7)
    _, log = bench.search(40)
    assert bench.compared == len({trial.schedule for trial in log.trials if not trial.failed}) < 40


def test_a_trial_without_counts_is_worth_the_least() -> None:
    nothing = Trial((1.0,), failed="out of reach")
    wrong = Trial((1.0,), "explicit(counts=1,at=0)", 0.5, 0.0, same=0, kl=50.0)
    assert nothing.score == WORST < wrong.score


def test_more_agreement_counts_first_and_then_less_divergence() -> None:
    ordered = [Trial((), "x", same=same, kl=kl) for same, kl in [(3, 90.0), (3, 0.1), (3, 0.0), (4, 90.0), (4, 1e-9)]]
    scores = [trial.score for trial in ordered]
    assert scores == sorted(set(scores))


def test_a_proposal_has_no_share_where_the_method_cannot_act() -> None:
    trials = [Trial((-0.5, 1.0, 0.3), "explicit(counts=9,at=1)", 0.7, 0.0, 5, 0.1)]
    proposed = propose(trials, range(1, 3), (0, 1))
    assert len(proposed) == 3
    assert proposed[0] <= 0
    assert proposed == propose(trials, range(1, 3), (0, 1))


@pytest.mark.parametrize("seed", range(3))
def test_the_search_learns_from_its_trials(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hidden = rng.uniform(-1, 1, 12)

    def attempt(number: int, direction: Direction) -> Trial:
        return Trial(direction, schedule=str(number), same=round(10_000 - 1_000 * np.linalg.norm(hidden - direction)))

    shapes = [(1.0,) * 12, (-0.5,) * 11 + (1.0,)]
    best = search(shapes, range(12), Log(), 80, 0, attempt)
    by_chance = [attempt(0, tuple(direction)) for direction in rng.uniform(-1, 1, (80, 12))]
    assert best.same > max(trial.same for trial in (*by_chance, *(attempt(0, shape) for shape in shapes)))
