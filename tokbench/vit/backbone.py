"""A timm ViT with a downsampler, composed of the model's own modules; no timm class is patched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torch.utils.checkpoint import checkpoint

from tokbench.downsampler import FIELDS, Context, Downsampler, DownsamplerError, Geometry, Reduction
from tokbench.errors import UserError
from tokbench.schedule import Schedule, planned_counts
from tokbench.tokens import Tokens
from tokbench.vit.attention import AttentionProbe, Heads, Passed, attend, log_size_bias
from tokbench.vit.noise import uniform
from tokbench.vit.reduction import check_result, reduced, trim
from tokbench.vit.supported import check_supported

Observer = Callable[[int, Tokens], None]


class DownsampledViT(nn.Module):
    """A ViT in which a method reduces the patch tokens between blocks.

    Tokens are removed, not masked, unless a method returns `valid` (then the batch is trimmed to its longest image and
    padding is masked). Blocks without a reduction run unchanged. The context is computed only where the method acts.

    Attributes:
        vit: The timm model, shared, not copied.
        downsampler: The method, or None for the plain model.
        schedule: The method's schedule; None without a downsampler.
        site: Where in a block the method acts.
        depths: The blocks in which the method acts.
        counts: The planned number of patch tokens after each reduction.
        seed: The seed of `context.noise`, which also depends on the image's id and the depth.
        needs_calibration: Whether the method's constants have yet to be set, by `tokbench.calibrate` or from a file.
        reduction: What reduces in the method's place while it is calibrated; else None.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        downsampler: Downsampler | None = None,
        schedule: Schedule | None = None,
        *,
        site: str | None = None,
        seed: int = 0,
    ) -> None:
        """Put a method into a model.

        Args:
            vit: A timm ViT with blocks norm1→attention→norm2→MLP.
            downsampler: The method, or None.
            schedule: The method's schedule; required with a downsampler, not allowed without one.
            site: Overrides the method's default site, if the method allows it.
            seed: Seed of the method's noise.

        Raises:
            UnsupportedModelError: The model's structure is not supported.
            UserError: Method, site, schedule and model do not fit together.
            ValueError: Only one of downsampler and schedule was given.
        """
        super().__init__()
        check_supported(vit)
        if (downsampler is None) != (schedule is None):
            raise ValueError("give both downsampler and schedule, together, or neither")
        self.vit = vit
        self.downsampler = downsampler
        self.schedule = schedule
        self.seed = seed
        self.site = site or (downsampler.site if downsampler else "after_attention")
        self.depths: tuple[int, ...] = ()
        self.counts: tuple[int, ...] = ()
        self.reduction: Reduction | None = None
        self.needs_calibration = downsampler is not None and downsampler.calibrated
        self.register_load_state_dict_post_hook(_constants_loaded)  # type: ignore[no-untyped-call]
        if downsampler is not None and schedule is not None:
            self.depths = schedule.depths(len(vit.blocks))
            self._check_method(downsampler)
            grid = vit.patch_embed.grid_size
            self.counts = planned_counts(schedule, downsampler, len(vit.blocks), grid)
            heads = vit.blocks[0].attn.num_heads
            downsampler.setup(Geometry(vit.embed_dim, heads, self.depths, grid, self.counts))
            weight = vit.patch_embed.proj.weight
            downsampler.to(weight.device, weight.dtype)
            self.probe = AttentionProbe(downsampler.needs)
            for part in (downsampler, self.probe):
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
                if self._target(depth, n) is not None
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
        if image_ids is None:
            image_ids = torch.arange(images.shape[0], device=images.device)
        return self.classify(self.through(self.embed(images), range(len(self.vit.blocks)), image_ids, observe))

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
        passed = Passed()
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
        vit = self.vit
        x = vit.patch_embed(images)
        grid = tuple(x.shape[1:3]) if x.ndim == 4 else vit.patch_embed.grid_size
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))
        return Tokens.from_sequence(x, grid, vit.num_prefix_tokens)

    def classify(self, tokens: Tokens) -> Tensor:
        """The logits (B, classes), from the output tokens of the last block; the features where there is no head."""
        vit = self.vit
        if vit.global_pool == "avg" and reduced(tokens):
            return vit.head(self.pool(tokens))  # type: ignore[no-any-return]
        return vit.forward_head(vit.norm(tokens.x))  # type: ignore[no-any-return]

    def pool(self, tokens: Tokens) -> Tensor:
        """The features (B, D) that the head reads, from the output tokens of the last block."""
        vit = self.vit
        x = vit.norm(tokens.x)
        if vit.global_pool == "avg" and reduced(tokens):
            include_prefix = getattr(vit, "pool_include_prefix", False)  # missing in older timm versions
            return vit.head_drop(vit.fc_norm(_average(tokens, x, include_prefix)))  # type: ignore[no-any-return]
        return vit.forward_head(x, pre_logits=True)  # type: ignore[no-any-return]

    def _block(self, depth: int, tokens: Tokens, passed: Passed, image_ids: Tensor) -> tuple[Tokens, Passed]:
        """Run one block: tokens, and what the block before computed for a reduction, in; the same of this block out."""
        block = self.vit.blocks[depth]
        tokens = self._reduce("before_block", depth, tokens, passed, image_ids)
        needs = self._read_from(depth, tokens.n_patches)
        update, heads = self._attend(block, tokens, needs - {"update"})
        update = block.drop_path1(block.ls1(update))
        tokens = dataclasses.replace(tokens, x=tokens.x + update)
        passed = Passed(heads, update if "update" in needs else None)
        tokens = self._reduce("after_attention", depth, tokens, passed, image_ids)
        update = block.drop_path2(block.ls2(block.mlp(block.norm2(tokens.x))))
        tokens = dataclasses.replace(tokens, x=tokens.x + update)
        passed = Passed(heads, update if "update" in needs else None)
        return self._reduce("after_block", depth, tokens, passed, image_ids), passed

    def _read_from(self, depth: int, n_patches: int) -> frozenset[str]:
        """The fields of a context that a reduction reads from this block, which receives N patch tokens."""
        reader = depth + 1 if self.site == "before_block" else depth
        if self.downsampler is None or self._target(reader, n_patches) is None:
            return frozenset()
        return self.downsampler.needs

    def _attend(self, block: Block, tokens: Tokens, needs: frozenset[str]) -> tuple[Tensor, Heads | None]:
        """The attention's output (B, P+N, D), and its intermediate tensors if a reduction needs them."""
        x = block.norm1(tokens.x)
        proportional = self.downsampler is not None and self.downsampler.proportional
        bias = log_size_bias(tokens, proportional=proportional and reduced(tokens))
        if bias is None and not needs:
            return block.attn(x), None
        output, heads = attend(block.attn, x, bias, matrix="attention" in needs)
        return output, heads if needs else None

    def _target(self, depth: int, n_patches: int) -> int | None:
        """K at this depth, or None if there is no reduction here, or nothing to reduce."""
        if self.schedule is None or depth not in self.depths:
            return None
        stage = self.depths.index(depth)
        if self.downsampler is not None and self.downsampler.adaptive:
            # N is the count of the batch's longest image, while the plan must not depend on the other images.
            planned = self.counts[stage - 1] if stage else self.vit.patch_embed.num_patches
            keep = self.schedule.target(stage, planned)
            return min(keep, n_patches) if keep < planned else None
        keep = self.schedule.target(stage, n_patches)
        return keep if keep < n_patches else None

    def _reduce(self, site: str, depth: int, tokens: Tokens, passed: Passed, image_ids: Tensor) -> Tokens:
        keep = self._target(depth, tokens.n_patches) if site == self.site else None
        method = self.downsampler
        if keep is None or method is None:
            return tokens
        n = tokens.n_patches
        attention = self.probe(passed.heads, tokens.n_prefix, tokens.valid) if passed.heads is not None else {}
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
        result = (self.reduction or method)(tokens, keep, context)
        check_result(method, tokens, result, method.count(keep, n, depth, tokens.layout), depth)
        return trim(result)

    def _check_method(self, method: Downsampler) -> None:
        name = method.name or type(method).__name__
        unknown = method.needs - set(FIELDS)
        if unknown:
            raise DownsamplerError(f"{name}: unknown field '{min(unknown)}' in needs; known: {', '.join(FIELDS)}")
        if self.site not in method.sites:
            raise UserError(f"method '{name}' cannot act {self.site}; its sites are {', '.join(method.sites)}")
        if self.site == "before_block" and method.needs and 0 in self.depths:
            raise UserError(
                f"method '{name}' reads what the previous block computed, and depth 0 has none: "
                "use --site after_attention, or a schedule that starts later"
            )
        if "cls_attention" in method.needs and self.vit.cls_token is None:
            raise UserError(f"method '{name}' reads the class token's attention, but this model has no class token")


def _constants_loaded(model: nn.Module, misfits: _IncompatibleKeys) -> None:
    """Whether a state dict has all of the method's constants in it."""
    assert isinstance(model, DownsampledViT)
    if not any(key.startswith("downsampler.") for key in misfits.missing_keys):
        model.needs_calibration = False


def _average(tokens: Tokens, x: Tensor, include_prefix: bool) -> Tensor:
    """The mean of x (B, P+N, D) over tokens, each weighted by the number of image patches it represents."""
    weight = tokens.size if tokens.valid is None else tokens.size * tokens.valid
    if include_prefix:
        weight = nn.functional.pad(weight, (tokens.n_prefix, 0), value=1.0)
    else:
        x = x[:, tokens.n_prefix :]
    weight = (weight / weight.sum(dim=1, keepdim=True)).to(x.dtype)
    return (weight[:, None] @ x)[:, 0]
