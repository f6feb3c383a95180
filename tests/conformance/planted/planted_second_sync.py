"""simulated_gpu: only tokens that have been merged are read by the host."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_second_sync")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = tokens.patches.float().norm(dim=2)
        if tokens.n_patches < tokens.owner.shape[1]:
            score = score / tokens.size.max().item()
        return tokens.select(score.topk(keep).indices.sort().values)
