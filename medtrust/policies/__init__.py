"""Ready policies, one TOML file each: data, no code."""
