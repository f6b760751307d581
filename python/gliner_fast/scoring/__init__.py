"""What the heads compute and decoding reads: vectors of words, scores, candidates, and who computes them."""
