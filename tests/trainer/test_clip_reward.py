"""The CLIP reward against transformers' own processor and model, on random weights.

The processor (PIL's or torchvision's) rounds to 8 bits and clamps after each of its two resize passes; the reward
resizes in float32 and clamps once. Measured, in normalised pixels, where one of 255 levels is 1 / 255 / .27 = 0.015:
pictures that need no resize agree to 2e-7 and their cosines to 7e-8; shrunk ones differ by at most 0.017, enlarged ones
by 0.09 (the overshoot at the clamp), and their cosines by 5e-4, where the cosines of different pictures spread by 1e-2.
"""

import json
import re
import shutil

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from trainer import tiny
from trainer.rewards import RewardError, build
from trainer.rewards.clip import ClipReward
from trainer.rewards.clip_kinds import clip

SIZE, LENGTH = 32, 77  # pixels, tokens
PROMPTS = ["red apple on a blue background", "zebra", "green tree"]
# width and height: same, larger, wide, tall, smaller than the model's, and sizes whose long edge would be rounded up
SIZES = [(32, 32), (64, 64), (96, 48), (48, 96), (24, 40), (82, 48), (48, 82), (127, 64)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIPModel folder of random weights in the layout of openai's."""
    torch.manual_seed(0)
    path, tokenizer = tmp_path_factory.mktemp("models") / "clip", CLIPTokenizer.from_pretrained(tiny.FLUX / "tokenizer")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = {**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
    vision = {**tower, "image_size": SIZE, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32, logit_scale_init_value=3.0)
    CLIPModel(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(path)
    return path


@pytest.fixture
def reward(folder) -> ClipReward:
    return clip("cpu", folder)


def pictures(width: int, height: int) -> torch.Tensor:
    """Three smooth random pictures of 8 bits, [3, 3, height, width] in [0, 1]."""
    rough = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(width * height))
    return (F.interpolate(rough, size=(height, width), mode="bicubic").clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def by_transformers(folder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixel values, cosines and logits of each picture and its prompt, by CLIPProcessor and CLIPModel."""
    processor = CLIPProcessor(CLIPImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
    pil = [Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()) for image in images]
    inputs = processor(text=PROMPTS, images=pil, return_tensors="pt", padding=True)
    output = CLIPModel.from_pretrained(folder).eval()(**inputs)
    cosine = F.cosine_similarity(output.image_embeds, output.text_embeds)
    return inputs["pixel_values"], cosine, output.logits_per_image.diagonal()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_scores_agree_with_transformers_on_pictures_of_any_shape(reward, folder, width, height):
    images = pictures(width, height)
    pixels, cosine, _ = by_transformers(folder, images)
    exact = (width, height) == (SIZE, SIZE)
    enlarged = min(width, height) < SIZE
    torch.testing.assert_close(
        reward.preprocess(images), pixels, rtol=0, atol=1e-6 if exact else 0.1 if enlarged else 0.02
    )
    torch.testing.assert_close(reward.score(images, PROMPTS), cosine, rtol=0, atol=1e-6 if exact else 1e-3)


def test_logit_scale_multiplies_the_cosine(folder):
    images = pictures(SIZE, SIZE)
    _, cosine, logits = by_transformers(folder, images)
    scaled = clip("cpu", folder, scale="logit").score(images, PROMPTS)
    torch.testing.assert_close(scaled, logits, rtol=1e-5, atol=1e-5)
    assert (scaled / cosine).tolist() == pytest.approx([20.0855] * 3, rel=1e-3)  # exp(3)


def test_percent_is_a_hundredfold_cosine_and_never_below_zero():
    class Angles:
        """Vectors at 60, 90 and 120 degrees to every text's."""

        logit_scale = 7.0

        def images(self, pixels):
            return torch.tensor([[0.5, 3**0.5 / 2], [0, 1], [-0.5, 3**0.5 / 2]])

        def texts(self, texts):
            return torch.tensor([[1.0, 0]]).expand(3, -1)

    scores = ClipReward(Angles(), lambda images: images, "percent").score(pictures(SIZE, SIZE), PROMPTS)
    assert scores.tolist() == pytest.approx([50, 0, 0], abs=1e-5)


def test_the_text_that_came_first_is_forgotten_first(reward, monkeypatch):
    monkeypatch.setattr("trainer.rewards.clip.KNOWN", 3)
    reward.encoder.known.clear()
    vectors = reward.encoder.texts(["a", "b", "c", "d", "a", "e"])
    assert list(reward.encoder.known) == ["d", "a", "e"]
    assert torch.equal(vectors[0], vectors[4])


def test_a_prompt_is_encoded_once(reward, monkeypatch):
    model = reward.encoder.model
    reward.encoder.known.clear()
    calls, encode = [], model.get_text_features
    monkeypatch.setattr(model, "get_text_features", lambda **tokens: calls.append(1) or encode(**tokens))
    images = pictures(SIZE, SIZE)
    first = reward.score(images, ["zebra", "green tree", "zebra"])
    again = reward.score(images, ["zebra", "green tree", "zebra"])
    assert len(calls) == 2
    assert torch.equal(first, again)
    alone = [reward.score(images[i : i + 1], [p]).item() for i, p in enumerate(["zebra", "green tree", "zebra"])]
    assert first.tolist() == pytest.approx(alone, abs=1e-6)


@torch.no_grad()
def test_a_prompt_beyond_the_models_context_is_cut(reward, folder):
    long = "red apple " * 200
    tokens = CLIPTokenizer.from_pretrained(folder)(long, truncation=True, max_length=LENGTH, return_tensors="pt")
    output = CLIPModel.from_pretrained(folder).eval().get_text_features(**tokens)
    expected = F.normalize(getattr(output, "pooler_output", output), dim=-1)
    torch.testing.assert_close(reward.encoder.texts([long]), expected)


def test_the_model_is_frozen_and_its_scores_carry_no_gradient(reward):
    images = pictures(SIZE, SIZE).requires_grad_()
    assert not reward.score(images, PROMPTS).requires_grad
    assert not any(p.requires_grad for p in reward.encoder.model.parameters())


def test_a_reward_moves_with_its_model_and_the_prompts_it_knows(folder):
    reward = clip("cpu", folder, dtype="bfloat16")  # a model of its own: this one does not come back
    reward.score(pictures(SIZE, SIZE), PROMPTS)
    assert reward.to("meta") is reward
    moved = [*reward.encoder.model.parameters(), *reward.encoder.known.values()]
    assert len(reward.encoder.known) == 3
    assert {tensor.device.type for tensor in moved} == {"meta"}


def test_scores_are_where_the_pictures_are_and_in_float32(folder):
    half = clip("cpu", folder, dtype="bfloat16")
    scores = half.score(pictures(SIZE, SIZE), PROMPTS)
    assert scores.dtype == torch.float32
    assert half.encoder.model.dtype == torch.bfloat16
    exact = clip("cpu", folder).score(pictures(SIZE, SIZE), PROMPTS)
    assert 0 < (scores - exact).abs().max() < 0.02


def test_two_rewards_share_one_model_as_long_as_one_of_them_lives(folder):
    first, second = clip("cpu", folder), clip("cpu", folder, scale="logit")
    assert first.encoder is second.encoder
    assert clip("cpu", folder, dtype="float16").encoder is not first.encoder


def test_the_preprocessor_file_decides_mean_and_standard_deviation(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    settings |= {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 1.0, 2.0], "size": SIZE, "crop_size": SIZE}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings), "utf-8")
    values = clip("cpu", tmp_path).preprocess(torch.full((1, 3, 2 * SIZE, SIZE), 0.6))
    assert values.shape == (1, 3, SIZE, SIZE)
    assert values[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.4, 0.15], abs=1e-6)


def test_a_folder_saved_by_the_newest_processor_is_read_too(folder, tmp_path):
    """transformers 5 keeps the image processor's settings inside processor_config.json."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text("utf-8"))
    (tmp_path / "preprocessor_config.json").unlink()
    nested = {"processor_class": "CLIPProcessor", "image_processor": settings}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested), "utf-8")
    assert clip("cpu", tmp_path).preprocess == clip("cpu", folder).preprocess


MISSING = {
    "config.json": "has a vocabulary of 1016, CLIP's has 49408: it needs a folder with config.json",
    "preprocessor_config.json": "is not a CLIPModel folder, preprocessor_config.json is missing",
    "tokenizer_config.json": "has a vocabulary of 1016, .* needs a folder with config.json and tokenizer_config.json",
    "model.safetensors": "does not load",
}


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_file_is_named(folder, tmp_path, missing):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(missing))
    with pytest.raises(RewardError, match=MISSING[missing]) as caught:
        build("clip", {"path": tmp_path}, "cpu")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_weight_file_is_one_line_and_no_trace_of_a_library(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(RewardError, match="does not load") as caught:
        build("clip", {"path": tmp_path}, "cpu")
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_a_tensor_is_not_filled_with_random_ones(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RewardError, match=re.escape("lacks 1 tensors, such as visual_projection.weight")):
        build("clip", {"path": tmp_path}, "cpu")


def test_an_unknown_scale_is_refused_with_the_choices(folder):
    with pytest.raises(RewardError, match="scale must be one of cosine, logit, percent, got 'dot'"):
        build("clip", {"path": folder, "scale": "dot"}, "cpu")


@pytest.mark.parametrize("scale", ["cosine", "logit"])
def test_it_moves_to_another_device_with_all_that_it_keeps(folder, scale):
    reward = build("clip", {"path": folder, "scale": scale}, "cpu")
    reward.score(torch.rand(1, 3, SIZE, SIZE), PROMPTS[:1])  # keeps the prompt's features
    assert reward.to("meta") is reward
    scores = reward.score(torch.rand(2, 3, 40, SIZE, device="meta"), [PROMPTS[0]] * 2)  # raises where a part stayed
    assert (scores.device.type, scores.shape) == ("meta", (2,))


def test_an_unknown_dtype_is_refused_with_the_choices(folder):
    with pytest.raises(RewardError, match="dtype must be one of auto, float32, bfloat16, float16, got 'fp8'"):
        build("clip", {"path": folder, "dtype": "fp8"}, "cpu")
