"""How close a model with a method stays to the plain model on calibration images, for many schedules of one method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokbench.downsampler import DownsamplerError
from tokbench.isolation import alive
from tokbench.measure.agreement import Prediction, difference
from tokbench.tokens import Tokens
from tokbench.vit.backbone import DownsampledViT


@dataclass(frozen=True)
class Closeness:
    """A model beside the plain one.

    Attributes:
        same: Images with the plain model's top-1.
        kl: The mean KL divergence from the plain model's predictions, in nats.
    """

    same: int
    kl: float


class PlainAnswers:
    """The plain model's answers to the calibration images, and its tokens in the blocks where candidates may start.

    Up to its first reduction a candidate computes what the plain model does, so it starts there.

    Attributes:
        images: How many there are.
    """

    @torch.inference_mode()
    def __init__(
        self, plain: DownsampledViT, batches: Sequence[Tensor], classes: Sequence[int] | None, room: int
    ) -> None:
        """Run the plain model once.

        Args:
            plain: In evaluation mode.
            batches: Images (B, C, H, W), numbered from 0 for a method's noise, in the model's dtype and on its device.
            classes: Logits are restricted to these; None for all.
            room: Most bytes of tokens to hold.

        Raises:
            DownsamplerError: The plain model's logits are not finite.
        """
        self._plain = plain
        self._batches = batches
        self.images = sum(map(len, batches))
        ids = torch.arange(self.images, device=batches[0].device)
        self._ids = torch.split(ids, [len(batch) for batch in batches])
        self._classes = None if classes is None else torch.tensor(classes, device=ids.device)
        # The tokens of all images take as much room in one block as in any other.
        blocks, size = len(plain.vit.blocks), self.images * _bytes(plain.embed(batches[0][:1]))
        fitting = min(blocks, room // size)
        self._held_at = sorted({number * blocks // fitting for number in range(fitting)}) if fitting else []
        self._held: list[dict[int, Tokens]] = [{} for _ in batches]
        self._answers = [self._answer(number) for number in range(len(batches))]
        if not all(torch.isfinite(answer.logits).all() for answer in self._answers):
            raise DownsamplerError("the plain model's logits are not finite (NaN or infinity)")

    @torch.inference_mode()
    def closeness(self, model: DownsampledViT) -> Closeness:
        """Compare a model.

        Args:
            model: With a method, in evaluation mode; its ViT is the plain model's.

        Raises:
            DownsamplerError: Its logits are not finite, or the method violates the contract.
        """
        rows = []
        for number, answer in enumerate(self._answers):
            alive()
            depth, tokens = self._tokens(number, model.start)
            left = model.through(tokens, range(depth, len(model.vit.blocks)), self._ids[number])
            found = Prediction(model.classify(left), model.pool(left))
            if not torch.isfinite(found.logits).all():
                raise DownsamplerError("the logits are not finite (NaN or infinity)")
            rows.append(difference(answer, found, self._classes)[:, :2])
        same, kl = torch.cat(rows).sum(dim=0).tolist()
        return Closeness(round(same), kl / self.images)

    def _answer(self, number: int) -> Prediction:
        """What the plain model predicts for a batch; the tokens of some blocks are held."""
        alive()
        plain, tokens, start = self._plain, self._plain.embed(self._batches[number]), 0
        for depth in self._held_at:
            tokens = plain.through(tokens, range(start, depth), self._ids[number])
            self._held[number][depth] = tokens
            start = depth
        left = plain.through(tokens, range(start, len(plain.vit.blocks)), self._ids[number])
        return Prediction(plain.classify(left), plain.pool(left))

    def _tokens(self, number: int, start: int) -> tuple[int, Tokens]:
        """The last held tokens that enter no block after `start`, and which block they enter."""
        depth = max((held for held in self._held_at if held <= start), default=None)
        if depth is None:
            return 0, self._plain.embed(self._batches[number])
        tokens = self._held[number][depth]
        # A method that writes into its input must not change the input of the others.
        own = (tokens.x.clone(), tokens.size.clone(), tokens.owner.clone())
        return depth, dataclasses.replace(tokens, x=own[0], size=own[1], owner=own[2])


def _bytes(tokens: Tokens) -> int:
    return sum(part.numel() * part.element_size() for part in (tokens.x, tokens.size, tokens.owner))
