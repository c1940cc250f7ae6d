"""A vision language model as a judge, behind any server with OpenAI's chat completions: vLLM, SGLang, llama.cpp, ..."""

import asyncio
import base64
import io
import logging
import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..errors import brief
from .errors import RewardError
from .rating import rating, share
from .transport import Server, json_body, token_in

log = logging.getLogger(__name__)

# the question that UnifiedReward (Wang et al., arXiv 2503.05236) was trained on
UNIFIED_REWARD = """\
You are given a text caption and a generated image based on that caption. \
Your task is to evaluate this image based on two key criteria:
1. Alignment with the Caption: Assess how well this image aligns with the provided caption. \
Consider the accuracy of depicted objects, their relationships, and attributes as described in the caption.
2. Overall Image Quality: Examine the visual quality of this image, including clarity, detail preservation, \
color accuracy, and overall aesthetic appeal.
Extract key elements from the provided text caption, evaluate their presence in the generated image using the format: \
'element (type): value' (where value=0 means not generated, and value=1 means generated), \
and assign a score from 1 to 5 after 'Final Score:'.
Your task is provided as follows:
Text Caption: [{prompt}]"""
FINAL_SCORE = r"Final Score:\s*([-+]?\d+(?:\.\d+)?)"
PROMPT = "{prompt}"
TEMPERATURES = (0.0, 1.0)  # of the first question and of its repetition, which would else get the same answer
ANSWER_TOKENS = 2048


class VlmJudge:
    """The number that a model answers to a question about a picture and its prompt, divided by `scale`: 0 to 1.

    The last match of `pattern` in the answer counts; it may say what the best number is, as in 7/10. The usual
    pattern also finds a score in Markdown or JSON, see `rating`. An answer without one, or with a number below 0 or
    above `scale`, is asked for once more; after that the picture's score is NaN, and its group is left out of the
    training.

    Args:
        url: of the server, http://host:port, with or without /v1.
        model: its name there.
        template: the question; {prompt} stands for the picture's prompt.
        pattern: regular expression with the number as its one group.
        scale: the best number.
        size: pixels of the longest edge of the pictures that are sent.
        concurrency: questions asked at once.
        timeout: seconds in which an answer has to begin.
        retries: further tries if the server is busy or gone, with growing pauses.
        token_env: environment variable that holds the server's token; the token itself is stored nowhere.

    Raises:
        RewardError: an option cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "UnifiedReward",
        template: str = UNIFIED_REWARD,
        pattern: str = FINAL_SCORE,
        scale: float = 5.0,
        size: int = 512,
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 4,
        token_env: str = "",
    ):
        texts = {"url": url, "model": model, "template": template, "pattern": pattern, "token_env": token_env}
        for name, value in texts.items():
            _require(isinstance(value, str), name, value, "must be text")
        _require(PROMPT in template, "template", template[:80], f"must have {PROMPT} where the prompt belongs")
        for name, number, kind, low, high in (
            ("scale", scale, (int, float), 1e-6, 1e6),
            ("size", size, (int,), 16, 4096),
            ("concurrency", concurrency, (int,), 1, 256),
            ("timeout", timeout, (int, float), 0.1, 86400),
            ("retries", retries, (int,), 0, 100),
        ):
            _require(type(number) in kind and low <= number <= high, name, number, f"must be from {low} to {high}")
        self.pattern = _compiled(pattern)
        self.model, self.template, self.scale, self.size = model, template, scale, size
        self.concurrency, self.warned = concurrency, False
        base = url.rstrip("/").removesuffix("/v1")
        self.server = Server(base, token=token_in(token_env), timeout=timeout, retries=retries)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [N], in [0, 1] or NaN. Raises RewardError if the server refuses, RewardUnavailable
        if it does not answer."""
        pictures = [as_data_url(image, self.size) for image in images]
        return torch.tensor(self.server.wait_for(self.judge_all(pictures, prompts)), device=images.device)

    async def judge_all(self, pictures: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Of all, `concurrency` at once. If one fails, the others are left."""
        free = asyncio.Semaphore(self.concurrency)

        async def judge(picture: str, prompt: str) -> float:
            async with free:
                return await self.judge(picture, prompt)

        asked = [asyncio.ensure_future(judge(*pair)) for pair in zip(pictures, prompts, strict=True)]
        try:
            return await asyncio.gather(*asked)
        finally:
            for one in asked:
                one.cancel()

    async def judge(self, picture: str, prompt: str) -> float:
        """Of one picture, as a data URL."""
        question = self.template.replace(PROMPT, prompt)
        for temperature in TEMPERATURES:
            answer = await self.ask(picture, question, temperature)
            score = self.read(answer)
            if math.isfinite(score):
                return score
        if not self.warned:
            self.warned = True
            log.warning("VLM judge: no score from 0 to %g in %r: its picture counts as NaN", self.scale, answer[-200:])
        return math.nan

    def read(self, answer: str) -> float:
        """The score that an answer gives, NaN if it gives none."""
        found = list(self.pattern.finditer(answer))
        if found:
            return share(answer, *found[-1].span(1), self.scale)
        return rating(answer, self.scale) if self.pattern.pattern == FINAL_SCORE else math.nan

    async def ask(self, picture: str, question: str, temperature: float) -> str:
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": temperature,
            "max_tokens": ANSWER_TOKENS,
        }
        answer = await self.server.answer("POST", "/v1/chat/completions", lambda: json_body(request))
        try:
            text = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise RewardError(
                f"VLM judge: {self.server.url} has no chat completions like OpenAI's: it answered {brief(answer)}"
            ) from None
        return text if isinstance(text, str) else ""


def as_data_url(image: Tensor, size: int) -> str:
    """A picture [3, H, W] in [0, 1], its longest edge brought to `size` pixels, as PNG in a data URL."""
    longest = max(image.shape[-2:])
    if longest != size:
        shape = tuple(max(round(n * size / longest), 1) for n in image.shape[-2:])
        image = F.interpolate(image[None], size=shape, mode="bicubic", antialias=True)[0].clamp(0, 1)
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RewardError(f"VLM judge: pattern = {brief(pattern)}: not a regular expression ({error})") from None
    _require(compiled.groups == 1, "pattern", pattern, "must have one group, the number")
    return compiled


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise RewardError(f"VLM judge: {name} = {brief(value)}: {remedy}")
