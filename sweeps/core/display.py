"""The live table of a sweep; plain lines where the output is not a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from llmemf import text_format
from sweeps.state.trial_records import ENDED, TrialRecord, best_of, trial_name

PLAIN_SECONDS = 10.0
PLAIN_SECONDS_MOST = 300.0
SHOWN_RUNNING = 8
STYLE = {
    "completed": "green",
    "pruned": "yellow",
    "failed": "red",
    "interrupted": "magenta",
    "running": "cyan",
    "pending": "dim",
}


class Display:
    """Shows where a sweep stands.

    Args:
        console: where to write; a terminal gets a table that stays in place, anything else plain lines.
        title: what is swept.
        planned: number of trials.
        slots: trials that can run at once.
        records: all trials by number, as the state keeps them.
        repeats: whole trials that the confirmation may run at most.
        earlier: seconds that the parts before an interruption took.
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        planned: int,
        slots: int,
        records: Mapping[int, TrialRecord],
        repeats: int = 0,
        earlier: float = 0.0,
    ) -> None:
        self.console, self.title, self.planned, self.slots = console, title, planned, slots
        self.repeats = repeats
        self._records = records
        self.saying = ""
        self.trouble = ""
        self._started = time.monotonic() - earlier
        self._last_line = 0.0
        self._last_text = ""
        self._live: Live | None = None

    @property
    def records(self) -> list[TrialRecord]:
        return list(self._records.values())

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self.render,
                console=self.console,
                refresh_per_second=2,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def update(self, changed: TrialRecord | None = None) -> None:
        """Show the newest state; `changed` is a trial that has just started or ended."""
        if changed and changed.outcome == "failed":
            self._print(Text.assemble((f"{changed.name} failed: ", "red"), changed.error))
            self._print(Text(f"    full trace: errors/{changed.name}.txt in the sweep's folder", style="dim"))
        if self._live:
            return
        if changed and changed.outcome not in ("running", "failed"):
            self._print(Text(self._ended_line(changed)))
        now = time.monotonic()
        # A sweep of hours need not say every ten seconds that it runs.
        if now - self._last_line < max(PLAIN_SECONDS, min(PLAIN_SECONDS_MOST, self.elapsed() / 30)):
            return
        text = self.line()
        if text != self._last_text:
            self._last_line, self._last_text = now, text
            self._print(Text(f"[{text_format.duration(self.elapsed())}] {text}"))

    def say(self, text: str) -> None:
        """One sentence about the sweep itself; stays until the end."""
        self.saying = text
        if not self._live:
            self._print(Text(text))

    def tell(self, text: str) -> None:
        """One line about a trial, kept on the screen while the sweep runs."""
        self._print(Text(f"[{text_format.duration(self.elapsed())}] {text}"))

    def _print(self, text: Text) -> None:
        self.console.print(text, soft_wrap=not self.console.is_terminal)

    def _ended_line(self, record: TrialRecord) -> str:
        value = "no value" if record.objective is None else f"objective {record.objective:.4f}"
        took = text_format.duration(record.seconds)
        name = f"{record.name} ({trial_name(record.repeats)} again)" if record.repeats else record.name
        return (
            f"[{text_format.duration(self.elapsed())}] {name} {record.outcome} after epoch {record.epoch} ({took}), "
            f"{value}  {text_format.settings(record.varied)}"
        )

    def remaining(self) -> float | None:
        """Seconds to go, see `time_left`."""
        return time_left(self.records, self.planned, self.slots, self.repeats)

    def counts(self) -> tuple[Counter[str], int, int]:
        """How many trials stand where, how many have ended, and how many there are with all repeats so far."""
        count = Counter(record.outcome for record in self.records)
        total = self.planned + sum(bool(record.repeats) for record in self.records)
        return count, sum(count[name] for name in ENDED), total

    def line(self) -> str:
        """The state in one line."""
        (count, done, total), best, left = self.counts(), best_of(self.records), self.remaining()
        words = {"running": "running", "pending": "starting", "pruned": "pruned", "failed": "failed"}
        parts = [f"{done}/{total} done", *(f"{count[name]} {word}" for name, word in words.items() if count[name])]
        if best:
            parts.append(f"best {best.objective:.4f} ({best.name}, epoch {best.best_epoch})")
        parts.append(f"{text_format.duration(left)} left" if left else "time left unknown")
        return ", ".join(parts) + (f" ({self.trouble})" if self.trouble else "")

    def render(self) -> RenderableType:
        """The live table."""
        (count, done, total), best, left = self.counts(), best_of(self.records), self.remaining()
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        times = f"{text_format.duration(self.elapsed())} elapsed"
        times += f", about {text_format.duration(left)} left" if left else ""
        ended = Text.assemble((str(done), "bold"), f" of {total} trials")
        bar = ProgressBar(total=max(1, total), completed=done, complete_style="cyan")
        head.add_row(bar, ended, Text(times, style="dim"))
        states = Text("  ")
        for name in ("running", "pending", "completed", "pruned", "failed"):
            if count[name] or name in ("running", "completed", "pruned"):
                word = "starting" if name == "pending" else name
                states.append(f"{count[name]} {word}   ", STYLE[name] if count[name] else "dim")
        parts: list[RenderableType] = [Text("")] if count["failed"] else []
        parts += [Text(self.title, style="bold"), head, states]
        parts += [Text(f"  {self.trouble}", style="yellow")] if self.trouble else []
        if self.saying:
            return Group(*parts, Text(f"  {self.saying}", style="magenta"))
        parts.append(Text(""))
        if best:
            value = (f"{best.objective:.4f}", "bold green")
            parts.append(Text.assemble(("  best ", "dim"), value, f"  {best.name}, epoch {best.best_epoch}"))
            parts += [Padding(Text(text_format.settings(best.varied), style="green"), (0, 0, 0, 7)), Text("")]
        return Group(*parts, self._running_table())

    def _running_table(self) -> RenderableType:
        running = [record for record in self.records if record.outcome in ("running", "pending")]
        if not running:
            return Text("" if self.records else "  waiting for the first trial to start", style="dim")
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False, pad_edge=False)
        table.add_column("  trial", no_wrap=True)
        table.add_column("epoch", justify="right", no_wrap=True)
        table.add_column("objective", justify="right", no_wrap=True)
        cells_of = add_settings(table, running, self.console.width - 28)
        for record in running[:SHOWN_RUNNING]:
            value = "starting" if record.outcome == "pending" else "-"
            shown = (
                Text(value, style="dim")
                if record.objective is None or value == "starting"
                else f"{record.objective:.4f}"
            )
            table.add_row(f"  {record.name}", f"{record.epoch}/{record.epochs}", shown, *cells_of(record))
        if len(running) > SHOWN_RUNNING:
            table.add_row(f"  +{len(running) - SHOWN_RUNNING} more")
        return table


