"""What the tests and the notebooks' kernels need before they import anything."""

# Its first import builds a font cache and may say so on stderr: do it here, not
# in the first notebook that plots.
import matplotlib.font_manager  # noqa: F401

# One thread, in this process and in every kernel it starts.
import normalise  # noqa: F401

# Copies without solutions: tests/test_exercises.py runs them.
collect_ignore = ["notebooks/exercises/student"]
