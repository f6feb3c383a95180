"""Names that several parts of tokbench share: of methods, regimes, sites and settings. This module imports no torch."""

from typing import Literal, get_args

PLAIN = "none"  # the method column of the plain model
OFF_THE_SHELF = "off-the-shelf"  # the regime of a method in a pretrained model without any training
PUBLISHED = "published"  # the schedule that stands for each method's own

EMBEDDED = "embedded"  # the data that come with tokbench
EMBEDDED_MODEL = "digits_deit"
RANDOM = "random"  # weights from a fixed seed, enough to measure compute and time

# The plain model's attention: timm's fused kernel, or matrix by matrix. Some methods need the matrix; the plain model
# without fusion shows how much of their slowdown comes from that alone.
FUSED, UNFUSED = "fused", "eager"

Site = Literal["before_block", "after_attention", "after_block"]
SITES: tuple[Site, ...] = get_args(Site)

Dtype = Literal["fp32", "bf16", "fp16"]
Mode = Literal["eager", "compile", "cudagraph"]
EAGER: Mode = "eager"
