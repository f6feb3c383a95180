"""batch_independence: tokens are centred on the mean of the batch."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_batch_threshold")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        x = tokens.patches.float()
        return tokens.select((x - x.mean(dim=(0, 1))).norm(dim=2).topk(keep).indices.sort().values)
