"""`import vitlib` is light, and offers what it says."""

import subprocess
import sys

import vitlib


def test_import_brings_neither_matplotlib_nor_pil():
    code = (
        "import sys, vitlib; "
        "print(sorted({'matplotlib', 'PIL', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_only_plots_brings_matplotlib():
    code = (
        "import sys, vitlib.data, vitlib.predict, vitlib.train; "
        "print('matplotlib' in sys.modules); import vitlib.plots; "
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_every_promised_name_is_there_once():
    assert all(hasattr(vitlib, name) for name in vitlib.__all__)
    assert len(set(vitlib.__all__)) == len(vitlib.__all__)
