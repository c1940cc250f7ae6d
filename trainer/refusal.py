"""A request that is not answered with what it asks for."""


class Refused(Exception):
    """An answer of `status` with the reason, in one sentence; `retry_after` seconds where another try can help."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None):
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
