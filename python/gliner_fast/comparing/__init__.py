"""Ours beside the installed `gliner`: answers and speed."""
