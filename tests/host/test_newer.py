"""What only newer hosts know of the nodes: inputs behind "Show advanced inputs", and words for the search."""

import re

import make_locale
import pytest

SEARCHED = {"NeighborGRPOTrain", "NeighborGRPOStep", "NeighborGRPOLoadPolicy"}
SHOWN = {  # what a first user looks for
    "NeighborGRPOLoadPolicy": "model folder rank alpha targets start_from guidance precision seed",
    "NeighborGRPONoiseNeighborhood": "seed strength group_size width height",
    "NeighborGRPOSaveLora": "lora name overwrite",
}


@pytest.fixture(scope="module")
def everything(server):
    return server.get("/object_info")


@pytest.fixture(scope="module")
def nodes(everything):
    return make_locale.ours(everything)


def advanced(info) -> set[str]:
    return {name for name, (_, options, _) in make_locale.inputs(info).items() if options.get("advanced")}


def test_rare_inputs_wait_behind_a_button_and_others_do_not(server, nodes):
    version = server.get("/system_stats")["system"]["comfyui_version"]
    if [int(number) for number in re.findall(r"\d+", version)[:2]] < [0, 10]:
        pytest.skip(f"ComfyUI {version} knows no advanced inputs")
    for name, shown in SHOWN.items():
        assert make_locale.inputs(nodes[name]).keys() - advanced(nodes[name]) == set(shown.split())


def test_few_words_find_our_nodes(everything, nodes):
    if not any(info.get("search_aliases") for info in everything.values()):
        pytest.skip("this ComfyUI knows no words for its search")
    words = {name: info.get("search_aliases") or [] for name, info in nodes.items()}
    assert {name for name, found in words.items() if "rlhf" in found} == SEARCHED
    assert not [name for name, found in words.items() if len(found) > 4]
    repeated = {
        name: set(re.split(r"\W+", nodes[name]["display_name"].lower())) & set(found) for name, found in words.items()
    }
    assert not {name: again for name, again in repeated.items() if again}
