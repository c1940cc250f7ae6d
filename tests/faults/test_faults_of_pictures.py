"""A small share of the damaged pictures of `tests/reliability.py`."""

import pictures


def test_a_damaged_picture_is_read_or_refused_in_one_line_within_bounds():
    for row in pictures.rows(share=0.01):
        assert row.held, row
