"""Fleets made to be settled, with a ground truth: see __main__.py."""
