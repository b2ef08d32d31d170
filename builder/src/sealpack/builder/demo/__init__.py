"""Real models for the demo, the tests and the first hour: made here, downloaded from nowhere.

`models` lists what can be made. MiniLM comes from a Python package that carries its weights, the
digits classifier is trained on the spot, tinylm lies in `data/` beside its training script.
"""
