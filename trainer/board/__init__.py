"""The panel's server: runs over HTTP, under `/neighbor_grpo/v1`, the same inside ComfyUI and outside.

Everything is read from the run folders, so runs of other processes and of days gone by are there as well. A refusal is
`{"error": one sentence}`; 503 comes with Retry-After if another try can help. Live messages are hints: whatever they
tell can be read again.
"""
