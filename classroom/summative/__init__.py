"""Tasks that come out of a seed: the twist, the text, the solution, the questions."""
