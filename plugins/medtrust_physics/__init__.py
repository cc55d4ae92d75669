"""Is the image physically plausible? Noise spectra, background noise, tissues, stains and signal equations."""
