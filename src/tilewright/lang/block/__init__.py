"""Block programs in the spelling of Triton: Python functions to block IR to kernels of the loop IR."""
