"""Graphs that begin from a picture: image-to-image, inpainting, FLUX.1-Fill."""

import graphs
import numpy as np
import pytest
import tiny_files
from PIL import Image
from queued import fails, pictures, run


def image_to_image(denoise: float, edge: int = 64, **changes) -> dict:
    """A rollout (5) from a picture of the input folder, encoded by ComfyUI, and its pictures (12)."""
    graph = {name: node for name, node in graphs.steps(**changes).items() if name in "1235"} | {
        "8": {"class_type": "LoadImage", "inputs": {"image": "init.png"}},
        "9": {"class_type": "ImageScale", "inputs": {
            "image": ["8", 0], "upscale_method": "bilinear", "width": edge, "height": edge, "crop": "disabled",
        }},
        "10": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
        "11": {"class_type": "VAEEncode", "inputs": {"pixels": ["9", 0], "vae": ["10", 0]}},
        "12": {"class_type": "SaveImage", "inputs": {"images": ["5", 1], "filename_prefix": f"from_{denoise}"}},
    }  # fmt: skip
    graph["5"]["inputs"] |= {"latent": ["11", 0], "denoise": denoise}
    return graph


def test_a_rollout_from_a_picture_stays_near_it_as_the_denoise_says(server):
    tiny_files.write(server.base / "models")
    plain = {name: node for name, node in graphs.steps().items() if name in "1235"}
    plain["12"] = {"class_type": "SaveImage", "inputs": {"images": ["5", 1], "filename_prefix": "plain"}}
    (first, *_) = pictures(server, plain)
    Image.fromarray(first.astype(np.uint8)).save(server.base / "input/init.png")
    same = pictures(server, image_to_image(1.0))
    assert np.array_equal(same[0], first)  # denoise 1 is text-to-image
    distances = [np.abs(np.stack(pictures(server, image_to_image(d, seed=5))) - first).mean() for d in (0.1, 0.4, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] < 0.35 * distances[-1]


def test_a_rollout_without_its_picture_or_with_one_of_another_size_is_refused(server):
    tiny_files.write(server.base / "models")
    Image.new("RGB", (64, 64)).save(server.base / "input/init.png")
    message = "the latent has shape [1, 16, 12, 12], [1, 16, 8, 8] is needed: encode one picture of 64 x 64 pixels"
    assert message in fails(server, image_to_image(0.5, edge=96))
    graph = image_to_image(0.5)
    del graph["5"]["inputs"]["latent"]
    assert "denoise = 0.5 needs a picture: connect VAE Encode to 'latent', or set denoise to 1" in fails(server, graph)


def from_a_picture(kind: str, name: str = "begun", **inputs) -> dict:
    """A rollout (5, pictures 12) or a training (5) whose init is encoded by the policy's own VAE (11)."""
    graph = graphs.train(name=name) if kind == "Train" else graphs.steps()
    kept = "123456" if kind == "Train" else "1235"
    graph = {name: node for name, node in graph.items() if name in kept} | {
        "8": {"class_type": "LoadImage", "inputs": {"image": "init.png"}},
        "9": {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}},
        "11": graphs.node("EncodeImage", policy=["1", 0], neighborhood=["3", 0], images=["8", 0], mask=["9", 0]),
    }
    if kind == "Rollout":
        graph["12"] = {"class_type": "SaveImage", "inputs": {"images": ["5", 1], "filename_prefix": name}}
    graph["5"]["inputs"] |= {"latent": ["11", 0], **inputs}
    return graph


@pytest.fixture
def wide(server):
    """A picture wider than the candidates, and its mask: the middle of what is left after cutting is white."""
    x, y = np.meshgrid(np.linspace(0, 255, 96), np.linspace(0, 255, 64))
    Image.fromarray(np.stack([x, y, 0 * x + 60], -1).astype(np.uint8)).save(server.base / "input/init.png")
    mask = Image.new("RGB", (96, 64))
    mask.paste((255, 255, 255), (40, 24, 56, 40))
    mask.save(server.base / "input/mask.png")


