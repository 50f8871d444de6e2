"""The engine: what to cache, when to reuse it and how to correct it. Knows torch and numpy, never the
host."""
