"""A timm ViT with a downsampler, composed of the model's own modules; no timm class is patched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.utils.checkpoint import checkpoint

from tokbench.context import Context
from tokbench.downsampler import Downsampler, Geometry, Reduction
from tokbench.errors import UserError
from tokbench.names import POSITIONS, Position
from tokbench.schedule import Schedule, planned_counts, planned_targets
from tokbench.tokens import Tokens
from tokbench.vit.adapters import TimmViT
from tokbench.vit.adapters.pooling import PoolingProbe
from tokbench.vit.adapters.rotary import Placement
from tokbench.vit.attention import AttentionProbe, Heads, Passed, attend, log_size_bias
from tokbench.vit.noise import uniform
from tokbench.vit.presence import key_presence
from tokbench.vit.reduction import check_result, reduced, trim
from tokbench.vit.supported import check_method, check_supported

Observer = Callable[[int, Tokens], None]


METHOD_PARTS = ("downsampler", "probe", "pooling_probe", "placement")
"""The modules whose compute and time are the method's; the rest of a `DownsampledViT` is the backbone."""


class DownsampledViT(nn.Module):
    """A ViT in which a method reduces the patch tokens between blocks.

    Tokens are removed, not masked, unless a method returns `valid` (then the batch is trimmed to its longest image and
    padding is masked). In training, the method's `relaxed` may keep them and say how far they are present. Blocks
    without a reduction run unchanged. The context is computed only where the method acts.

    Attributes:
        vit: The timm model, shared, not copied.
        adapter: How its family is run.
        downsampler: The method, or None for the plain model.
        schedule: The method's schedule; None without a downsampler.
        site: Where in a block the method acts.
        depths: The blocks in which the method acts.
        counts: The planned number of patch tokens after each reduction.
        position: The rule for the rotary positions of merged tokens (see `tokbench.vit.adapters.rotary`).
        seed: The seed of `context.noise`, which also depends on the image's id and the depth.
        needs_calibration: Whether the method's constants have yet to be set, by `tokbench.calibrate` or from a file.
        reduction: What reduces in the method's place while it is calibrated; else None.
    """

    def __init__(
        self,
        vit: TimmViT,
        downsampler: Downsampler | None = None,
        schedule: Schedule | None = None,
        *,
        site: str | None = None,
        position: Position = POSITIONS[0],
        seed: int = 0,
    ) -> None:
        """Put a method into a model.

        Args:
            vit: A timm ViT (`VisionTransformer` or `Eva`) whose blocks are attention, then MLP.
            downsampler: The method, or None.
            schedule: The method's schedule; required with a downsampler, not allowed without one.
            site: Overrides the method's default site, if the method allows it.
            position: In a model with rotary positions, where merged tokens are: "mean", "destination", "rotation" or
                "none".
            seed: Seed of the method's noise.

        Raises:
            UnsupportedModelError: The model's structure is not supported.
            UserError: Method, site, schedule and model do not fit together.
            ValueError: Only one of downsampler and schedule was given.
        """
        super().__init__()
        self.adapter = check_supported(vit)
        if position not in POSITIONS:
            raise UserError(f"position '{position}' is unknown: choose from {', '.join(POSITIONS)}")
        if (downsampler is None) != (schedule is None):
            raise ValueError("give both downsampler and schedule, together, or neither")
        self.vit = vit
        self.downsampler = downsampler
        self.schedule = schedule
        self.seed = seed
        self.position = position
        self.site = site or (downsampler.site if downsampler else "after_attention")
        self.placement = Placement().train(vit.training)
        self.depths: tuple[int, ...] = ()
        self.counts: tuple[int, ...] = ()
        self.reduction: Reduction | None = None
        self.needs_calibration = downsampler is not None and downsampler.calibrated
        self.register_load_state_dict_post_hook(_constants_loaded)  # type: ignore[no-untyped-call]
        if downsampler is not None and schedule is not None:
            self.depths = schedule.depths(len(vit.blocks))
            check_method(downsampler, vit, self.site, self.depths)
            grid, blocks = vit.patch_embed.grid_size, len(vit.blocks)
            self.counts = planned_counts(schedule, downsampler, blocks, grid)
            targets = planned_targets(schedule, blocks, grid[0] * grid[1])
            heads = vit.blocks[0].attn.num_heads
            downsampler.setup(Geometry(vit.embed_dim, heads, self.depths, grid, self.counts, targets, blocks))
            weight = vit.patch_embed.proj.weight
            downsampler.to(weight.device, weight.dtype)
            self.probe, self.pooling_probe = AttentionProbe(self._read_in_blocks(downsampler)), PoolingProbe()
            for part in (downsampler, self.probe, self.pooling_probe):
                part.train(vit.training)
        self.training = vit.training  # self.train() would also switch parts of vit that are kept in evaluation mode

    @property
    def attention_kernel(self) -> str:
        """`fused`, `eager`, or `fused+eager` if only blocks in which the method acts cannot use the fused kernel."""
        unfused: set[int] = set()
        if self.downsampler is not None and "attention" in self.downsampler.needs:
            present = (self.vit.patch_embed.num_patches, *self.counts)  # before each reduction
            unfused = {
                depth - (self.site == "before_block")
                for depth, n in zip(self.depths, present, strict=False)
                if self._target(depth, n, planned=False) is not None
            }
        fused = {bool(block.attn.fused_attn) and depth not in unfused for depth, block in enumerate(self.vit.blocks)}
        return "+".join(name for name, used in (("fused", True), ("eager", False)) if used in fused)

    def forward(self, images: Tensor, image_ids: Tensor | None = None, observe: Observer | None = None) -> Tensor:
        """Classify images.

        Args:
            images: (B, C, H, W).
            image_ids: (B,) int64, the images' ids for the method's noise; None numbers the batch from 0.
            observe: Called after each block with its depth and its output tokens.

        Returns:
            (B, classes) logits.

        Raises:
            DownsamplerError: The method violates the contract.
            UserError: The method's constants have not been set.
        """
        return self.classify(self.encode(images, image_ids, observe))

    def encode(self, images: Tensor, image_ids: Tensor | None = None, observe: Observer | None = None) -> Tokens:
        """The tokens that leave the last block, before the final norm, with a record of what each represents.

        For models that read tokens instead of logits, such as a decoder or a language model. Arguments and errors are
        those of `forward`.
        """
        if image_ids is None:
            image_ids = torch.arange(images.shape[0], device=images.device)
        return self.through(self.embed(images), range(len(self.vit.blocks)), image_ids, observe)

    @property
    def start(self) -> int:
        """The first block that may differ from the plain model's; the number of blocks if there is no reduction.

        A method that acts before a block reads what the previous block computed.
        """
        if self.downsampler is None or not self.depths:
            return len(self.vit.blocks)
        reads_before = self.site == "before_block" and bool(self.downsampler.needs)
        return self.depths[0] - reads_before

    def through(
        self,
        tokens: Tokens,
        blocks: range,
        image_ids: Tensor,
        observe: Observer | None = None,
    ) -> Tokens:
        """Run some of the blocks.

        Args:
            tokens: The input of the first of these blocks, for B images.
            blocks: Consecutive depths.
            image_ids: (B,) int64.
            observe: As in `forward`.

        Returns:
            The output of the last of these blocks.

        Raises:
            DownsamplerError: The method violates the contract.
        """
        passed = Passed(rotation=self.adapter.rotation(self.vit, tokens, self.position))
        recompute = self.vit.grad_checkpointing and torch.is_grad_enabled()  # vit.set_grad_checkpointing()
        for depth in blocks:
            if recompute:
                tokens, passed = checkpoint(self._block, depth, tokens, passed, image_ids, use_reentrant=False)
            else:
                tokens, passed = self._block(depth, tokens, passed, image_ids)
            if observe is not None:
                observe(depth, tokens)
        return tokens

    def embed(self, images: Tensor) -> Tokens:
        """The input tokens of the first block, from images (B, C, H, W)."""
        return self.adapter.embed(self.vit, images)

    def heads(self, tokens: Tokens, depth: int) -> Heads:
        """The queries, keys, values and attention matrix that a block computes from its input tokens."""
        block, rotation = self.vit.blocks[depth], self.adapter.rotation(self.vit, tokens, self.position)
        x = self.adapter.attention_input(block, tokens.x)
        projected = self.adapter.project(block.attn, x, None if rotation is None else rotation.rows(depth))
        return attend(block.attn, x, projected, self._bias(tokens), key_presence(tokens), matrix=True)[1]

    def classify(self, tokens: Tokens) -> Tensor:
        """The logits (B, classes), from the output tokens of the last block; the features where there is no head."""
        if reduced(tokens) and self.vit.global_pool != "token":
            return self.vit.head(self.pool(tokens))  # type: ignore[no-any-return]
        return self.vit.forward_head(self.vit.norm(tokens.x))  # type: ignore[no-any-return]

    def pool(self, tokens: Tokens) -> Tensor:
        """The features (B, D) that the head reads, from the output tokens of the last block."""
        return self.adapter.pool(self.vit, tokens, self._bias(tokens))

    def _block(self, depth: int, tokens: Tokens, passed: Passed, image_ids: Tensor) -> tuple[Tokens, Passed]:
        """Run one block: tokens, and what the block before computed for a reduction, in; the same of this block out."""
        block, adapter = self.vit.blocks[depth], self.adapter
        tokens = self._reduce("before_block", depth, tokens, passed, image_ids)
        needs = self._read_from(depth, tokens)
        rotation = rotary = None
        if passed.rotation is not None:
            rotation, rotary = self.placement(passed.rotation, tokens, depth)
        size = tokens.size
        bias = passed.bias if size is passed.size else self._bias(tokens)  # until a reduction, it stays the same
        output, heads = self._attend(block, tokens, rotary, bias, needs - {"update"})
        update = adapter.attention_update(block, output)
        tokens = dataclasses.replace(tokens, x=tokens.x + update)
        passed = Passed(heads, update if "update" in needs else None, rotation, size, bias)
        tokens = self._reduce("after_attention", depth, tokens, passed, image_ids)
        update = adapter.mlp_update(block, tokens.x)
        tokens = dataclasses.replace(tokens, x=tokens.x + update)
        passed = dataclasses.replace(passed, update=update if "update" in needs else None)
        return self._reduce("after_block", depth, tokens, passed, image_ids), passed

    def _read_from(self, depth: int, tokens: Tokens) -> frozenset[str]:
        """The fields of a context that a reduction takes from this block, which receives the tokens."""
        reader = depth + 1 if self.site == "before_block" else depth
        if self.downsampler is None or self._keep(reader, tokens) is None:
            return frozenset()
        return self._read_in_blocks(self.downsampler)

    def _read_in_blocks(self, method: Downsampler) -> frozenset[str]:
        """The fields of a context that come from a block; without a class token, pooling attention takes its place."""
        return method.needs if self.vit.cls_token is not None else method.needs - {"cls_attention"}

    def _attend(
        self, block: nn.Module, tokens: Tokens, rotary: Tensor | None, bias: Tensor | None, needs: frozenset[str]
    ) -> tuple[Tensor, Heads | None]:
        """The attention's output (B, P+N, D), and its intermediate tensors if a reduction needs them."""
        x = self.adapter.attention_input(block, tokens.x)
        presence = key_presence(tokens)
        if bias is None and presence is None and not needs:
            return self.adapter.attention(block, x, rotary), None
        projected = self.adapter.project(block.attn, x, rotary)
        output, heads = attend(block.attn, x, projected, bias, presence, matrix="attention" in needs)
        return output, heads if needs else None

    def _bias(self, tokens: Tokens) -> Tensor | None:
        """What is added to the logits of each key, (B, 1, 1, P+N), or None."""
        proportional = self.downsampler is not None and self.downsampler.proportional
        return log_size_bias(tokens, proportional=proportional and reduced(tokens))

    def _keep(self, depth: int, tokens: Tokens) -> int | None:
        """K at this depth, or None if there is no reduction here, or nothing to reduce."""
        return self._target(depth, tokens.n_patches, planned=tokens.presence is not None)

    def _target(self, depth: int, n_patches: int, *, planned: bool) -> int | None:
        """K for N patch tokens at this depth, or for as many as are planned to be left."""
        if self.schedule is None or depth not in self.depths:
            return None
        stage = self.depths.index(depth)
        if planned or (self.downsampler is not None and self.downsampler.adaptive):
            # N is the count of the batch's longest image, while the plan must not depend on the other images; or all
            # tokens are there, while only some are present.
            left = self.counts[stage - 1] if stage else self.vit.patch_embed.num_patches
            keep = self.schedule.target(stage, left)
            return min(keep, n_patches) if keep < left else None
        keep = self.schedule.target(stage, n_patches)
        return keep if keep < n_patches else None

    def _reduce(self, site: str, depth: int, tokens: Tokens, passed: Passed, image_ids: Tensor) -> Tokens:
        keep = self._keep(depth, tokens) if site == self.site else None
        method = self.downsampler
        if keep is None or method is None:
            return tokens
        n = tokens.n_patches
        valid = tokens.valid if tokens.presence is None else tokens.presence
        attention = self.probe(passed.heads, tokens.n_prefix, valid) if passed.heads is not None else {}
        if "cls_attention" in method.needs and self.vit.cls_token is None:
            prefix = self.adapter.pools_prefix(self.vit)
            attention["cls_attention"] = self.pooling_probe(self.vit, tokens, self._bias(tokens), prefix=prefix)
        context = Context(
            depth=depth,
            depths=self.depths,
            stage=self.depths.index(depth),
            noise=lambda: uniform(self.seed, image_ids, depth, n),
            update=passed.update[:, tokens.n_prefix :] if passed.update is not None else None,
            **attention,
        )
        if self.needs_calibration and self.reduction is None:
            raise UserError(f"method '{method.name}' has no constants yet: tokbench.calibrate(model, images) sets them")
        result = (self.reduction or (method.relaxed if self.training else method))(tokens, keep, context)
        check_result(method, tokens, result, method.count(keep, n, depth, tokens.layout), depth)
        return trim(result)


def _constants_loaded(model: nn.Module, misfits: _IncompatibleKeys) -> None:
    """Whether a state dict has all of the method's constants in it."""
    assert isinstance(model, DownsampledViT)
    if not any(key.startswith("downsampler.") for key in misfits.missing_keys):
        model.needs_calibration = False
