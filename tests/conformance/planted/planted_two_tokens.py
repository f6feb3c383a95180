"""smallest: a grid of one row has no neighbour below."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_two_tokens")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        h, w = tokens.layout or (2, tokens.n_patches // 2)
        below = tokens.patches.roll(-w, dims=1) if h > 1 else tokens.patches[:, w : 2 * w]
        likeness = (tokens.patches * below).float().sum(dim=2)
        return tokens.select(likeness.topk(keep, largest=False).indices.sort().values)
