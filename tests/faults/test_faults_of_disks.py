"""A small share of what `tests/reliability.py` makes disks refuse."""

import disks


def test_a_disk_that_refuses_costs_nothing_and_says_so_in_one_line():
    for row in disks.rows(share=0.05):
        assert row.held, row
