"""How hard hypothesis tries: GLINER_FAST_EXAMPLES examples a test, 100 unless told."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("GLINER_FAST_EXAMPLES", "100"))

# The references are slow on purpose.
examples = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
