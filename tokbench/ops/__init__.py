"""Operations on token vectors that several methods share: clustering and bipartite matching."""
