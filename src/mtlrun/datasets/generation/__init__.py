"""Generation of datasets: overlaid digits, rendered rooms, and fixed splits."""
