"""host_sync: the ranking is computed on the CPU."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_over_cpu")
class Planted(Downsampler):
    """Keep the tokens of the largest norm, with a fault."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        score = tokens.patches.float().norm(dim=2).cpu()
        return tokens.select(score.topk(keep).indices.sort().values.to(tokens.x.device))
