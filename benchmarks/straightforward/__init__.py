"""The models as their references write them: what this package's are compared with."""
