"""A small share of the damage that `tests/reliability.py` does to checkpoints."""

import checkpoints


def test_no_changed_byte_goes_unnoticed_or_costs_the_run():
    for row in checkpoints.rows(share=0.02):
        assert row.held, row
