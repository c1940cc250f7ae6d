"""CLIPs in the files that people have: loaded alike, and refused in one line where they are no whole CLIP."""

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file
from small_clip import CLIP_SIZE, TEXTS, small_clip
from transformers import CLIPConfig, CLIPModel

from trainer.rewards import RewardError
from trainer.rewards.clip import load_encoder
from trainer.rewards.clip_files import configuration, read_clip, transformers_names

PIXELS = torch.randn(2, 3, CLIP_SIZE, CLIP_SIZE, generator=torch.Generator().manual_seed(5))


def in_transformers_names(model) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in transformers_names(model.state_dict())}


@pytest.fixture
def write(open_clip_model, tmp_path):
    """The same model in one of the layouts that people have."""

    def write(layout: str):
        tensors = open_clip_model.state_dict()
        renamed = in_transformers_names(open_clip_model)
        path = tmp_path / layout
        if layout == "state_dict.pt":
            torch.save({"state_dict": tensors}, path)
        elif layout == "bare.bin":
            torch.save(tensors, path)
        elif layout == "distributed.ckpt":
            torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
        elif layout == "open_clip.safetensors":
            save_file(tensors, path)
        elif layout == "with-buffers.safetensors":
            positions = {f"{t}_model.embeddings.position_ids": torch.arange(77)[None] for t in ("text", "vision")}
            save_file({**renamed, **positions}, path)
        elif layout == "file-in-folder":
            path.mkdir()
            save_file(renamed, path / "model.safetensors")
        elif layout == "folder":
            model = CLIPModel(CLIPConfig(**configuration(renamed, "gelu")))
            model.load_state_dict(renamed)
            model.save_pretrained(path)
        return path

    return write


LAYOUTS = [
    "state_dict.pt",
    "bare.bin",
    "distributed.ckpt",
    "open_clip.safetensors",
    "with-buffers.safetensors",
    "file-in-folder",
    "folder",
]


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_embeddings_are_those_of_open_clip_from_any_layout(write, open_clip_model, layout):
    encoder = load_encoder(write(layout), "cpu", "float32", "gelu")
    texts = ["a red apple", TEXTS["500 words"]]
    expected = open_clip_model(PIXELS, SimpleTokenizer()(texts))
    torch.testing.assert_close(encoder.images(PIXELS), expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(encoder.texts(texts), expected[1], rtol=0, atol=1e-6)
    assert encoder.logit_scale == pytest.approx(expected[2].item(), rel=1e-6)


@torch.no_grad()
def test_the_activation_is_the_one_asked_for_or_that_of_who_names_tensors_so(write):
    quick = small_clip(quick_gelu=True)
    exact, ours = write("state_dict.pt"), write("with-buffers.safetensors")
    expected = quick.encode_image(PIXELS, normalize=True)
    for path, activation, same in (
        (exact, "quick_gelu", True),
        (exact, "gelu", False),
        (exact, "", False),
        (ours, "", True),
    ):
        found = load_encoder(path, "cpu", "float32", activation).images(PIXELS)
        assert torch.allclose(found, expected, atol=1e-6) == same, (path.name, activation)


def test_a_half_precision_file_is_computed_in_the_dtype_asked_for(open_clip_model, tmp_path):
    path = tmp_path / "half.pt"
    torch.save({name: tensor.half() for name, tensor in open_clip_model.state_dict().items()}, path)
    for dtype in ("float32", "bfloat16", "float16"):
        assert {p.dtype for p in load_encoder(path, "cpu", dtype).model.parameters()} == {getattr(torch, dtype)}
    assert load_encoder(path, "cpu", "auto").model.dtype == torch.float32


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"])
def test_published_shapes_give_the_published_configuration(name):
    settings = open_clip.get_model_config(name)
    with torch.device("meta"):
        tensors = dict(transformers_names(open_clip.CLIP(**settings).state_dict()))
    found = configuration(tensors, "gelu")
    text, vision = settings["text_cfg"], settings["vision_cfg"]
    heads = vision["width"] // vision.get("head_width", 64)
    assert found["projection_dim"] == settings["embed_dim"]
    assert (
        found["vision_config"]
        | {
            "hidden_size": vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": heads,
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4)),
        }
        == found["vision_config"]
    )
    assert (
        found["text_config"]
        | {
            "hidden_size": text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": 77,
            "vocab_size": 49408,
            "eos_token_id": 49407,
        }
        == found["text_config"]
    )
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**found))
    assert {n: p.shape for n, p in model.named_parameters()} == {n: t.shape for n, t in tensors.items()}


def broken(tensors: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    name = "text_model.encoder.layers.1.mlp.fc2.weight"
    if case == "missing":
        tensors.pop(name)
    elif case == "surplus":
        tensors["adapter.weight"] = torch.zeros(2)
    elif case == "shape":
        tensors[name] = tensors[name][:3]
    elif case == "text only":
        tensors = {n: t for n, t in tensors.items() if n.startswith("text_model")}
    elif case == "foreign":
        tensors = {"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)}
    return tensors


REFUSED = {
    "missing": "lacks 1 tensors, such as text_model.encoder.layers.1.mlp.fc2.weight",
    "surplus": "has, beside those of a CLIPModel, 1 tensors, such as adapter.weight",
    "shape": "is no CLIP .*size mismatch.*download it again",
    "text only": "is no CLIP of a picture and a text tower",
    "foreign": "is no CLIP of a picture and a text tower",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_whole_clip_is_refused_with_what_was_expected(open_clip_model, tmp_path, case):
    path = tmp_path / "model.safetensors"
    tensors = {n: t.clone() for n, t in broken(in_transformers_names(open_clip_model), case).items()}
    save_file(tensors, path)
    assert_refused(path, REFUSED[case])


def assert_refused(path, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        read_clip(path, "")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 7, 0.5, -1])
@pytest.mark.parametrize("layout", ["state_dict.pt", "open_clip.safetensors"])
def test_a_download_that_broke_off_is_refused(write, layout, keep):
    path = write(layout)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    assert_refused(path, "is damaged or no file of weights .*: download it again")


class Evil:
    def __reduce__(self):
        return print, ("code of the file ran",)


def test_a_checkpoint_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path, capsys):
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Evil()}, path)
    assert_refused(path, "holds more than tensors, which is not loaded: use its safetensors file")
    assert "ran" not in capsys.readouterr().out


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    path = tmp_path / "empty.pt"
    torch.save([1, 2, 3], path)
    assert_refused(path, "holds no tensors")


def test_an_empty_folder_is_refused(tmp_path):
    assert_refused(tmp_path, "has neither a config.json nor a model.safetensors")


def test_a_file_keeps_the_tensors_that_it_had(open_clip_model, write):
    """The conversion is the inverse of transformers' names, tensor by tensor."""
    path = write("with-buffers.safetensors")
    model, _ = read_clip(path, "gelu")
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.endswith("position_ids")}
    assert kept.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in kept.items())
