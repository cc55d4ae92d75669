"""Built-in feature spaces: radiomics, inception, pixels and phash."""
