"""How generated datasets are made: overlaid digits, rendered rooms, fixed splits."""
