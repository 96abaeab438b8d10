"""Search over programs. Nothing is here yet."""
