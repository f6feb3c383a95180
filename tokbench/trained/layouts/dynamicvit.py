"""DynamicViT of Rao et al. 2021 (github.com/raoyongming/DynamicViT), its DeiT models.

They prune before blocks 3, 6 and 9 to int(N r), int(N r²) and int(N r³) tokens, r being `base_rate` of the args. Files
without args, such as the released ones, do not say r.
"""

from __future__ import annotations

from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts.keep_predictors import OWN, keep_predictors
from tokbench.trained.layouts.keep_rates import explicit, powers
from tokbench.trained.layouts.saved_content import Saved

AT = (3, 6, 9)
MODELS = ("deit-s", "deit-b")  # the argument `model`
ARCHITECTURES = ("deit_small", "deit_256")  # the argument `arch` of the older script
ADD_ARGS = 'torch.save({"model": weights, "args": argparse.Namespace(model="deit-s", base_rate=0.7)}, FILE)'


def read(saved: Saved) -> Trained | None:
    """See `tokbench.trained.layouts.recognise`."""
    if not any(key.startswith(OWN) for key in saved.state):
        return None
    if "base_rate" not in saved.args:
        saved.refuse(f"it is a DynamicViT that does not say its keep rate, as {ADD_ARGS} would")
    if saved.args.get("model") not in MODELS and saved.args.get("arch") not in ARCHITECTURES:
        saved.refuse("it is a DynamicViT whose args name no DeiT")
    return keep_predictors(saved, explicit(powers(saved.patches, saved.arg("base_rate", float), len(AT)), AT))
