"""Pairs of entities and relation types -> scores, by the layers that relation extraction (relex) checkpoints name."""
