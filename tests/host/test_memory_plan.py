"""The Memory Plan node in a real ComfyUI, on the embedded model: it takes seconds there."""

from graphs import node


def graph(**changes) -> dict:
    values = {
        "model": "embedded", "vram": 16.0, "width": 64, "height": 64, "micro_batch": 4, "rank": 8,
        "targets": "all-linear", "group_size": 4, "reward": "clipscore", "offload_rewards": True,
    }  # fmt: skip
    return {"1": node("MemoryPlan", **values | changes)}


def table(server, **changes) -> list[str]:
    return server.wait(server.queue(graph(**changes)))["outputs"]["1"]["text"][0].splitlines()


def test_the_table_has_a_row_for_each_plan_and_says_which_fits(server):
    lines = [line.strip() for line in table(server)]
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| plan", "| ---",
        "| bf16", "| bf16, micro-batch 8", "| bf16, inputs kept",
        "| fp8", "| nf4 (estimate)", "| fp8, micro-batch 8", "| fp8, inputs kept",
        "| fp8 + offload 1", "| fp8 + offload 1, micro-batch 8", "| fp8 + offload 1, micro-batch 8, inputs kept",
    ]  # fmt: skip
    assert 'GiB: bf16 is the fastest that fits (model.memory = "bf16"' in lines[-1]


def test_a_card_that_is_too_small_gets_advice(server):
    lines = table(server, vram=1.0)
    assert "no plan fits" in lines[-1]
    assert "run.micro_batch = 2 (now 4)" in lines[-1]
