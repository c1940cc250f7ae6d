"""A user's own reward in one file: how green a picture is, without the red."""


class Green:
    def __init__(self, device, most=1.0):
        self.most = most

    def score(self, images, prompts):
        return (images[:, 1] - images[:, 0]).mean((1, 2)).clamp(max=self.most)
