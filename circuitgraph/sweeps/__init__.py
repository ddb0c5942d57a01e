"""Sweeps in parts: what is asked as a value, its parts by name, and where they run."""
