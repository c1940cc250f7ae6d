"""A small share of what `python tests/reliability.py --only server` tries."""

import pytest
import server

ROWS = list(server.rows(0.004))


@pytest.mark.parametrize("row", ROWS, ids=[row.fault for row in ROWS])
def test_nothing_is_lost_and_nobody_reads_a_traceback(row):
    assert row.held, row
