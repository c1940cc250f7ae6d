"""The reward server over real HTTP: the scores it gives, and its settings."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from served import image_file, servers
from server_requests import PNG, TENSORS, pixels

from trainer.errors import ConfigError
from trainer.reward_server.config import ServerSettings, load_server_config
from trainer.rewards import build

serve = pytest.fixture(servers)
PROMPTS = ["red apple on a blue background", "", "zebra " * 500, '\N{SNOWMAN} \u4e2d\u6587 "quotes"\n\x00']


@pytest.fixture(scope="module")
def rewards():
    return {kind: build(kind, {}, "cpu") for kind in ("colourfulness", "jpeg-compressibility", "tiny-clip")}


def close(found, expected) -> None:
    """To 1e-6, or to float32's own rounding where the scores are large."""
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_files_of_8_bits_get_the_score_of_these_8_bits(serve, rewards, kind):
    images = pixels(4, size=(48, 80))
    parts = [("images", f"image/{kind.lower()}", image_file(image, kind)) for image in images]
    answer = serve(rewards).score({"prompts": PROMPTS}, *parts)
    assert answer.status == 200, answer.data
    assert answer.json["scores"].keys() == rewards.keys()
    for name, reward in rewards.items():
        close(answer.json["scores"][name], reward.score(images.float() / 255, PROMPTS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tensor_is_scored_as_it_is(serve, rewards, dtype):
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    file = ("images", TENSORS, save({"images": images}))
    answer = serve(rewards).score({"prompts": PROMPTS, "rewards": ["tiny-clip", "colourfulness"]}, file)
    assert list(answer.json["scores"]) == ["tiny-clip", "colourfulness"]
    for name, scores in answer.json["scores"].items():
        close(scores, rewards[name].score(images.float(), PROMPTS))
    rounded = rewards["tiny-clip"].score((images.float() * 255).round() / 255, PROMPTS)
    assert (torch.tensor(answer.json["scores"]["tiny-clip"]) - rounded).abs().max() > 1e-6


def test_greyscale_and_pictures_of_several_sizes_come_in_one_request(serve, rewards):
    images = [pixels(1, size=size, seed=i)[0] for i, size in enumerate([(64, 64), (32, 80), (64, 64), (1, 1)])]
    files = [("images", PNG, image_file(image)) for image in images]
    files[3] = ("images", PNG, image_file(images[3][:1].expand(3, -1, -1)))
    images[3] = images[3][:1].expand(3, -1, -1)
    answer = serve(rewards).score({"prompts": PROMPTS, "rewards": ["colourfulness"]}, *files)
    alone = torch.cat([rewards["colourfulness"].score(i[None].float() / 255, [""]) for i in images])
    close(answer.json["scores"]["colourfulness"], alone)


def test_a_picture_on_its_side_is_scored_upright(serve, rewards):
    """Next to one of the same file size, which stands."""
    images = pixels(2, size=(48, 80))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    files = [("images", PNG, image_file(images[0], exif=exif)), ("images", PNG, image_file(images[1]))]
    upright = [images[0].rot90(-1, (1, 2)), images[1]]
    answer = serve(rewards).score({"prompts": ["a", "b"], "rewards": ["jpeg-compressibility"]}, *files)
    alone = torch.cat([rewards["jpeg-compressibility"].score(i[None].float() / 255, [""]) for i in upright])
    close(answer.json["scores"]["jpeg-compressibility"], alone)


def test_a_score_that_is_no_number_is_null(serve):
    class Broken:
        def score(self, images, prompts):
            return torch.tensor([float("nan"), float("inf"), 1 / 3])

    parts = [("images", PNG, image_file(image)) for image in pixels(3)]
    answer = serve({"broken": Broken()}).score({"prompts": ["a", "b", "c"]}, *parts)
    assert answer.json["scores"]["broken"] == [None, None, torch.tensor(1 / 3).item()]


def test_rewards_and_health_are_told(serve, rewards):
    served = serve({"a": rewards["colourfulness"]}, max_images=7, max_pixels=100, max_bytes=1000, queue_bytes=1500)
    told = served.request("GET", "/v1/rewards").json
    assert told == {
        "rewards": [{"name": "a", "kind": "test"}],
        "limits": {"images": 7, "pixels": 100, "bytes": 750},
    }
    assert served.request("GET", "/health").json == {"status": "ok", "requests": 0}


def test_each_request_gets_its_own_scores_back(serve, rewards):
    """Requests of several sizes and rewards, scored together."""
    served = serve(rewards, batch_window=0.2, batch_size=64)
    names = list(rewards)

    def ask(seed: int):
        images = pixels(1 + seed % 4, size=((64, 64), (48, 80))[seed % 2], seed=seed)
        prompts, wanted = [f"picture {seed}"] * len(images), [names[seed % 3], names[(seed + 1) % 3]]
        answer = served.score(
            {"prompts": prompts, "rewards": wanted}, *[("images", PNG, image_file(image)) for image in images]
        )
        for name in wanted:
            close(answer.json["scores"][name], rewards[name].score(images.float() / 255, prompts))
        return answer.json["scores"].keys() == set(wanted)

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(ask, range(48)))


# ---- settings

SETTINGS = {
    "no rewards": ("", r"rewards = \[\]: at least one"),
    "unknown section": ("[model]\npath = 'x'", "'model' is no section of a reward server's config"),
    "unknown key": ("[server]\nmax_image = 3", r"'max_image' is no key of \[server\]: did you mean 'max_images'"),
    "unknown kind": ("[[rewards]]\nkind = 'colour'", "is no reward kind: did you mean 'colourfulness'"),
    "twice": ("[[rewards]]\nkind = 'tiny-clip'\n" * 2, r"\['tiny-clip'\]: each reward needs a name of its own"),
    "none": ("[server]\nmax_images = 0", "server.max_images = 0: must be at least 1"),
    "window": ("[server]\nbatch_window = 5", "server.batch_window = 5.0: must be between 0 and 1 second"),
    "contradiction": ("[server]\nqueue_bytes = 9", "queue_bytes = 9: must be at least server.max_bytes = 268435456"),
}


@pytest.mark.parametrize("case", list(SETTINGS))
def test_a_bad_setting_is_one_line_with_the_remedy(tmp_path, case):
    text, message = SETTINGS[case]
    path = tmp_path / "rewards.toml"
    path.write_text(text if "rewards" in text or not text else "[[rewards]]\nkind = 'colourfulness'\n" + text, "utf-8")
    with pytest.raises(ConfigError, match=message):
        load_server_config(path)


def test_a_config_names_rewards_as_a_run_does(tmp_path):
    path = tmp_path / "rewards.toml"
    path.write_text("[[rewards]]\nkind = 'tiny-clip'\nname = 'mine'\nweight = 2\n[server]\nbatch_size = 5\n", "utf-8")
    rewards, settings = load_server_config(path)
    assert [(r.kind, r.label) for r in rewards] == [("tiny-clip", "mine")]
    assert settings == ServerSettings(batch_size=5)
