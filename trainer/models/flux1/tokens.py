"""How many tokens a prompt has for T5, padding included."""

from diffusers import FluxTransformer2DModel

from ...choices import AUTO
from ...tiny import MODELS
from ..files.source import ModelSource
from .single_file import open_single_file

COMFYUI = 256  # to which it pads the prompts of all FLUX.1; longer ones it leaves as long as they are
# FluxPipeline's max_sequence_length in the two models' own instructions
DEV, SCHNELL = 512, 256


def text_tokens(wanted: int | str, source: ModelSource) -> int:
    """`wanted`, if it is a number. "auto" is ComfyUI's length, in which a LoRA will be used; "reference" is the
    pipeline's, FLUX.1-dev's 512 or schnell's 256.

    Of the published models, those with a guidance embedding are dev's; its configuration says whether there is one.

    Raises:
        ModelError: the pipeline's is wanted, and the model has no readable configuration.
    """
    if not isinstance(wanted, str):
        return wanted
    if source.name in MODELS:
        return MODELS[source.name].text_tokens
    if wanted == AUTO:
        return COMFYUI
    if source.file:
        return DEV if open_single_file(source.file)[0].config.guidance_embeds else SCHNELL
    try:
        options = {"subfolder": "transformer", "local_files_only": not source.hub}
        config = FluxTransformer2DModel.load_config(source.location, **options)
        return DEV if config["guidance_embeds"] else SCHNELL
    except (OSError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise source.error(f"its transformer's configuration does not load ({reason[:200]})") from error
