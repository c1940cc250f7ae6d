import sys

import pytest
from folders import rows


@pytest.mark.skipif(sys.platform != "linux", reason="pipes, devices and a process's memory are Linux's here")
def test_no_run_folder_and_no_request_harms_the_board():
    found = list(rows(0.005))
    assert len(found) == 4
    assert [row for row in found if not row.held] == []
