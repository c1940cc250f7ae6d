"""Remote Reward: scores of a reward server."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from .newer import searched_by
from .rewards import REWARD_OUTPUT, build, server_inputs
from .wires import CATEGORY


class RemoteReward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPORemoteReward",
            display_name="Remote Reward",
            category=CATEGORY,
            **searched_by("reward server"),
            description="A reward that another process or machine scores (python -m trainer reward-server). When it is "
            "gone, the training saves and waits for it.",
            inputs=[
                io.String.Input("url", default="http://127.0.0.1:8190", tooltip="Of the server: http://host:port."),
                io.String.Input(
                    "reward_name",
                    default="",
                    tooltip="Which of the server's rewards; may be empty if it has one only.",
                ),
                *server_inputs("a request"),
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, url: str) -> bool | str:
        from ..trainer.rewards import RewardError
        from ..trainer.rewards.transport import check_url

        try:
            check_url(url.strip())
        except RewardError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, url: str, reward_name: str, timeout: float, token_env: str) -> io.NodeOutput:
        name = reward_name.strip()
        (named,) = build("remote", url=url.strip(), reward=name, timeout=timeout, token_env=token_env.strip())
        return io.NodeOutput((replace(named, settings=replace(named.settings, name=name)),))
