"""What a CPU computes otherwise than torch does: products, the word LSTM, span candidates, and where each is faster."""
