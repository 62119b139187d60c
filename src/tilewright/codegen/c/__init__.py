"""C backend."""
