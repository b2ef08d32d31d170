"""Makers of real documents for tests: keys from fixed seeds, trust, small bundles, licenses."""
