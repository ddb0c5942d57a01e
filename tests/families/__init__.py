"""Every architecture that the package names, as a tiny random model."""
