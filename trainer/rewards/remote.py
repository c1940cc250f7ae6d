"""A reward that a reward server scores (`python -m trainer reward-server`, or anything that speaks its protocol)."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import brief
from .base import check_images
from .errors import RewardError, RewardUnavailable, in_words
from .transport import Server, token_in

FORM_BYTES = 2**16  # of a request, beside the pictures and prompts


@dataclass(frozen=True)
class _Offer:
    """What the server says of itself."""

    reward: str
    images: int  # at most in a request
    bytes: int  # at most of a request


class RemoteReward:
    """Sends pictures as they are, float32 in a safetensors file: the scores are those of the reward in this process.

    Nothing is asked before the first score, so a run may begin before its server does.

    Args:
        url: of the server, http://host:port.
        reward: its name there; may be empty if the server has one only.
        token_env: environment variable that holds the server's token; the token itself is stored nowhere.
        timeout: seconds in which a request has to be answered.
        retries: further tries of a request, with growing pauses. After the last the run saves and waits for the server.

    Raises:
        RewardError: an option cannot be used.
    """

    def __init__(self, url: str, *, reward: str = "", token_env: str = "", timeout: float = 120.0, retries: int = 4):
        _require(isinstance(url, str), "url", url, "must be text, http://host:port")
        _require(isinstance(reward, str), "reward", reward, "must be text, the reward's name on the server")
        _require(isinstance(token_env, str), "token_env", token_env, "must be the name of an environment variable")
        _require(_number(timeout) and 0 < timeout <= 86400, "timeout", timeout, "must be above 0 and at most 86400 s")
        _require(type(retries) is int and 0 <= retries <= 100, "retries", retries, "must be between 0 and 100")
        self.reward = reward
        self.server = Server(url, token=token_in(token_env), timeout=float(timeout), retries=retries)
        self._offered: _Offer | None = None

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [N]; NaN if the server's was no finite number.

        Raises:
            RewardError: the server refuses, with its reason.
            RewardUnavailable: it does not answer.
        """
        check_images(images, prompts)
        try:
            offer = self._offered = self._offered or self._ask_offer()
            pixels = images.detach().float().cpu().contiguous()
            texts = max(len(json.dumps(p)) for p in prompts)
            room = (offer.bytes - FORM_BYTES) // (pixels[0].nbytes + texts)
            size = max(1, min(offer.images, room))  # what is too much even alone, the server refuses with its reason
            scores: list[float] = []
            for start in range(0, len(pixels), size):
                part = slice(start, start + size)
                scores += self._score(offer.reward, pixels[part], prompts[part])
        except RewardUnavailable:
            self._offered = None  # another server may come back
            raise
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _score(self, reward: str, images: Tensor, prompts: Sequence[str]) -> list[float]:
        wanted, pictures = json.dumps({"prompts": list(prompts), "rewards": [reward]}), save({"images": images})
        answer = self.server.ask("POST", "/v1/score", lambda: form(wanted, pictures))
        try:
            scores = [_score(value) for value in answer["scores"][reward]]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._no_reward_server(answer) from None
        if len(scores) != len(images):
            raise self._no_reward_server(answer)
        return scores

    def _ask_offer(self) -> _Offer:
        answer = self.server.ask("GET", "/v1/rewards")
        try:
            names = [str(r["name"]) for r in answer["rewards"]]
            images, size = int(answer["limits"]["images"]), int(answer["limits"]["bytes"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._no_reward_server(answer) from None
        has = in_words(", ".join(names[:20]) or "none")
        if not self.reward and len(names) != 1:
            raise RewardError(f"remote reward: {self.server.url} has {has}: name one of them as reward")
        if self.reward and self.reward not in names:
            raise RewardError(f"remote reward: {self.server.url} has no {brief(self.reward)}: it has {has}")
        return _Offer(self.reward or names[0], images, size)

    def _no_reward_server(self, answer: object) -> RewardError:
        return RewardError(f"{self.server.url} is no reward server: it answered {brief(answer)}")


def form(wanted: str, pictures: bytes) -> aiohttp.FormData:
    """The body of a request: JSON, and a safetensors file."""
    parts = aiohttp.FormData()
    parts.add_field("request", wanted, content_type="application/json")
    parts.add_field("images", io.BytesIO(pictures), content_type="application/x-safetensors")
    return parts


def _score(value: object) -> float:
    """NaN for null and for what is no finite number in float32. Raises what `float` does, TypeError for no number."""
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise TypeError
    score = float(value)
    return score if abs(score) <= torch.finfo(torch.float32).max else math.nan


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise RewardError(f"remote reward: {name} = {brief(value)}: {remedy}")
