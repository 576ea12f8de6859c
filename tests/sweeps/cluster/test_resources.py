import os
import re

import psutil

from llmemf import text_format
from sweeps.cluster import resources


def test_a_machine_in_one_line():
    text = resources.describe_machine()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert text.startswith(text_format.plural(count, "CPU")) and "\n" not in text
    assert abs(resources.memory() - psutil.virtual_memory().total) < 1e-3 * resources.memory()
    assert text_format.size(resources.memory()) in text


def test_the_processor_has_a_name():
    assert re.search(r"\w{3}", resources.processor())
