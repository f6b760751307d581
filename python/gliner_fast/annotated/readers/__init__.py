"""One format a module: what a file holds -> examples."""
