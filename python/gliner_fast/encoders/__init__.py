"""Encoders of our own: DeBERTa, and BERT's kin over packed texts; who computes their attention, norms and layers."""
