"""How the built-in model is made: `python -m gliner_fast.training.builtin --help`."""
