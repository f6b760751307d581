"""What gliner_fast._rust does, in plain Python: written to be obviously right, however slow."""
