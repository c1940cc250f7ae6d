"""A small share of the ends that `tests/reliability.py` brings to runs."""

import ends


def test_whatever_ends_a_run_keeps_every_iteration_that_was_done():
    for row in ends.rows(share=0.05):
        assert row.held, row
