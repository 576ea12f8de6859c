"""What the command `enrich` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from llmemf.commands.data_options import say
from llmemf.commands.long_run import number_table, status_table

if TYPE_CHECKING:
    from llmemf.features.llm_cost import Prices
    from llmemf.features.llm_plan import Estimate, Plan
    from llmemf.features.llm_text import TextSummary


def estimate_view(expected: Estimate, prices: Prices | None, plan: Plan, default_prices: bool, spent: float) -> None:
    """Print what the open questions will take, and how that was counted."""
    from llmemf.features.llm_cost import PRICES_OF

    table = number_table("expected", "at most")
    table.add_row("prompt tokens", f"{expected.prompt_tokens:,}", f"{expected.most_prompt_tokens:,}")
    most = f"{expected.most_completion_tokens:,}" if expected.most_completion_tokens else "no limit"
    table.add_row("completion tokens", f"{expected.completion_tokens:,}", most)
    if prices:
        most = "no limit" if expected.most_usd is None else f"{expected.most_usd:,.2f}"
        table.add_row("USD", f"{expected.usd:,.2f}", most)
    say(
        f"{expected.items:,} of {len(plan.keys):,} {plan.subject}s have text, {expected.texts:,} different; "
        f"{expected.answered:,} are answered, {expected.questions:,} would be asked"
    )
    Console(markup=False).print(table)
    say("tokens of the prompts: 0.3 per ASCII character, 0.7 per other one; at most: one per byte")
    say(f"tokens of the answers: {expected.completion_basis}; at most: --max-tokens; second tries not counted")
    if prices:
        origin = f", the provider's list of {PRICES_OF}; check them" if default_prices else ""
        say(f"prices: ${prices.input:g} in, ${prices.output:g} out per million tokens{origin}")
    else:
        say(f"prices of {plan.model!r} are not known: give --price-in and --price-out")
    if spent:
        say(f"spent on this scenario so far: ${spent:,.4f}")


def text_summary(summary: TextSummary, usd: float, all_usd: float, *, known_prices: bool) -> None:
    """Print how many items or users have a text, and what the texts cost."""
    if len(summary.counts) > 1:
        status_table(summary.counts)
    else:
        for group, counts in summary.counts.items():
            say(f"{group}: " + ", ".join(f"{count:,} {status}" for status, count in counts.items()))
    if known_prices:
        say(f"this run ${usd:,.4f}, this scenario ${all_usd:,.4f}")
    if summary.failed:
        say(f"{summary.failed:,} failed by the endpoint's fault and are asked again by the same command")
    say(f"written: {summary.path}")
    if summary.replaced:
        say(f"note: it held {summary.replaced}; the command that made them brings them back from the cache for nothing")
