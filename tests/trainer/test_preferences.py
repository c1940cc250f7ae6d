"""Text preference and reference similarity: cosines of vectors by OpenCLIP and by transformers' DINOv2."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from small_clip import CLIP_SIZE
from torchvision.transforms.functional import to_pil_image

from trainer.rewards import RewardError, build
from trainer.rewards.text_preference import phrases

MEAN, STD = (
    torch.tensor(v)[:, None, None] for v in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
)


@torch.no_grad()
def picture_vectors(model, images: torch.Tensor) -> torch.Tensor:
    return model.encode_image((images - MEAN) / STD, normalize=True)


@torch.no_grad()
def text_vectors(model, *texts: str) -> torch.Tensor:
    return model.encode_text(SimpleTokenizer()(list(texts)), normalize=True)


def preference(hps_file, **options):
    return build("text-preference", {"path": str(hps_file), **options}, "cpu")


def test_wanted_minus_unwanted_by_their_weights(hps_file, open_clip_model, pictures):
    images = pictures(CLIP_SIZE, CLIP_SIZE)
    reward = preference(hps_file, wanted=["sharp:3", "detailed"], unwanted=["blurry : 0.5", "flat, dull"])
    cosines = (
        picture_vectors(open_clip_model, images)
        @ text_vectors(open_clip_model, "sharp", "detailed", "blurry", "flat, dull").T
    )
    sharp, detailed, blurry, flat = cosines.unbind(1)
    expected = (3 * sharp + detailed) / 4 - (0.5 * blurry + flat) / 1.5
    torch.testing.assert_close(reward.score(images, ["ignored"] * 3), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("side", "sign"), [("wanted", 1), ("unwanted", -1)])
def test_one_side_alone_is_enough(hps_file, open_clip_model, pictures, side, sign):
    images = pictures(CLIP_SIZE, CLIP_SIZE)
    cosine = (picture_vectors(open_clip_model, images) @ text_vectors(open_clip_model, "sharp").T)[:, 0]
    scores = preference(hps_file, **{side: ["sharp"]}).score(images, [""] * 3)
    torch.testing.assert_close(scores, sign * cosine, rtol=0, atol=1e-6)


def test_phrases_are_encoded_once(hps_file, pictures, monkeypatch):
    reward = preference(hps_file, wanted=["crisp"], unwanted=["soft"])
    model = reward.encoder.model
    calls, encode = [], model.get_text_features
    monkeypatch.setattr(model, "get_text_features", lambda **tokens: calls.append(1) or encode(**tokens))
    for prompt in ("a", "b"):
        reward.score(pictures(CLIP_SIZE, CLIP_SIZE), [prompt] * 3)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sharp", ("sharp", 1)),
        (" sharp : 2 ", ("sharp", 2)),
        ("film still: Blade Runner", ("film still: Blade Runner", 1)),
        ("film still: noir:0.5", ("film still: noir", 0.5)),
    ],
)
def test_a_weight_is_a_number_after_the_last_colon(text, expected):
    assert phrases("wanted", [text]) == [expected]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "wanted and unwanted are both empty"),
        ({"wanted": "sharp"}, "wanted must be a list of phrases, got 'sharp'"),
        ({"unwanted": [3]}, r"unwanted must be a list of phrases, got \[3\]"),
        ({"wanted": ["sharp:0"]}, "'sharp:0' must be a phrase, or a phrase and a weight above 0"),
        ({"wanted": ["sharp:-1"]}, "'sharp:-1' must be"),
        ({"wanted": ["  "]}, "'  ' must be a phrase"),
        ({"wanted": [":2"]}, "':2' must be a phrase"),
        ({"wanted": ["sharp:1.2.3"]}, "'1.2.3' in 'sharp:1.2.3' is no number"),
    ],
)
def test_phrases_that_mean_nothing_are_refused(hps_file, options, message):
    with pytest.raises(RewardError, match=message) as caught:
        preference(hps_file, **options)
    assert "\n" not in str(caught.value)


# ---- references


@pytest.fixture
def references(pictures, tmp_path) -> list[str]:
    """Four files of different pictures."""
    files = []
    for n, picture in enumerate(pictures(CLIP_SIZE, CLIP_SIZE, 5)[1:]):
        files.append(str(tmp_path / f"{n}.png"))
        to_pil_image(picture).save(files[-1])
    return files


@pytest.mark.parametrize("compare", ["mean", "best"])
def test_similarity_is_the_mean_or_best_cosine(hps_file, open_clip_model, pictures, references, compare):
    images = pictures(CLIP_SIZE, CLIP_SIZE, 5)
    vectors = picture_vectors(open_clip_model, images)
    cosines = vectors[:3] @ vectors[1:].T  # the references are the last four
    expected = cosines.mean(1) if compare == "mean" else cosines.max(1).values
    options = {"path": str(hps_file), "references": references, "compare": compare}
    scores = build("reference-similarity", options, "cpu").score(images[:3], [""] * 3)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    if compare == "best":
        assert scores[1:].tolist() == pytest.approx([1, 1], abs=1e-6)  # they are among the references


def test_a_folder_is_its_pictures_and_one_file_is_enough(hps_file, pictures, references, tmp_path):
    images = pictures(CLIP_SIZE, CLIP_SIZE)
    (tmp_path / "notes.txt").write_text("no picture", "utf-8")
    (tmp_path / "._0.png").write_text("what macOS leaves on other systems' drives", "utf-8")

    def score(references):
        options = {"path": str(hps_file), "references": references}
        return build("reference-similarity", options, "cpu").score(images, [""] * 3)

    assert torch.equal(score(str(tmp_path)), score(references))
    assert torch.equal(score(references[0]), score(references[:1]))


def test_references_of_any_size_and_with_transparency_are_taken(hps_file, pictures, tmp_path):
    picture = to_pil_image(pictures(90, 60, 1)[0])
    picture.putalpha(0)
    picture.save(tmp_path / "nothing.png")
    to_pil_image(torch.ones(3, 33, 47)).save(tmp_path / "white.png")
    options = {"path": str(hps_file), "references": str(tmp_path), "compare": "mean"}
    reward = build("reference-similarity", options, "cpu")
    torch.testing.assert_close(reward.references[0], reward.references[1], rtol=0, atol=1e-5)


def test_references_move_with_the_model(hps_file, references):
    options = {"path": str(hps_file), "references": references, "dtype": "bfloat16"}
    reward = build("reference-similarity", options, "cpu").to("meta")
    assert {reward.references.device.type, reward.encoder.model.device.type} == {"meta"}


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "dinov2"
    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 70, "patch_size": 14}
    model = Dinov2Model(Dinov2Config(**tower)).eval()
    model.save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_dinov2_compares_class_tokens_prepared_as_its_folder_says(dino, pictures, references):
    from transformers import BitImageProcessor, Dinov2Model

    images = pictures(64, 64)  # no resize, which PIL would round: the crop alone
    options = {"path": str(dino), "references": references[:1]}
    reward = build("reference-similarity", options, "cpu")
    pil = [np.asarray(to_pil_image(image)) for image in images]
    pixels = BitImageProcessor.from_pretrained(dino)(pil, return_tensors="pt")["pixel_values"]
    tokens = Dinov2Model.from_pretrained(dino).eval()(pixel_values=pixels).last_hidden_state[:, 0]
    expected = F.cosine_similarity(tokens, reward.references)
    torch.testing.assert_close(reward.score(images, [""] * 3), expected, rtol=0, atol=1e-6)
    again = build("reference-similarity", options, "cpu")
    assert again.encoder is reward.encoder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"references": "EMPTY"}, r"no pictures \(.png, .* in .*: add one"),
        ({"references": []}, "no pictures"),
        ({"references": "TEXT"}, "notes.txt is no whole PNG, .* file: save it as PNG"),
        ({"references": ["gone.png"]}, "there is no file gone.png"),
        ({"references": "EMPTY", "compare": "worst"}, "compare must be one of mean, best, got 'worst'"),
    ],
)
def test_references_that_are_no_pictures_are_refused(hps_file, tmp_path, options, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture", "utf-8")
    names = {"EMPTY": str(tmp_path / "empty"), "TEXT": str(tmp_path / "notes.txt")}
    if isinstance(options["references"], str):
        options = {**options, "references": names[options["references"]]}
    with pytest.raises(RewardError, match=message) as caught:
        build("reference-similarity", {"path": str(hps_file), **options}, "cpu")
    assert "\n" not in str(caught.value)
