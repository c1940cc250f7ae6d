"""PickScore, CLIPScore and the aesthetic score against their definitions by other code, same random weights."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from small_clip import CLIP_SIZE, TEXTS
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer, CLIPTokenizerFast

from trainer.rewards import RewardError, build, weights
from trainer.rewards.clip_files import configuration, transformers_names
from trainer.rewards.clip_tokens import END, MERGES, START, _byte_pairs

HEAD = "sac+logos+ava1-l14-linearMSE.pth"


def as_clip_model(open_clip_model, activation: str) -> CLIPModel:
    tensors = dict(transformers_names(open_clip_model.state_dict()))
    model = CLIPModel(CLIPConfig(**configuration(tensors, activation))).eval()
    model.load_state_dict(tensors)
    return model


@pytest.fixture(scope="module")
def models(open_clip_model, tmp_path_factory):
    """A models/rewards with everything in it, under the names that the rewards look for."""
    folder = tmp_path_factory.mktemp("rewards")
    tensors = {n: t.contiguous() for n, t in transformers_names(open_clip_model.state_dict())}
    torch.save({"state_dict": open_clip_model.state_dict()}, folder / "HPS_v2.1_compressed.pt")
    as_clip_model(open_clip_model, "gelu").save_pretrained(folder / "PickScore_v1")
    save_file(tensors, folder / "clip-vit-large-patch14.safetensors")
    torch.manual_seed(3)
    torch.save(head().state_dict(), folder / HEAD)
    return folder


def head() -> torch.nn.Module:
    """The predictor's own class (christophschuhmann/improved-aesthetic-predictor), narrower where CLIP comes in."""

    class Predictor(torch.nn.Module):
        def __init__(self):
            super().__init__()
            linear, dropout = torch.nn.Linear, torch.nn.Dropout
            self.layers = torch.nn.Sequential(
                linear(48, 1024),
                dropout(0.2),
                linear(1024, 128),
                dropout(0.2),
                linear(128, 64),
                dropout(0.1),
                linear(64, 16),
                linear(16, 1),
            )

    return Predictor().eval()


@pytest.fixture(autouse=True)
def in_models_rewards(models, monkeypatch):
    monkeypatch.setattr(weights, "_folders", [models])


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    """transformers' own, of the vocabulary in the files that it reads."""
    return CLIPTokenizerFast.from_pretrained(MERGES.parent, model_max_length=77)


def test_tokens_are_numbered_as_in_the_vocabulary_of_the_files(tokenizer):
    assert {**_byte_pairs().get_vocab(), "<|startoftext|>": START, "<|endoftext|>": END} == tokenizer.get_vocab()


@torch.no_grad()
def embeddings(model: CLIPModel, tokenizer, images: torch.Tensor, texts: list[str]):
    """Unit vectors and the logits of each pair, by CLIPProcessor and CLIPModel, as PickScore's authors use them."""
    sides = {"size": {"shortest_edge": CLIP_SIZE}, "crop_size": {"height": CLIP_SIZE, "width": CLIP_SIZE}}
    processor = CLIPProcessor(CLIPImageProcessor(**sides), tokenizer)
    pil = [Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()) for image in images]
    inputs = processor(text=texts, images=pil, return_tensors="pt", padding=True, truncation=True, max_length=77)
    output = model(**inputs)
    return output.image_embeds, output.text_embeds, output.logits_per_image.diagonal()


CHOSEN = ["short", "empty", "500 words"]


@pytest.mark.parametrize("chosen", [CHOSEN, ["not Latin", "accents", "short"]])
def test_pickscore_is_clip_processors_and_clip_models(open_clip_model, tokenizer, pictures, chosen):
    images, texts = pictures(CLIP_SIZE, CLIP_SIZE), [TEXTS[name] for name in chosen]
    *_, logits = embeddings(as_clip_model(open_clip_model, "gelu"), tokenizer, images, texts)
    scores = build("pickscore", {}, "cpu").score(images, texts)
    torch.testing.assert_close(scores, logits, rtol=0, atol=1e-5)
    assert scores.std() > 0.1  # of differences a hundred times smaller


def test_pickscore_of_a_file_is_that_of_its_folder(models, pictures):
    images, texts = pictures(CLIP_SIZE, CLIP_SIZE), [TEXTS[name] for name in CHOSEN]
    file = models / "clip-vit-large-patch14.safetensors"  # the same tensors, without a config
    scores = build("pickscore", {"path": str(file)}, "cpu").score(images, texts)
    torch.testing.assert_close(scores, build("pickscore", {}, "cpu").score(images, texts), rtol=0, atol=1e-5)


