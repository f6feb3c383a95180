"""Names shared by several parts of tokbench: methods, regimes, sites and settings. It does not import torch."""

from typing import Literal, get_args

PLAIN = "none"  # the plain model in the column `method`
ALL = "all"  # every registered method, in --methods
OFF_THE_SHELF = "off-the-shelf"  # regime: a method in a pretrained model, without any training
CALIBRATED = "calibrated"  # regime: the same, with constants of the method set from unlabelled images
FINE_TUNED = "fine-tuned"  # regime: the model and the method were trained together
PUBLISHED = "published"  # the schedule value that selects each method's own published schedule

EMBEDDED = "embedded"  # the data set that is shipped with tokbench
EmbeddedModel = Literal["digits_deit", "digits_deit_32", "digits_deit_16", "digits_rope"]
EMBEDDED_MODELS: tuple[EmbeddedModel, ...] = get_args(EmbeddedModel)  # the default first
RANDOM = "random"  # weights drawn from a fixed seed: enough to measure compute and time

# The plain model's attention: timm's fused kernel, or separate matrix products. Some methods need the attention matrix;
# timing the plain model without fusion shows how much of their slowdown comes from that alone.
FUSED, UNFUSED = "fused", "eager"

IMG_SIZE = "img_size"  # parameter of the plain model: height and width of its images, in pixels

TIMES = "\N{MULTIPLICATION SIGN}"  # the unit of a speedup

Site = Literal["before_block", "after_attention", "after_block"]
SITES: tuple[Site, ...] = get_args(Site)

# The rotary position of a token merged from several patches, in models that rotate queries and keys.
Position = Literal["mean", "destination", "rotation", "none"]
POSITIONS: tuple[Position, ...] = get_args(Position)  # the default first

# The type of weights and activations; with amp- the weights stay in float32, and torch.autocast picks the type of each
# operator.
Dtype = Literal["fp32", "bf16", "fp16", "amp-bf16", "amp-fp16"]

# How a timed model runs. `tensorrt` is ONNX Runtime's provider of that name.
Mode = Literal["eager", "compile", "cudagraph", "compile+cudagraph", "onnxruntime", "tensorrt", "openvino"]
MODES: tuple[Mode, ...] = get_args(Mode)
EAGER: Mode = "eager"
COMPILED: tuple[Mode, ...] = ("compile", "compile+cudagraph")
GRAPHS: tuple[Mode, ...] = ("cudagraph", "compile+cudagraph")
RUNTIMES: tuple[Mode, ...] = ("onnxruntime", "tensorrt", "openvino")
