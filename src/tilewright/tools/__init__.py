"""Where programs written for Triton look for what their hosts use."""
