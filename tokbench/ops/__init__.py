"""Operations on token vectors that several methods share: clustering, bipartite matching and a learned score."""
