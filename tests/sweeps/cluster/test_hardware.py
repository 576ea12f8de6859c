import os
import re

import psutil

from llmemf import text_format
from sweeps.cluster import hardware


def test_a_machine_in_one_line():
    text = hardware.describe_machine()
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert text.startswith(text_format.plural(count, "CPU")) and "\n" not in text
    assert abs(hardware.memory() - psutil.virtual_memory().total) < 1e-3 * hardware.memory()
    assert text_format.size(hardware.memory()) in text


def test_the_processor_has_a_name():
    assert re.search(r"\w{3}", hardware.processor())
