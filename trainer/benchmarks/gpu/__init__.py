"""`python -m trainer bench gpu`: one command that proves the GPU path on the card at hand, on random weights.

    table.py    the checks: number, name, seconds, what is expected
    harness.py  runs them, each in its own try, and rewrites the file of results after each
    bench.py    what every check is given: the card, the sizes, the plans' counts, loaded models
    card.py     what is asked of the device
    models.py   random weights at any size, put in their places by the loader's own `put`
    counts.py   the planner's counts, made here or read from files

The other files hold the checks. A check is a generator of values; what it needs of a run it takes from the run's own
functions.
"""
