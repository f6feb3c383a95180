"""Which images a step sees, in which process, and what is random in them."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from tokbench.errors import UserError
from tokbench.finetune.loading import load
from tokbench.finetune.order import Pick, check_batch, epoch_order, parts_from, steps_of_epoch
from tokbench.finetune.recipes import load_recipe
from tokbench.finetune.training_images import DigitImages

RECIPE = load_recipe("digits", {"batch": 16, "epochs": 2, "mixup": 0.8})
IMAGES = 70


def test_each_image_is_seen_once_in_an_epoch() -> None:
    parts = list(parts_from(RECIPE, IMAGES, 3, 0, 0, 1))
    assert len(parts) == 2 * steps_of_epoch(RECIPE, IMAGES) == 8
    for epoch in (0, 1):
        seen = [pick.position for part in parts if part.epoch == epoch for pick in part.picks]
        assert len(seen) == len(set(seen)) == 64
    assert parts[0].picks != parts[4].picks
    repeated = epoch_order(3, 0, IMAGES, repeats=3)
    assert repeated[:3] == [Pick(repeated[0].position, copy) for copy in range(3)]


@pytest.mark.parametrize(("processes", "accumulate"), [(2, 1), (1, 2), (2, 2)])
def test_parts_make_up_the_batch_and_keep_pairs_together(processes: int, accumulate: int) -> None:
    whole = list(parts_from(RECIPE, IMAGES, 3, 0, 0, 1))
    recipe = RECIPE.model_copy(update={"accumulate": accumulate})
    own = [list(parts_from(recipe, IMAGES, 3, 0, number, processes)) for number in range(processes)]
    for step, batch in enumerate(whole):
        partner = dict(zip(batch.picks, reversed(batch.picks), strict=True))
        parts = [part for parts in own for part in parts[step * accumulate : (step + 1) * accumulate]]
        assert sorted(pick.position for part in parts for pick in part.picks) == sorted(p.position for p in batch.picks)
        for part in parts:  # Mixup mixes image i of what it gets with the one at the same place from the end
            assert [partner[pick] for pick in part.picks] == list(reversed(part.picks))


def test_a_run_that_goes_on_sees_what_is_left() -> None:
    whole = list(parts_from(RECIPE, IMAGES, 3, 0, 0, 1))
    assert list(parts_from(RECIPE, IMAGES, 3, 5, 0, 1)) == whole[5:]


def test_batches_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(UserError, match="cannot be cut into 3 equal parts"):
        check_batch(RECIPE, IMAGES, 3)
    with pytest.raises(UserError, match="fewer than a batch of 16"):
        check_batch(RECIPE, 15, 1)


def test_an_image_depends_on_seed_epoch_and_position_alone() -> None:
    images = DigitImages()
    first = images.batch(1, [Pick(5), Pick(9)], 0)
    second = images.batch(1, [Pick(9), Pick(7), Pick(5)], 0)
    assert torch.equal(first.pixels[0], second.pixels[2])
    assert torch.equal(first.pixels[1], second.pixels[0])
    for other in (images.batch(2, [Pick(5)], 0), images.batch(1, [Pick(5)], 1)):
        assert not torch.equal(first.pixels[0], other.pixels[0])


def test_workers_give_the_same_batches() -> None:
    def batches(workers: int) -> list[torch.Tensor]:
        parts = parts_from(RECIPE, len(DigitImages()), 0, 0, 0, 1)
        return [batch.pixels for batch in islice(load(DigitImages(), parts, 0, workers, pin_memory=False), 4)]

    for alone, helped in zip(batches(0), batches(2), strict=True):
        assert torch.equal(alone, helped)