def test_clipscore_is_a_hundred_cosines_of_a_quick_gelu_model(open_clip_model, tokenizer, pictures):
    images, texts = pictures(CLIP_SIZE, CLIP_SIZE), [TEXTS[name] for name in CHOSEN]
    image, text, _ = embeddings(as_clip_model(open_clip_model, "quick_gelu"), tokenizer, images, texts)
    expected = (100 * F.cosine_similarity(image, text)).clamp(min=0)
    torch.testing.assert_close(build("clipscore", {}, "cpu").score(images, texts), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_aesthetic_score_is_that_of_the_five_layers(open_clip_model, models, tokenizer, pictures):
    images = pictures(CLIP_SIZE, CLIP_SIZE)
    image, *_ = embeddings(as_clip_model(open_clip_model, "quick_gelu"), tokenizer, images, [""] * 3)
    layers = head()
    layers.load_state_dict(torch.load(models / HEAD, weights_only=True))
    expected = layers.layers(image)[:, 0]
    scores = build("aesthetic", {}, "cpu").score(images, ["ignored"] * 3)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_clipscore_and_aesthetic_share_their_clip():
    clipscore, aesthetic = build("clipscore", {}, "cpu"), build("aesthetic", {}, "cpu")
    assert clipscore.encoder is aesthetic.encoder


def test_the_aesthetic_head_moves_with_its_clip():
    reward = build("aesthetic", {"dtype": "bfloat16"}, "cpu").to("meta")
    assert {reward.weight.device.type, reward.bias.device.type, reward.encoder.model.device.type} == {"meta"}


@pytest.mark.parametrize("layers", [(0,), (0, 2, 4, 6, 7)], ids=["one layer", "five layers"])
def test_a_head_for_another_clip_is_refused_with_the_shapes(tmp_path, layers):
    file = tmp_path / "head.safetensors"
    weights = {f"layers.{n}.weight": torch.zeros(1, 768) for n in layers}
    save_file(weights | {f"layers.{n}.bias": torch.zeros(1) for n in layers}, file)
    with pytest.raises(RewardError, match=r"no aesthetic head for vectors of 48 numbers: .*\[1, 768\]"):
        build("aesthetic", {"head": str(file)}, "cpu")


WANTED = {
    "hpsv2.1": ("HPS_v2.1_compressed.pt", "1.97 GB", "Apache-2.0", "xswu/HPSv2"),
    "hpsv2": ("HPS_v2.1_compressed.pt", "1.97 GB", "Apache-2.0", "xswu/HPSv2"),
    "pickscore": ("PickScore_v1", "3.9 GB", "MIT", "yuvalkirstain/PickScore_v1"),
    "clipscore": ("clip-vit-large-patch14", "1.71 GB", "MIT", "openai/clip-vit-large-patch14"),
    "aesthetic": (HEAD, "3.7 MB", "Apache-2.0", "christophschuhmann/improved-aesthetic-predictor"),
    "text-preference": ("clip-vit-large-patch14", "1.71 GB", "MIT", "openai/clip-vit-large-patch14"),
}


@pytest.mark.parametrize("kind", WANTED)
def test_missing_weights_are_named_with_size_licence_source_and_folder(kind, tmp_path, monkeypatch):
    weights.look_in([tmp_path / "rewards", tmp_path / "more"])
    options = {"wanted": ["sharp"]} if kind == "text-preference" else {}
    with pytest.raises(RewardError) as caught:
        build(kind, options, "cpu")
    message = str(caught.value)
    assert [part for part in (*WANTED[kind], str(tmp_path / "rewards")) if part not in message] == []
    assert "\n" not in message


def test_weights_are_found_in_any_of_the_folders_the_first_one_first(models, tmp_path):
    weights.look_in([tmp_path, models])
    assert weights.find("pickscore") == models / "PickScore_v1"
    (tmp_path / "PickScore_v1.safetensors").touch()
    assert weights.find("pickscore") == tmp_path / "PickScore_v1.safetensors"


def test_on_the_command_line_weights_are_looked_for_in_models_rewards(models, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/rewards").symlink_to(models)
    assert weights.find("hpsv2.1").resolve() == models / "HPS_v2.1_compressed.pt"


def test_a_path_that_is_not_there_is_an_error_even_where_known_weights_are(tmp_path):
    with pytest.raises(RewardError, match=r"pickscore: there is no file or folder .*gone"):
        build("pickscore", {"path": str(tmp_path / "gone")}, "cpu")


def test_importing_the_rewards_imports_no_transformers():
    code = "import sys, trainer.rewards.weights; sys.exit('transformers' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_the_benchmark_compares_a_scoring_with_its_bare_model():
    from trainer.benchmarks import reward

    result = reward.measure("", "cpu", batch=1, edge=64, pairs=3)
    assert result["lowest_ratio"] <= result["ratio"] <= result["highest_ratio"]
    assert result["reward_seconds"] > 0
    assert f"ratio {result['ratio']:.3f}" in reward.table(result)
