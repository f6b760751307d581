"""A request's way through the steps: what is asked, prepared, scheduled, computed and given back in order."""
