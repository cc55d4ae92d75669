"""Other people's generators: one adapter per form in which they arrive, and what keeps each from doing harm."""
