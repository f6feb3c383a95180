"""The second GPU against the first: do both give the same answers, and are both timed by their own work?

    python benchmarks/gpu/two_gpus.py

DeiT-S with ToMe in bf16. Work that is queued on another device than the one whose clock is read would show as a time
that does not grow with the batch. The exit code is 1 if the answers differ by more than rounding.
"""

from __future__ import annotations

import sys
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from tokbench import reduce
from tokbench.measure.devices import device_name
from tokbench.measure.latency import measure_latency
from tokbench.measure.sample_images import sample_images
from tokbench.names import RANDOM
from tokbench.vit.models import load_model

MODEL, METHOD, KEEP = "deit_small_patch16_224", "tome", 0.5
BATCHES = (16, 256)
SECONDS, PRECISION = 1.0, 0.02
ROUNDING = 0.05  # of the logits' standard deviation; bf16 has eight bits


def main() -> int:
    """Compare both GPUs, and print the table; the exit code."""
    vit = load_model(MODEL, RANDOM).vit
    images = sample_images(vit, None, max(BATCHES))
    logits: list[Tensor] = []
    print(f"{'device':8} {'batch':>5} {'plain ms':>9} {f'{METHOD} ms':>9}  name")
    for index in range(2):
        device = torch.device("cuda", index)
        model = reduce(deepcopy(vit), METHOD, KEEP).to(device, torch.bfloat16).eval()
        plain = deepcopy(vit).to(device, torch.bfloat16)
        on_device = images.to(device, torch.bfloat16)
        with torch.inference_mode():
            logits.append(model(on_device).float().cpu())
        for batch in BATCHES:
            timed = measure_latency(plain, model, [on_device[:batch]], SECONDS, PRECISION)
            of_plain, of_method = (1e3 * float(np.median(times)) for times in (timed.base_s, timed.other_s))
            print(f"{device!s:8} {batch:5} {of_plain:9.3f} {of_method:9.3f}  {device_name(device)}", flush=True)
    apart = float((logits[0] - logits[1]).abs().max() / logits[0].std())
    print(f"Largest difference of the logits: {apart:.1e} of their standard deviation.")
    if apart > ROUNDING:
        print(f"the two GPUs differ by more than {ROUNDING:g}", file=sys.stderr)
    return int(apart > ROUNDING)


if __name__ == "__main__":
    raise SystemExit(main())
