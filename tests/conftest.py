"""What every test file shares: how hypothesis chooses its examples."""

from __future__ import annotations

from hypothesis import settings

# The suite that a change has to pass gives the same answer twice: examples follow from the test's text. New ones are looked for with
# --hypothesis-profile=explore (`make explore`); what that finds becomes an @example.
settings.register_profile("reproducible", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("reproducible")
