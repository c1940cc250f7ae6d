"""HPSv2.1 against the `hpsv2` package's own model and transform, same random weights at reduced width, float32.

The package resizes floating point pictures with torch, so there is no difference of PIL's to state: its pixels and
ours are equal to the bit.
"""

import sys

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from small_clip import CLIP_SETTINGS, CLIP_SIZE, TEXTS
from torchvision.transforms.functional import to_pil_image

from trainer.rewards import RewardError, build
from trainer.rewards.hpsv2_package import load_package

# width and height: square, wide, tall, smaller, one whose short edge is rounded, odd ones, and the model's own
SIZES = [(128, 128), (160, 96), (96, 160), (33, 20), (170, 101), (101, 170), (57, 41), (56, 56)]


@pytest.fixture(scope="module")
def package():
    return load_package()


@pytest.fixture(scope="module")
def theirs(package, open_clip_model):
    """Score of a PIL picture and a text, as `hpsv2.img_score` computes it, and the pixels on the way."""
    model = package.CLIP(**CLIP_SETTINGS, output_dict=True).eval()
    model.load_state_dict(open_clip_model.state_dict())
    transform = package.image_transform(CLIP_SIZE, is_train=False, resize_longest_max=True)

    @torch.no_grad()
    def score(picture, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = transform(picture)[None]
        outputs = model(pixels, SimpleTokenizer()([text]))
        return (outputs["image_features"] @ outputs["text_features"].T).diagonal()[0], pixels[0]

    return score


@pytest.mark.parametrize("kind", ["hpsv2.1", "hpsv2"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_scores_are_the_packages_own(theirs, hps_file, pictures, kind, width, height):
    images, texts = pictures(width, height), list(TEXTS.values())[:3]
    reward = build(kind, {"path": str(hps_file)}, "cpu")
    expected = [theirs(to_pil_image(i), t) for i, t in zip(images, texts, strict=True)]
    scores = reward.score(images, texts)
    torch.testing.assert_close(scores, torch.stack([s for s, _ in expected]), rtol=0, atol=1e-6)
    if kind == "hpsv2.1":
        assert torch.equal(reward.preprocess(images), torch.stack([pixels for _, pixels in expected]))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("kind", ["hpsv2.1", "hpsv2"])
def test_any_text_scores_as_in_the_package(theirs, hps_file, pictures, kind, text):
    image = pictures(64, 64, 1)
    score = build(kind, {"path": str(hps_file)}, "cpu").score(image, [text])
    assert score.item() == pytest.approx(theirs(to_pil_image(image[0]), text)[0].item(), abs=1e-6)


def test_a_letterbox_is_filled_with_black_and_nothing_is_cut_off(hps_file):
    """The trap: a centre crop, which HPSv2 does not do, sees nothing of what is at the ends of a wide picture."""
    wide = torch.zeros(2, 3, 64, 192)
    wide[1, :, :, :32] = 1  # white at the left end
    pixels = build("hpsv2.1", {"path": str(hps_file)}, "cpu").preprocess(wide)
    assert not torch.equal(pixels[0], pixels[1])
    black = pixels[0, :, 0, 0]
    assert torch.equal(pixels[1, :, 0], black[:, None].expand(-1, CLIP_SIZE))


def test_a_picture_as_long_as_the_model_is_wide_is_still_padded(hps_file, pictures):
    """The package's transform forgets to, and its model then fails."""
    reward = build("hpsv2.1", {"path": str(hps_file)}, "cpu")
    assert reward.preprocess(pictures(CLIP_SIZE, 30)).shape == (3, 3, CLIP_SIZE, CLIP_SIZE)


def test_the_package_is_imported_without_what_it_needs_not(package):
    assert not {"clint", "turtle"} & {n for n, m in sys.modules.items() if getattr(m, "__file__", None) is None}
    assert package.CLIP.__module__ == "hpsv2.src.open_clip.model"


def test_without_the_package_the_error_names_the_way_out(hps_file, monkeypatch):
    monkeypatch.setattr("trainer.rewards.hpsv2_package.find_spec", lambda name: None if name == "hpsv2" else 1)
    with pytest.raises(RewardError, match="not installed: run `pip install --no-deps hpsv2"):
        build("hpsv2", {"path": str(hps_file)}, "cpu")


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save({"state_dict": {"visual.conv1.weight": torch.zeros(2, 3, 4, 4)}}, tmp_path / "other.pt")
    with pytest.raises(RewardError, match=r"hpsv2: .*other.pt does not fit the package's model"):
        build("hpsv2", {"path": str(tmp_path / "other.pt")}, "cpu")
