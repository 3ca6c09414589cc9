"""What all tests share: Hypothesis draws the same examples in every run, and gives no example a deadline."""

from hypothesis import settings

settings.register_profile("dualface", derandomize=True, deadline=None)
settings.load_profile("dualface")
