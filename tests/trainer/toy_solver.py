"""A solver in one file: the midpoint rule, two model calls a step."""


class Midpoint:
    def __call__(self, velocity, x, sigmas, generator=None):
        for s, s_next in zip(sigmas, sigmas[1:], strict=False):
            v, h = velocity(x, s), s_next - s
            x_next = x + h * velocity(x + h / 2 * v, s + h / 2)
            yield x, v, x_next
            x = x_next

    def evaluations(self, steps):
        return 2 * steps
