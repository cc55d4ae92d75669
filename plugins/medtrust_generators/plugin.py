"""Registration of the generators that `medtrust train` fits."""

from collections.abc import Iterator

from medtrust.hookspecs import hookimpl
from medtrust.types import GeneratorSpec

_KINDS = (
    ("vae", "2", "vae:Vae", "vae", "variational autoencoder whose decoder also learns the noise texture, band by band"),
    ("gan", "1", "gan:Gan", "gan", "generative adversarial network with hinge loss and a spectrally normalised critic"),
    ("flow", "3", "flow:Flow", "diffusion", "rectified flow with a small U-Net over spectrally whitened images"),
    ("ddpm", "3", "ddpm:Ddpm", "diffusion", "denoising diffusion with v-prediction and the cosine schedule"),
    ("edm", "3", "edm:Edm", "diffusion", "EDM: log-normal noise levels and Heun's method"),
    ("mask", "2", "mask:Mask", "conditional", "mask to image: a flow that sees where each tissue lies"),
    ("caption", "2", "caption:Caption", "conditional", "caption to image: a flow that reads a sentence"),
    ("i2i", "2", "i2i:ImageToImage", "conditional", "image to image: a flow that sees another contrast"),
)


@hookimpl
def medtrust_generators() -> Iterator[GeneratorSpec]:
    """Offer the generators."""
    for name, version, factory, family, summary in _KINDS:
        yield GeneratorSpec(
            name=name,
            version=version,
            factory=f"medtrust_generators.{factory}",
            summary=summary,
            family=family,  # type: ignore[arg-type]
            trainable=True,
        )
