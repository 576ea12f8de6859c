"""Time lines and the last-two view against plain Python lists."""

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario

from llmemf.batches import DeviceSequences
from llmemf.models.time_lines import after, every_item, gather_columns, last_two, whole_history
from llmemf.scenarios.sequences import Sequences

PAD = NUM_ITEMS
ROWS = [
    [3, 35, 8, 50, 9, 4],
    [40, 41, 2, 42],
    [7, 33],
    [33, 7],
    [1, 2, 3],
    [60, 61],
    [5, 60, 6, 61, 62, 63],
]


def shifted(rows, max_length=12):
    sequences = Sequences.from_rows(np.zeros(len(rows), int), rows)
    made = DeviceSequences(sequences, num_x=NUM_X, num_items=NUM_ITEMS, max_length=max_length, held_out=False)
    return made.batch(torch.arange(len(made)))


def histories(rows, max_length=12):
    """Evaluation batch of `rows`, each followed by a target that no view may hold."""
    sequences = Sequences.from_rows(np.zeros(len(rows), int), [[*row, 0] for row in rows])
    made = DeviceSequences(sequences, num_x=NUM_X, num_items=NUM_ITEMS, max_length=max_length, held_out=True)
    return made.batch(torch.arange(len(made)))


def of(row, domain):
    return [item for item in row if (item >= NUM_X) == bool(domain)]


def real(table):
    return [int(item) for item in table if item < PAD]


def check_lines(lines, number, row):
    """Items, their order and what came before each of them, for one row of inputs."""
    assert real(lines.merged[number]) == row
    for own in (0, 1):
        assert real(lines.items[own][number]) == of(row, own)
        assert lines.items[own][number, len(of(row, own)) :].eq(PAD).all()
        expected = [len(of(row[:place], 1 - own)) for place, item in enumerate(row) if (item >= NUM_X) == bool(own)]
        assert lines.before[own][number, : len(expected)].tolist() == expected


def test_whole_histories():
    lines = whole_history(histories(ROWS), num_x=NUM_X, pad=PAD)
    assert lines.targets is None
    for number, row in enumerate(ROWS):
        check_lines(lines, number, row)
        for domain in (0, 1):
            assert [int(lines.seen[domain][own][number]) for own in (0, 1)] == [len(of(row, 0)), len(of(row, 1))]
            assert lines.merged_seen[domain][number] == len(row)


def test_items_from_before_the_merged_view_come_first():
    """The merged view holds 3, 40, 4, 41; X also knows 1 and 2 from before, Y also 50 and 51, in an unknown order."""
    lines = whole_history(histories([[1, 50, 2, 51, 3, 40, 4, 41]], max_length=4), num_x=NUM_X, pad=PAD)
    assert real(lines.merged[0]) == [3, 40, 4, 41]
    assert real(lines.items[0][0]) == [1, 2, 3, 4] and real(lines.items[1][0]) == [50, 51, 40, 41]
    assert lines.before[0][0].tolist() == [0, 0, 2, 3]
    assert lines.before[1][0].tolist() == [0, 0, 3, 4]


def by_hand(row, causal):
    """Inputs, and per domain the target and how many X, Y and merged inputs it sees."""
    places = [max((p for p, item in enumerate(row) if (item >= NUM_X) == bool(d)), default=None) for d in (0, 1)]
    if causal:
        inputs = row[:-1]
        visible = [None if place is None else row[:place] for place in places]
    else:
        inputs = [item for place, item in enumerate(row) if place not in places]
        visible = [None if place is None else inputs for place in places]
    found = []
    for place, seen in zip(places, visible):
        found.append(None if place is None else (row[place], len(of(seen, 0)), len(of(seen, 1)), len(seen)))
    return inputs, found


@pytest.mark.parametrize("causal", [True, False])
def test_last_two(causal):
    lines = last_two(shifted(ROWS), num_x=NUM_X, pad=PAD, causal=causal)
    for number, row in enumerate(ROWS):
        inputs, expected = by_hand(row, causal)
        check_lines(lines, number, inputs)
        for domain, target in enumerate(expected):
            if target is None:
                assert lines.targets[domain][number] == PAD
                continue
            seen = [lines.targets[domain], *lines.seen[domain], lines.merged_seen[domain]]
            assert tuple(int(value[number]) for value in seen) == target, (row, domain)


def test_no_target_sees_itself_or_its_future():
    data = make_data(make_scenario(longest=11), missing=False)
    rows = [data.train.row(number).tolist() for number in range(len(data.train))]
    lines = last_two(shifted(rows), num_x=NUM_X, pad=PAD, causal=True)
    for number, row in enumerate(rows):
        for domain in (0, 1):
            target = int(lines.targets[domain][number])
            if target < PAD:
                seen = real(lines.merged[number, : lines.merged_seen[domain][number]])
                assert seen == row[: row.index(target)]
                for own in (0, 1):
                    assert real(lines.items[own][number, : lines.seen[domain][own][number]]) == of(seen, own)


def test_random_prefixes_are_last_two_views_of_prefixes():
    row = [3, 35, 8, 50, 9, 4]
    torch.manual_seed(0)
    lines = last_two(shifted([row] * 500), num_x=NUM_X, pad=PAD, causal=False, random_prefix=True)
    counts = dict.fromkeys(range(2, 7), 0)
    for number in range(500):
        inputs = real(lines.merged[number])
        targets = [int(lines.targets[d][number]) for d in (0, 1) if lines.targets[d][number] < PAD]
        length = len(inputs) + len(targets)
        expected, found = by_hand(row[:length], False)
        assert inputs == expected and sorted(targets) == sorted(part[0] for part in found if part)
        check_lines(lines, number, inputs)
        counts[length] += 1
    assert all(60 < count < 140 for count in counts.values()), counts


def test_every_item_is_a_target_that_sees_what_came_before_it():
    lines = every_item(shifted(ROWS), num_x=NUM_X, pad=PAD)
    for number, row in enumerate(ROWS):
        check_lines(lines, number, row[:-1])
        for column in range(lines.merged.shape[1]):
            targets = [int(lines.targets[d][number, column]) for d in (0, 1)]
            if column + 1 >= len(row):
                assert targets == [PAD, PAD]
                continue
            own = int(row[column + 1] >= NUM_X)
            assert targets[own] == row[column + 1] and targets[1 - own] == PAD
            for domain in (0, 1):
                seen = [int(lines.seen[domain][line][number, column]) for line in (0, 1)]
                assert seen == [len(of(row[: column + 1], 0)), len(of(row[: column + 1], 1))]
                assert lines.merged_seen[domain][number, column] == column + 1


def test_states_after_a_number_of_items():
    states = torch.arange(24.0).view(2, 3, 4) + 1
    assert torch.equal(gather_columns(after(states), torch.tensor([0, 3])), torch.stack([torch.zeros(4), states[1, 2]]))
    several = gather_columns(after(states), torch.tensor([[1, 0], [2, 2]]))
    assert torch.equal(several, torch.stack([torch.stack([states[0, 0], torch.zeros(4)]), states[1, [1, 1]]]))
