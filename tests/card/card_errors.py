"""Errors within a backward pass: they are kept until it ends.

An exception that leaves an operation of a backend in Python while autograd runs ends the process (the guard of its
device is asked in a destructor, with Python's error set). So the pass goes on with the CPU's numbers, and raises then.
"""

import functools

import torch

pending: list[Exception] = []


def fail(error: Exception) -> None:
    """Raise `error`, at once or at the end of the backward pass that is under way."""
    if torch._C._current_graph_task_id() == -1:
        raise error
    pending.append(error)


def _raising(backward):
    @functools.wraps(backward)
    def run(*args, **kwargs):
        result = backward(*args, **kwargs)
        if pending and torch._C._current_graph_task_id() == -1:
            first = pending[0]
            pending.clear()
            raise first
        return result

    return run


torch.autograd._engine_run_backward = torch.autograd.graph._engine_run_backward = _raising(
    torch.autograd.graph._engine_run_backward
)
