"""How hard hypothesis tries: GLINER_FAST_EXAMPLES examples a test, 100 unless told."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("GLINER_FAST_EXAMPLES", "100"))

# No deadline: the references are slow on purpose, and the machine may be busy.
examples = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
