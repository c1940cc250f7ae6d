"""ImageReward against an independent evaluation of its definition, on random weights in the original's names.

The model code of image-reward 1.5 itself, run once with stand-ins for the libraries it no longer finds, has the layout
of `blip_reference.layout` and gives the same scores: at full size and at the size used here the largest difference to
ours was 0.0 (transformers 4.50.3 and 5.24) and to the reference 9e-7.
"""

import re

import blip_reference
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from trainer.rewards import RewardError, build
from trainer.rewards.image_reward import Blip, ImageReward, configuration, renamed
from trainer.rewards.preprocess import Preprocess

FULL = (1024, 24, 768, 12, 30524)
SIZE = 48  # pixels
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "red", "green", "app", "##le", "on", "blue", ",", "cafe", "##s", "猫"]
SMALL = (128, 2, 64, 2, len(WORDS) + 2)  # [DEC] and [ENC] come on top
PROMPTS = ["a red apple", "Green, on BLUE", ""]
TOKENS = [[2, 5, 6, 8, 9, 3], [2, 7, 12, 10, 11, 3], [2, 3]]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return blip_reference.random_tensors(blip_reference.layout(*SMALL, positions=40, size=SIZE))


@pytest.fixture
def file(tensors, tmp_path):
    """A small ImageReward.pt with its vocabulary beside it."""
    torch.save(tensors, tmp_path / "ImageReward.pt")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return tmp_path / "ImageReward.pt"


@pytest.fixture
def reward(file) -> ImageReward:
    return build("imagereward", {"path": str(file)}, "cpu")


def pictures(width: int = SIZE, height: int = SIZE) -> torch.Tensor:
    """Three smooth random pictures of 8 bits, [3, 3, height, width] in [0, 1]."""
    rough = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(width * height))
    return (F.interpolate(rough, size=(height, width), mode="bicubic").clamp(0, 1) * 255).round() / 255


def by_definition(tensors, images: torch.Tensor, tokens: list[list[int]]) -> torch.Tensor:
    longest = max(map(len, tokens))
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in tokens])
    padded = torch.tensor([t + [0] * (longest - len(t)) for t in tokens])
    return blip_reference.score(tensors, torchvision_preprocess(images), padded, mask)


def torchvision_preprocess(images: torch.Tensor, size: int = SIZE) -> torch.Tensor:
    """The transform of image-reward, on PIL pictures."""
    pil = [Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()) for image in images]
    transform = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    return torch.stack([transform(picture) for picture in pil])


def test_scores_are_those_of_the_definition(reward, tensors):
    images = pictures()
    expected = by_definition(tensors, images, TOKENS)
    assert expected.std() > 0.1  # prompts and pictures matter
    torch.testing.assert_close(reward.score(images, PROMPTS), expected, rtol=0, atol=1e-5)
    turned = reward.score(images.flip(0), PROMPTS)
    torch.testing.assert_close(turned, by_definition(tensors, images.flip(0), TOKENS), rtol=0, atol=1e-5)
    assert (turned - expected).abs().max() > 0.05


def test_a_picture_scores_the_same_alone_as_among_longer_prompts(reward):
    images = pictures()
    together = reward.score(images, PROMPTS)
    alone = [reward.score(images[i : i + 1], [prompt]).item() for i, prompt in enumerate(PROMPTS)]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("a " * 500, [2, *[5] * 33, 3]),  # cut after 35 tokens, the end kept
        ("Cafés", [2, 13, 14, 3]),  # accents are dropped
        ("猫猫 green", [2, 15, 15, 7, 3]),  # each ideograph is a word
        ("🦓 zebra", [2, 1, 1, 3]),
        ("a\nred\tapple", [2, 5, 6, 8, 9, 3]),
        ("[ENC] red [DEC]", [2, 17, 6, 16, 3]),
    ],
)
def test_prompts_of_any_kind_are_split_as_bert_does(reward, tensors, prompt, tokens):
    images = pictures()[:1]
    expected = by_definition(tensors, images, [tokens])
    torch.testing.assert_close(reward.score(images, [prompt]), expected, rtol=0, atol=1e-5)


def test_every_tensor_of_the_original_is_used_or_known_to_be_idle():
    """At full size, with nothing allocated."""
    shapes = blip_reference.layout(*FULL)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    assert len(tensors) == 625
    parameters = {name: t for name, t in tensors.items() if not name.endswith("position_ids")}
    assert sum(t.numel() for t in parameters.values()) == 446_665_953

    ours = dict(renamed(tensors))
    idle = {"vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias"}
    assert len(ours) == len(parameters) - len(idle)
    with torch.device("meta"):
        model = Blip(*configuration(ours))
    model.load_state_dict(ours, assign=True)  # strict: none missing, none left over, every shape right
    left_out = sum(parameters[f"blip.{name}"].numel() for name in idle)
    assert sum(p.numel() for p in model.parameters()) == 446_665_953 - left_out
    assert model.vision.config.num_attention_heads == 16
    assert model.text.config.num_attention_heads == 12
    assert model.size == 224


# no resize, a crop of 1 and of 3 pixels, wide and tall; the others are shrunk or enlarged, some to an odd length
EXACT = [(48, 48), (49, 48), (48, 51), (96, 48), (48, 53)]
RESIZED = [(96, 96), (128, 96), (97, 64), (30, 40), (333, 200)]


