"""A user's own reward that sends its process a signal."""

import os
import signal


class Sender:
    """A reward that sends this process a signal in its sixth iteration."""

    number = signal.SIGINT

    def __init__(self, device):
        self.calls = 0

    def score(self, images, prompts):
        if self.calls == 5:
            os.kill(os.getpid(), Sender.number)
        self.calls += 1
        return images.mean((1, 2, 3))
