"""What stacking gives, measured on a few steps of real trials."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from llmemf.batches import TrialData
from llmemf.models.llm_emf import LLMEMFConfig
from llmemf.scenarios.scenario import Sequences
from llmemf.stacked.trainer import StackedTrainer
from llmemf.training import Trainer

STEPS, ROUNDS = 3, 3


def measure_gain(data: TrialData, configs: Sequence[LLMEMFConfig], threads: int) -> float:
    """Time of the trials one after the other over their time in a stack: median of interleaved rounds of a few steps.

    Processor time of the calling thread is what counts: other work on the machine tells little then, and neither do further
    threads that only wait.

    Args:
        data: what the trials train on.
        configs: of trials of one shape.
        threads: to compute with.
    """
    torch.set_num_threads(threads)
    train = data.train
    count = min(len(train), STEPS * configs[0].batch_size)
    few = replace(data, train=Sequences.from_rows(train.users[:count], [train.row(index) for index in range(count)]))
    trainers = [Trainer(config, few) for config in configs]
    ratios = []
    for number in range(ROUNDS + 1):
        began = time.thread_time()
        for trainer in trainers:
            trainer.model.train()
            for index in torch.arange(len(trainer.train_sequences)).split(trainer.config.batch_size):
                trainer.step(index)
        alone = time.thread_time() - began
        stack = StackedTrainer(trainers)
        began = time.thread_time()
        stack.train_epoch()
        together = time.thread_time() - began
        for trainer in trainers:
            stack.remove(trainer)
        if number:
            ratios.append(alone / together)
    return statistics.median(ratios)
