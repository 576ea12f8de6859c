"""Let a language model write a text on every item or every user.

llmemf features enrich NAME --base-url https://api.deepseek.com --estimate
llmemf features enrich NAME --base-url https://api.deepseek.com --key-env DEEPSEEK_API_KEY --limit 20 --budget 0.50
llmemf features enrich NAME --model gpt-4o-mini --price-in 0.15 --price-out 0.60 --batch
llmemf features enrich NAME --base-url https://api.deepseek.com --profiles
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llmemf.command_line import command_line
from llmemf.commands.enrich_view import estimate_view, profile_summary, text_summary
from llmemf.commands.feature_options import DEFAULT_ROOT, DataRoot, Name
from llmemf.commands.long_run import INTERRUPTED, UNFINISHED, root_words, say
from llmemf.errors import InputError


class TokenParameter(StrEnum):
    max_tokens = "max_tokens"
    max_completion_tokens = "max_completion_tokens"


def enrich(
    name: Name,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", help="Address of an OpenAI-compatible endpoint; or set OPENAI_BASE_URL."),
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
            "--budget", min=0.0, help="USD that all answers of this scenario may cost, earlier runs included."
        ),
    ] = None,
    price_in: Annotated[
        float | None, typer.Option("--price-in", min=0.0, help="USD per million prompt tokens.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", min=0.0, help="USD per million completion tokens.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Ask only so many questions, most frequent items first; 0: all.")
    ] = 0,
    batch: Annotated[bool, typer.Option("--batch", help="Use the batch interface: half the price, slower.")] = False,
    cancel_batch: Annotated[
        bool, typer.Option("--cancel-batch", help="End pending batches, and fetch what they have answered.")
    ] = False,
    poll: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between two looks at a batch.")] = 30.0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=512, help="Calls at once, at most.")] = 16,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one call.")] = 600.0,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=0, help="Completion tokens of a call, reasoning included; 0: no limit.")
    ] = 4000,
    token_parameter: Annotated[
        TokenParameter, typer.Option("--token-parameter", help="What the endpoint calls that limit.")
    ] = TokenParameter.max_tokens,
    temperature: Annotated[
        float, typer.Option("--temperature", help="-1 sends none, as some reasoning models want it.")
    ] = 0.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again where earlier answers were bad or the question rejected.")
    ] = False,
    data_root: DataRoot = DEFAULT_ROOT,
) -> None:
    """Let a language model write a text on every item, or on every user; a run that was stopped or killed repeats nothing paid for."""
    from llmemf.features.llm_cache import AnswerCache
    from llmemf.features.llm_cost import BATCH_FACTOR, Budget, Prices, default_prices
    from llmemf.features.llm_endpoint import Endpoint
    from llmemf.features.llm_plan import estimate, make_plan
    from llmemf.features.llm_text import write_text
    from llmemf.features.profiles import make_profile_plan, write_profiles
    from llmemf.features.prompts import prompts_for
    from llmemf.scenarios.scenario import find_scenario

    if (price_in is None) != (price_out is None):
        raise InputError("--price-in and --price-out belong together: give both")
    prices = default_prices(model) if price_in is None else Prices(price_in, price_out)
    _check_budget(budget, prices, max_tokens, model)
    scenario = find_scenario(name, data_root)
    if profiles:
        if prompt:
            raise InputError("--prompt is for items: leave it out with --profiles")
        plan = make_profile_plan(scenario, model, language=language, words=words)
    else:
        plan = make_plan(scenario, model, prompts_for(scenario.domains, prompt or (), language=language, words=words))
    if not len(plan.order):
        nothing = "no training item" if profiles else "no item"
        what = "a title" if profiles else "a title or a description"
        raise InputError(f"{nothing} of scenario {name!r} has {what}: there is nothing to ask about")
    if estimate_only:
        cache = AnswerCache.peek(scenario.folder)
        items = plan.open_items(cache, limit=limit, retry_failed=retry_failed)
        estimate_view(estimate(plan, cache, items, prices, max_tokens), prices, plan, price_in is None, cache.usd)
        return
    endpoint = Endpoint.from_environment(
        base_url=base_url,
        model=model,
        key_env=key_env,
        max_tokens=max_tokens,
        token_parameter=token_parameter.value,
        temperature=None if temperature < 0 else temperature,
        timeout=timeout,
    )
    if endpoint.in_the_clear:
        say(f"note: {endpoint.base_url} is not encrypted, the key can be read on its way; https is")
    with AnswerCache.open(scenario.folder) as cache:
        spent = cache.usd
        ledger_prices = prices.times(BATCH_FACTOR) if prices and (batch or cancel_batch) else prices
        items = plan.open_items(cache, limit=limit, retry_failed=retry_failed)
        expected = estimate(plan, cache, items, ledger_prices, max_tokens)
        money = f", about ${expected.usd:,.2f}" if expected.usd is not None else ""
        say(
            f"{expected.questions:,} questions to {model} at {endpoint.host}{money} ({expected.answered:,} known already)"
        )
        try:
            ledger = Budget(ledger_prices, budget, spent)
            stop = _ask(
                plan, cache, endpoint, ledger, items, batch, cancel_batch, limit, retry_failed, poll, concurrency
            )
        finally:
            summary = (write_profiles if profiles else write_text)(plan, cache, endpoint.host)
        show_summary = profile_summary if profiles else text_summary
        show_summary(scenario, summary, cache.usd - spent, cache.usd, known_prices=prices is not None)
    _leave(stop, budget, cache.usd, ["profiles", name] if profiles else ["encode", name, "--kind", "text"], data_root)


def _ask(plan, cache, endpoint, ledger, items, batch, cancel, limit, retry_failed, poll, concurrency):
    """Run by call or by batch with progress; returns why it stopped."""
    from llmemf.commands.progress import ProgressLine
    from llmemf.features.enrich import Enrichment
    from llmemf.features.llm_batch import BatchRun
    from llmemf.features.llm_batch_state import read_parts

    with ProgressLine("texts") as line:

        def show(progress) -> None:
            tokens = progress.prompt_tokens + progress.completion_tokens
            unusable = progress.bad + progress.failed + progress.rejected
            at_once = f"{progress.under_way} at once" if not (batch or cancel) else ""
            line.show(
                progress.done,
                progress.total,
                f"{tokens:,} tokens",
                f"${progress.usd:,.4f}" if ledger.prices.output else "",
                f"{unusable:,} without text" if unusable else "",
                at_once,
                progress.note,
            )

        common = {"plan": plan, "cache": cache, "endpoint": endpoint, "ledger": ledger, "retry_failed": retry_failed}
        if batch or cancel:
            told = "stopping; the batches go on at the provider, the same command fetches them"
            run = BatchRun(**common, limit=limit, poll=poll, on_progress=show, on_interrupt=lambda _: line.say(told))
            return asyncio.run(run.run(cancel=cancel))
        if parts := read_parts(plan.scenario.folder):
            raise InputError(
                f"{len(parts)} batch(es) of this scenario are under way at {parts[0].host}: fetch them with --batch, or "
                "end them with --cancel-batch; asking now would pay twice"
            )
        run = Enrichment(
            **common,
            items=items,
            concurrency=concurrency,
            on_progress=show,
            on_interrupt=lambda under_way: line.say(
                f"stopping: {under_way} answers under way are waited for, they are paid; Ctrl-C again drops them"
            ),
        )
        return asyncio.run(run.run())


def _check_budget(budget: float | None, prices, max_tokens: int, model: str) -> None:
    """A budget needs to know what a call can cost at most."""
    if budget is None:
        return
    if prices is None:
        raise InputError(f"--budget: the prices of {model!r} are not known; give --price-in and --price-out")
    if not max_tokens:
        raise InputError("--budget needs a bound on what one call can cost: give --max-tokens")


def _leave(stop, budget: float | None, usd: float, following: list[str], data_root: Path) -> None:
    """Say why a run ended, and leave with its exit code; `following` is the command of `features` that comes next."""
    again = "the same command goes on from here"
    if stop.reason == "interrupted":
        say(f"stopped; {again}")
        raise typer.Exit(INTERRUPTED)
    if stop.reason == "budget":
        say(f"stopped: the next answer might exceed the budget of ${budget:,.2f} (${usd:,.4f} spent); raise --budget")
        raise typer.Exit(UNFINISHED)
    if stop.reason == "endpoint":
        say(f"stopped: {stop.message}; {again}", error=True)
        raise typer.Exit(UNFINISHED)
    say(f"next: {command_line('features', *following, *root_words(data_root))}")