def time_left(records: list[TrialRecord], planned: int, slots: int, repeats: int = 0) -> float | None:
    """Seconds to go, from the mean duration of trials; None until one has finished.

    Running trials that already took longer than the mean count as well: the first to finish are the short ones. A repeat
    trains as long as a trial that was not pruned, and the confirmation runs all that it may.

    Args:
        records: all trials, repeats included.
        planned: number of trials of the search.
        slots: trials that can run at once.
        repeats: whole trials that the confirmation may run at most.
    """
    durations = [r.seconds for r in records if r.outcome in ("completed", "pruned") and r.seconds > 0]
    if not durations:
        return None
    mean = sum(durations) / len(durations)
    durations += [r.seconds for r in records if r.outcome == "running" and r.seconds > mean]
    mean = sum(durations) / len(durations)
    completed = [r.seconds for r in records if r.outcome == "completed" and r.seconds > 0]
    whole = sum(completed) / len(completed) if completed else mean
    seconds = []
    for expected, count, of_repeats in ((mean, planned, False), (whole, repeats, True)):
        known = [r for r in records if bool(r.repeats) == of_repeats]
        seconds += [max(0.0, expected - r.seconds) for r in known if r.outcome in ("running", "pending")]
        seconds += [expected] * (count - len(known) + sum(r.outcome == "interrupted" for r in known))
    return sum(seconds) / max(1, min(slots, len(seconds)))


def fits(records: list[TrialRecord], width: int, gap: int = 2) -> bool:
    """Whether one column per setting fits into `width` characters."""
    keys = list(records[0].varied) if records else []
    cells = {key: [key, *(text_format.number(record.varied.get(key)) for record in records)] for key in keys}
    return sum(gap + max(map(len, column)) for column in cells.values()) <= width


def add_settings(
    table: Table, records: list[TrialRecord], width: int, gap: int = 2
) -> Callable[[TrialRecord], list[str]]:
    """Add a column per setting, or one for all where they do not fit; gives what makes a trial's cells for them."""
    keys, spread = list(records[0].varied) if records else [], fits(records, width, gap)
    for key in keys if spread else ["settings"]:
        table.add_column(key, no_wrap=spread, justify="right" if spread else "left")
    if spread:
        return lambda record: [text_format.number(record.varied.get(key)) for key in keys]
    return lambda record: [text_format.settings(record.varied)]
