"""Registration of the generators that `medtrust train` fits."""

from collections.abc import Iterator

from medtrust.hookspecs import hookimpl
from medtrust.types import GeneratorSpec


@hookimpl
def medtrust_generators() -> Iterator[GeneratorSpec]:
    """Offer the generators."""
    yield GeneratorSpec(
        name="flow",
        version="1",
        factory="medtrust_generators.flow:Flow",
        summary="rectified flow with a small U-Net over spectrally whitened images of any size and depth",
        family="diffusion",
        trainable=True,
    )
    yield GeneratorSpec(
        name="vae",
        version="1",
        factory="medtrust_generators.vae:Vae",
        summary="variational autoencoder whose decoder also learns the noise texture, band by band",
        family="vae",
        trainable=True,
    )