@pytest.mark.parametrize(("width", "height"), EXACT + RESIZED)
def test_preprocessing_agrees_with_the_originals_on_pil_pictures(width, height):
    """It rounds to 8 bits after each pass of a resize; one of 255 levels is 0.015 here. Measured: at most 0.018 where
    pictures are shrunk, 0.06 where they are enlarged, 2e-7 where they are only cropped."""
    images = pictures(width, height)
    tolerance = 1e-6 if (width, height) in EXACT else 0.1 if min(width, height) < SIZE else 0.02
    torch.testing.assert_close(
        Preprocess(SIZE, centred_by_rounding=True)(images), torchvision_preprocess(images), rtol=0, atol=tolerance
    )


def test_the_model_is_frozen_and_its_scores_carry_no_gradient(reward):
    assert not reward.score(pictures().requires_grad_(), PROMPTS).requires_grad
    assert not any(p.requires_grad for p in reward.model.parameters())
    assert not any(module.training for module in reward.model.modules())


def test_dtype_is_of_the_model_and_scores_stay_float32(file, reward):
    half = build("imagereward", {"path": str(file), "dtype": "bfloat16"}, "cpu")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    scores, exact = half.score(pictures(), PROMPTS), reward.score(pictures(), PROMPTS)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, exact)
    torch.testing.assert_close(scores, exact, rtol=0.1, atol=0.1)
    with pytest.raises(RewardError, match="dtype must be one of auto, float32, bfloat16, float16, got 'int8'"):
        build("imagereward", {"path": str(file), "dtype": "int8"}, "cpu")


def test_it_moves_off_its_device(reward):
    assert reward.to("meta") is reward
    tensors = [*reward.model.parameters(), *reward.model.buffers()]
    assert {t.device.type for t in tensors} == {"meta"}


def test_a_safetensors_file_and_a_vocabulary_in_its_own_folder_do_too(file, tensors, reward, tmp_path):
    save_file({name: t.clone() for name, t in tensors.items()}, tmp_path / "ImageReward.safetensors")
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "vocab.txt").rename(tmp_path / "bert-base-uncased" / "vocab.txt")
    again = build("imagereward", {"path": str(tmp_path / "ImageReward.safetensors")}, "cpu")
    torch.testing.assert_close(again.score(pictures(), PROMPTS), reward.score(pictures(), PROMPTS), rtol=0, atol=1e-6)


def test_without_a_path_the_usual_folder_is_searched(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        RewardError, match=re.escape("ImageReward.pt is missing (1.79 GB, licence Apache-2.0)")
    ) as error:
        build("imagereward", {}, "cpu")
    assert "huggingface.co/THUDM/ImageReward" in str(error.value)
    assert str(error.value).endswith(str(tmp_path / "models" / "rewards"))
    (tmp_path / "models" / "rewards").mkdir(parents=True)
    for path in (file, tmp_path / "vocab.txt"):
        path.rename(tmp_path / "models" / "rewards" / path.name)
    assert build("imagereward", {}, "cpu").score(pictures(), PROMPTS).isfinite().all()


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(RewardError, match=r"there is no file or folder nowhere\.pt: correct the path"):
        build("imagereward", {"path": "nowhere.pt"}, "cpu")


def test_a_missing_vocabulary_is_asked_for(file):
    (file.parent / "vocab.txt").unlink()
    with pytest.raises(RewardError, match=r"vocab.txt is missing \(232 kB, licence Apache-2.0\): .*bert-base-uncased"):
        build("imagereward", {"path": str(file)}, "cpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (WORDS[:-1], f"has {len(WORDS) - 1} words, ImageReward.pt needs {len(WORDS)}"),
        (["a", "b"], "is no vocabulary of BERT"),
        ([], "is no vocabulary of BERT"),
    ],
)
def test_another_vocabulary_is_refused(file, words, message):
    (file.parent / "vocab.txt").write_text("\n".join(words), "utf-8")
    with pytest.raises(RewardError, match=message) as caught:
        build("imagereward", {"path": str(file)}, "cpu")
    assert "\n" not in str(caught.value)


class Foreign:
    """What a checkpoint of tensors never holds."""


def content(kind: str, tensors: dict[str, torch.Tensor], path) -> bytes:
    """What may stand in the place of ImageReward.pt."""
    whole = path.read_bytes()
    if kind == "cut short":
        return whole[: len(whole) // 2]
    changed = {
        "code": {**tensors, "extra": Foreign()},
        "a tensor too few": {k: v for k, v in tensors.items() if k != "mlp.layers.7.bias"},
        "a tensor too many": {**tensors, "mlp.layers.8.bias": torch.zeros(1)},
        "a wrong shape": {**tensors, "mlp.layers.7.weight": torch.zeros(2, 16)},
        "another model": {"model.diffusion_model.out.0.bias": torch.zeros(4)},
        "a list": [torch.zeros(1)],
    }
    torch.save(changed[kind], path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut short", "is damaged or no file of weights"),
        ("code", "holds more than tensors, which is not loaded"),
        ("a tensor too few", r"is not ImageReward 1.0 in its original form .*head.7.bias"),
        ("a tensor too many", r"is not ImageReward 1.0 in its original form .*head.8.bias"),
        ("a wrong shape", "is not ImageReward 1.0 in its original form .*head.7"),
        ("another model", "is not ImageReward 1.0 in its original form"),
        ("a list", "holds no tensors"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_sentence(file, tensors, kind, message):
    file.write_bytes(content(kind, tensors, file))
    with pytest.raises(RewardError, match=message) as caught:
        build("imagereward", {"path": str(file)}, "cpu")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_safetensors_file_is_one_sentence(file):
    damaged = file.with_suffix(".safetensors")
    damaged.write_bytes(b"not a safetensors file")
    with pytest.raises(RewardError, match="is damaged or no file of weights"):
        build("imagereward", {"path": str(damaged)}, "cpu")
