"""Let a language model write a text on every item or every user.

llmemf features enrich NAME --base-url https://api.deepseek.com --estimate
llmemf features enrich NAME --base-url https://api.deepseek.com --key-env DEEPSEEK_API_KEY --limit 20 --budget 0.50
llmemf features enrich NAME --model gpt-4o-mini --price-in 0.15 --price-out 0.60
llmemf features enrich NAME --base-url https://api.deepseek.com --profiles
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmemf.commands.data_options import Prepared, number_table, say, show, status_table
from llmemf.commands.progress import INTERRUPTED, UNFINISHED, ProgressLine
from llmemf.commands.shared_options import shared_options
from llmemf.errors import InputError

if TYPE_CHECKING:
    from llmemf.features.enrich import Progress
    from llmemf.features.llm_cache import AnswerCache
    from llmemf.features.llm_cost import Budget, Prices
    from llmemf.features.llm_endpoint import Endpoint
    from llmemf.features.llm_plan import Estimate, Plan
    from llmemf.features.llm_text import TextSummary
    from llmemf.features.stopping import Stop


@shared_options(prepared=Prepared)
def enrich(
    prepared: Prepared,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", help="Address of an OpenAI-compatible endpoint.  [default: OPENAI_BASE_URL]"),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="As the endpoint names it.")] = "deepseek-reasoner",
    key_env: Annotated[
        str, typer.Option("--key-env", help="Environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Own template: FILE, or DOMAIN=FILE; repeatable. See docs/features.md."),
    ] = None,
    profiles: Annotated[
        bool, typer.Option("--profiles", help="Ask for a profile of every user, from the training history alone.")
    ] = False,
    language: Annotated[str, typer.Option("--language", help="Language of the texts, in English.")] = "English",
    words: Annotated[int, typer.Option("--words", min=10, help="Words of a text, at most.")] = 120,
    estimate_only: Annotated[
        bool, typer.Option("--estimate", help="Count tokens and money, and ask nothing; needs no key.")
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            min=0.0,
            help="USD that all answers of this scenario may cost, earlier runs included.  [default: no limit]",
        ),
    ] = None,
    price_in: Annotated[
        float | None,
        typer.Option("--price-in", min=0.0, help="USD per million prompt tokens.  [default: known for --model]"),
    ] = None,
    price_out: Annotated[
        float | None,
        typer.Option("--price-out", min=0.0, help="USD per million completion tokens.  [default: known for --model]"),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Ask only so many questions, most frequent items first; 0: all.")
    ] = 0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=512, help="Calls at once, at most.")] = 16,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one call.")] = 600.0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=0, help="Completion tokens of a call, reasoning included; 0: no limit.")
    ] = 4000,
    token_parameter: Annotated[
        Literal["max_tokens", "max_completion_tokens"],
        typer.Option("--token-parameter", help="What the endpoint calls that limit."),
    ] = "max_tokens",
    temperature: Annotated[
        float, typer.Option("--temperature", help="-1 sends none, as some reasoning models want it.")
    ] = 0.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again where earlier answers were bad or the question rejected.")
    ] = False,
) -> None:
    """Let a language model write a text on every item or user.

    What was paid for once is never asked again.
    """
    from llmemf.features.llm_cache import AnswerCache
    from llmemf.features.llm_cost import Budget, Prices, default_prices
    from llmemf.features.llm_endpoint import Endpoint
    from llmemf.features.llm_plan import estimate, make_plan
    from llmemf.features.llm_text import write_text
    from llmemf.features.profiles import ProfilePlan, make_profile_plan, write_profiles
    from llmemf.features.prompts import prompts_for

    if (price_in is None) != (price_out is None):
        raise InputError("--price-in and --price-out belong together: give both")
    prices = default_prices(model) if price_in is None or price_out is None else Prices(price_in, price_out)
    if budget is not None and prices is None:
        raise InputError(f"--budget: the prices of {model!r} are not known; give --price-in and --price-out")
    if budget is not None and not max_tokens:
        raise InputError("--budget needs a bound on what one call can cost: give --max-tokens")
    scenario = prepared.load()
    if profiles and prompt:
        raise InputError("--prompt is for items: leave it out with --profiles")
    plan: Plan
    if profiles:
        plan = make_profile_plan(scenario, model, language=language, words=words)
    else:
        plan = make_plan(scenario, model, prompts_for(scenario.domains, prompt or (), language=language, words=words))
    if not len(plan.order):
        nothing = "no training item" if profiles else "no item"
        what = "a title" if profiles else "a title or a description"
        raise InputError(f"{nothing} of scenario {scenario.name!r} has {what}: there is nothing to ask about")
    if estimate_only:
        cache = AnswerCache.peek(scenario.location)
        items = plan.open_items(cache, limit=limit, retry_failed=retry_failed)
        _show_estimate(estimate(plan, cache, items, prices, max_tokens), prices, plan, price_in is None, cache.usd)
        return
    endpoint = Endpoint.from_environment(
        base_url=base_url,
        model=model,
        key_env=key_env,
        max_tokens=max_tokens,
        token_parameter=token_parameter,
        temperature=None if temperature < 0 else temperature,
        timeout=timeout,
    )
    if endpoint.in_the_clear:
        say(f"note: {endpoint.base_url} is not encrypted, the key can be read on its way; https is")
    with AnswerCache.open(scenario.location) as cache:
        spent = cache.usd
        items = plan.open_items(cache, limit=limit, retry_failed=retry_failed)
        expected = estimate(plan, cache, items, prices, max_tokens)
        money = f", about ${expected.usd[0]:,.2f}" if prices else ""
        say(
            f"{expected.questions:,} questions to {model} at {endpoint.host}{money} ({expected.answered:,} known already)"
        )
        try:
            stop = _ask(plan, cache, endpoint, Budget(prices, budget, spent), items, concurrency, retry_failed)
        finally:
            if isinstance(plan, ProfilePlan):
                summary = write_profiles(plan, cache, endpoint.host)
            else:
                summary = write_text(plan, cache, endpoint.host)
        _show_summary(summary, cache.usd - spent, cache.usd, known_prices=prices is not None)
    _leave(stop, budget, cache.usd)
    following = ("profiles", scenario.name) if profiles else ("encode", scenario.name, "--kind", "text")
    say(f"next: {prepared.hint('features', *following)}")


def _ask(
    plan: Plan,
    cache: AnswerCache,
    endpoint: Endpoint,
    budget: Budget,
    items: Sequence[int],
    concurrency: int,
    retry_failed: bool,
) -> Stop:
    """Run with progress; returns why it stopped."""
    from llmemf.features.enrich import Enrichment

    with ProgressLine("texts") as line:

        def count(progress: Progress) -> None:
            tokens = progress.prompt_tokens + progress.completion_tokens
            unusable = progress.bad + progress.failed + progress.rejected
            line.show(
                progress.done,
                progress.total,
                f"{tokens:,} tokens",
                f"${progress.usd:,.4f}" if budget.prices.output else "",
                f"{unusable:,} without text" if unusable else "",
                f"{progress.under_way} at once",
                f"the endpoint asks to wait {progress.pause:.0f} s" if progress.pause > 1 else "",
            )

        run = Enrichment(
            plan,
            cache,
            endpoint,
            budget,
            items,
            concurrency=concurrency,
            retry_failed=retry_failed,
            on_progress=count,
            on_message=line.say,
        )
        return asyncio.run(run.run())


def _leave(stop: Stop, budget: float | None, usd: float) -> None:
    """Say why a run ended before its end, and leave with its exit code."""
    again = "the same command continues from here"
    if stop.reason == "interrupted":
        say(f"stopped; {again}")
        raise typer.Exit(INTERRUPTED)
    if stop.reason == "budget":
        say(f"stopped: the next answer might exceed the budget of ${budget:,.2f} (${usd:,.4f} spent); raise --budget")
        raise typer.Exit(UNFINISHED)
    if stop.reason == "endpoint":
        say(f"stopped: {stop.message}; {again}", error=True)
        raise typer.Exit(UNFINISHED)


def _show_estimate(expected: Estimate, prices: Prices | None, plan: Plan, default_prices: bool, spent: float) -> None:
    """Print what the open questions will take, and how that was counted."""
    from llmemf.features.llm_cost import PRICES_OF

    table = number_table("expected", "at most")
    for name, (count, most) in (("prompt", expected.prompt_tokens), ("completion", expected.completion_tokens)):
        table.add_row(f"{name} tokens", f"{count:,}", "no limit" if count and not most else f"{most:,}")
    if prices:
        table.add_row("USD", *("no limit" if usd is None else f"{usd:,.2f}" for usd in expected.usd))
    say(
        f"{expected.items:,} of {len(plan.keys):,} {plan.subject}s have text, {expected.texts:,} different; "
        f"{expected.answered:,} are answered, {expected.questions:,} would be asked"
    )
    show(table)
    say("tokens of the prompts: 0.3 per ASCII character, 0.7 per other one; at most: one per byte")
    say(f"tokens of the answers: {expected.completion_basis}; at most: --max-tokens; second tries not counted")
    if prices:
        origin = f", the provider's list of {PRICES_OF}; check them" if default_prices else ""
        say(f"prices: ${prices.input:g} in, ${prices.output:g} out per million tokens{origin}")
    else:
        say(f"prices of {plan.model!r} are not known: give --price-in and --price-out")
    if spent:
        say(f"spent on this scenario so far: ${spent:,.4f}")


def _show_summary(summary: TextSummary, usd: float, all_usd: float, *, known_prices: bool) -> None:
    """Print how many items or users have a text, and what the texts cost."""
    if len(summary.counts) > 1:
        show(status_table(summary.counts))
    else:
        for group, counts in summary.counts.items():
            say(f"{group}: " + ", ".join(f"{count:,} {status}" for status, count in counts.items()))
    if known_prices:
        say(f"this run ${usd:,.4f}, this scenario ${all_usd:,.4f}")
    if summary.failed:
        say(f"{summary.failed:,} failed by the endpoint's fault and are asked again by the same command")
    say(f"written: {summary.path}")
