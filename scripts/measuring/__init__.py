"""Simulations with known truth: is what the library says of a decision true as often as it claims?

Each module beside `worlds` and `cell` measures one kind of statement by ``cells(draws, seed)``; the table is made by
``scripts/measure_decisions.py``, and short forms run in the tests.
"""