def test_inpainting_by_encode_image_keeps_what_is_outside_the_mask(server, wide):
    drawn = np.stack(pictures(server, from_a_picture("Rollout", denoise=1.0)))
    assert drawn.shape == (12, 64, 64, 3)
    again = pictures(server, from_a_picture("Rollout", denoise=0.01))[0]  # nearly the picture's way through the VAE
    edges = np.ones((64, 64), dtype=bool)
    edges[8:56, 8:56] = False  # away from the mask, whose inside reaches into the pixels around it
    assert np.abs(drawn - again)[:, edges].mean() < 4
    assert np.abs(drawn - again)[:, 24:40, 24:40].mean() > 12


def test_a_mask_at_the_node_takes_the_place_of_the_latents_own(server, wide):
    graph = from_a_picture("Rollout", denoise=1.0, mask=["13", 0])
    graph["13"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}}
    plain = {name: node for name, node in graphs.steps().items() if name in "1235"}
    plain["12"] = graph["12"]
    assert np.array_equal(pictures(server, graph)[0], pictures(server, plain)[0])  # all is drawn: text-to-image
    graph["13"]["inputs"]["width"] = 32
    assert "the mask has 32 x 64 pixels, the candidates 64 x 64: scale it" in fails(server, graph)
    graph["13"]["inputs"] |= {"width": 64, "value": 0.0}
    assert "the mask covers no square of 8 x 8 pixels: paint white" in fails(server, graph)


def test_train_begins_from_a_picture_and_resumes_from_no_other(server, wide):
    assert run(server, from_a_picture("Train", denoise=0.7))["5"].startswith("complete")
    graph = from_a_picture("Train", denoise=0.7)
    graph["5"]["inputs"] |= {"resume": True, "iterations": 3}
    assert run(server, graph)["5"].startswith("complete")
    Image.new("RGB", (96, 64), (9, 9, 9)).save(server.base / "input/init.png")
    graph["5"]["inputs"]["iterations"] = 4
    assert "was trained with other settings (init.digest was" in fails(server, graph)
    graph["5"]["inputs"]["mask"] = ["9", 0]
    del graph["5"]["inputs"]["latent"]
    assert "a mask needs a picture: connect VAE Encode to 'latent'" in fails(server, graph)


def test_fill_trains_on_what_encode_image_makes_of_picture_and_mask(server, wide, fill):
    graph = from_a_picture("Train", name="fill")
    graph["1"]["inputs"]["folder"] = fill
    assert run(server, graph)["5"].startswith("complete")
    graph["5"]["inputs"]["mask"] = ["9", 0]
    assert "connect it to Encode Image alone" in fails(server, graph)
    del graph["5"]["inputs"]["mask"], graph["11"]["inputs"]["mask"]
    assert "connect Encode Image with a mask" in fails(server, graph)


def test_pictures_that_the_model_sees_change_what_it_draws_from_the_same_noise(server, wide):
    graph = from_a_picture("Rollout", name="seen")
    del graph["11"]["inputs"]["mask"]
    plain = pictures(server, graph)
    graph["11"]["inputs"]["reference"] = True
    seen = pictures(server, graph)
    assert np.abs(np.stack(seen) - plain).mean() > 1
    trained = from_a_picture("Train", name="seen")
    trained["11"]["inputs"]["reference"] = True
    del trained["11"]["inputs"]["mask"]
    assert run(server, trained)["5"].startswith("complete")


def test_encode_image_takes_comfyuis_vae_too(server, wide):
    tiny_files.write(server.base / "models")
    graph = from_a_picture("Rollout", denoise=0.4)
    own = pictures(server, graph)
    graph["10"] = {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}}
    graph["11"]["inputs"]["vae"] = ["10", 0]
    assert np.abs(np.stack(pictures(server, graph)) - own).mean() < 1  # of 255


def test_pictures_with_an_alpha_channel_are_refused(server):
    tiny_files.write(server.base / "models")
    Image.new("RGB", (64, 64), "white").save(server.base / "input/init.png")
    Image.new("RGB", (64, 64), "white").save(server.base / "input/mask.png")
    graph = from_a_picture("Rollout")
    graph["20"] = {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["8", 0], "alpha": ["9", 0]}}
    graph["11"]["inputs"]["images"] = ["20", 0]
    message = "Encode Image got pictures with an alpha channel: take it away (Split Image with Alpha)"
    assert message in fails(server, graph)
