"""What weightings remember between steps, per task."""
