"""VLM Judge: a vision language model as a reward."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..trainer.errors import brief
from ..trainer.rewards.vlm import FINAL_SCORE, PROMPT, UNIFIED_REWARD
from .newer import rare, searched_by
from .rewards import REWARD_OUTPUT, build, server_inputs
from .wires import CATEGORY


class VlmJudge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NeighborGRPOVlmJudge",
            display_name="VLM Judge",
            category=CATEGORY,
            **searched_by("reward", "unifiedreward"),
            description="A vision language model rates each picture: UnifiedReward, or any model on a server with "
            "OpenAI's chat completions (vLLM, SGLang, llama.cpp, Ollama). 0 to 1.",
            inputs=[
                io.String.Input("url", default="http://127.0.0.1:8000", tooltip="Of the server: http://host:port."),
                io.String.Input("model", default="UnifiedReward", tooltip="The model's name on the server."),
                io.String.Input(
                    "question",
                    multiline=True,
                    default="",
                    placeholder="UnifiedReward's own question",
                    tooltip="What the model is asked of each picture, with the word prompt in braces where the "
                    "picture's prompt belongs. Empty: the question that UnifiedReward was trained on.",
                ),
                io.String.Input(
                    "score_pattern",
                    default=FINAL_SCORE,
                    tooltip="Regular expression that finds the number in the answer, as its one group. The last "
                    "match counts.",
                ),
                io.Float.Input(
                    "best_score",
                    default=5.0,
                    min=0.01,
                    max=1000.0,
                    step=0.01,
                    tooltip="The number for a perfect picture; scores are divided by it. Larger numbers are not "
                    "believed.",
                ),
                *rare(
                    io.Int.Input(
                        "size",
                        default=512,
                        min=64,
                        max=4096,
                        step=8,
                        tooltip="Pixels of the longest edge of the pictures that are sent. Larger shows more and is "
                        "slower.",
                    ),
                    io.Int.Input(
                        "concurrency",
                        default=8,
                        min=1,
                        max=256,
                        tooltip="Questions asked at once. A server that batches is faster with more.",
                    ),
                ),
                *server_inputs("a question"),
            ],
            outputs=[REWARD_OUTPUT],
        )

    @classmethod
    def validate_inputs(cls, question: str) -> bool | str:
        fits = not question.strip() or PROMPT in question
        return fits or f"the question must have {PROMPT} where the prompt belongs, it is {brief(question)}"

    @classmethod
    def execute(
        cls,
        url: str,
        model: str,
        question: str,
        score_pattern: str,
        best_score: float,
        size: int,
        concurrency: int,
        timeout: float,
        token_env: str,
    ) -> io.NodeOutput:
        (named,) = build(
            "vlm-judge",
            url=url.strip(),
            model=model.strip(),
            template=question.strip() or UNIFIED_REWARD,
            pattern=score_pattern,
            scale=best_score,
            size=size,
            concurrency=concurrency,
            timeout=timeout,
            token_env=token_env.strip(),
        )
        return io.NodeOutput((replace(named, settings=replace(named.settings, name=model.strip())),))
