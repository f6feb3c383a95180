"""attention_pooling: the class token's attention is expected to leave a share to the class token itself."""

from tokbench import Context, Downsampler, Tokens, register


@register("planted_attention_of_one")
class Planted(Downsampler):
    """Keep the tokens that the class token attends to, with a fault."""

    needs = frozenset({"cls_attention"})

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        share = context.cls_attention.double()
        for_itself = 1 - share.sum(dim=1, keepdim=True)
        score = (share / for_itself.clamp_min(1e-6).sqrt()).to(tokens.x.dtype)
        kept = tokens.select(score.topk(keep).indices.sort().values)
        return kept.replace(patches=kept.patches / (for_itself > 1e-6)[..., None])
