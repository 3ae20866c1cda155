"""How well the samplers search: regret and evaluations on published tables, with and without a ceiling.

`python -m bench.search [--full]`. Our samplers run through the searcher that a sweep uses; a candidate is
one look-up. Under the ceiling, the median of the table's parameters, a spec is refused before it runs, which
costs no evaluation, and the sampler is told. Optuna's own samplers run by a plain ask and tell beside them,
where a spec that is proposed again is evaluated again. What it costs that ours sees the best and the latest
trials alone: `--evaluations 1000 --samplers tpe "tpe on all trials"`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from ray.tune.search import Searcher

from rsi_ray.samplers import SAMPLERS, Guarded, sampler_of
from rsi_ray.sampling import OptunaSearcher
from rsi_ray.table_job import TableJob
from safety import Allow, Claim, Deny, Verdict
from search_spaces.tabular import TabularSpace, load_table

DATA = Path(__file__).parents[2] / "shared" / "data"
EVALUATIONS = 200
# proposals of a plain sampler, refused ones included, after which it is given up
PROPOSALS = 3000
MILESTONES = (50, 100, 200)
# a search of 200 takes most of a minute: without --full they run once, and less far
SLOW = ("gp",)
SHORT = 50
PLAIN: dict[str, Callable[[int], BaseSampler]] = {
    "optuna TPESampler": lambda seed: TPESampler(seed=seed),
    "optuna RandomSampler": lambda seed: RandomSampler(seed=seed),
}
# as ours, but shown every trial of the study
UNBOUNDED: dict[str, Callable[[int], BaseSampler]] = {
    "tpe on all trials": lambda seed: Guarded(TPESampler(seed=seed), seed=seed),
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A published table, and what counts as found.

    Attributes:
        name: in the output.
        file: in the folder of tables.
        unit: factor from a score to the unit of the regret: percent of accuracy, or perplexity.
        target: regret that counts as found.
        best: scores of the best specs that are known, without the ceiling and under it, where the table's
            rows are not the whole space.
    """

    name: str
    file: str
    unit: float
    target: float
    best: tuple[float, float] | None = None


TABLES = (
    Table(name="macro", file="nas_bench_macro.parquet", unit=100.0, target=0.05),
    Table(name="nb201 cifar10", file="nas_bench_201_cifar10.parquet", unit=100.0, target=0.1),
    Table(
        name="hw_gpt_s",
        file="hw_gpt_s.parquet",
        unit=1.0,
        target=0.5,
        # by hill climbing on the surrogate from 25 starts
        best=(-21.2373, -31.2034),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One search.

    Attributes:
        table: where candidates are looked up.
        ceiling: whether the median of parameters is one.
        sampler: a name of ours or of `PLAIN`.
        seed: of everything.
        evaluations: after which it ends.
    """

    table: Table
    ceiling: bool
    sampler: str
    seed: int
    evaluations: int = EVALUATIONS


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of one search.

    Attributes:
        regrets: after each evaluation.
        seconds: of sampler and searcher.
        over: evaluated over the ceiling.
        repeats: refused specs that the sampler proposed more than twice.
    """

    regrets: Sequence[float]
    seconds: float
    over: int
    repeats: int


@cache
def opened(file: str) -> TabularSpace:
    """A table, read once in a process."""
    return load_table(DATA / file)


@cache
def ceiling_of(file: str) -> int:
    """Median of the parameters of a table's architectures."""
    space = opened(file)
    return int(statistics.median(space.cost(spec).params for spec, _ in space.rows()))


@cache
def best_score(table: Table, ceiling: float) -> float:
    """Best score under a ceiling of parameters; infinity is none."""
    if table.best is not None:
        return table.best[0 if math.isinf(ceiling) else 1]
    space = opened(table.file)
    return max(space.score(spec) for spec, _ in space.rows() if space.cost(spec).params <= ceiling)


def search(case: Case) -> Found:
    """Run one search in a study in memory."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    ceiling = ceiling_of(case.table.file) if case.ceiling else math.inf
    job = TableJob(space=opened(case.table.file))
    make = {**PLAIN, **UNBOUNDED}.get(case.sampler)
    sampler = make(case.seed) if make else sampler_of(case.sampler, case.seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    run = plain if case.sampler in PLAIN else governed
    started = time.process_time()
    claims, scores = run(study, job, partial(judged, ceiling), case)
    seconds = time.process_time() - started
    goal = best_score(case.table, ceiling)
    regrets = [max(0.0, goal - best) * case.table.unit for best in itertools.accumulate(scores, max)]
    over = sum(claim.params > ceiling for claim in claims)
    return Found(regrets=regrets, seconds=seconds, over=over, repeats=repeats(study))


def judged(ceiling: float, claim: Claim) -> Verdict:
    """One claim against the ceiling."""
    excess = claim.params / ceiling - 1
    return (
        Deny("max_params", f"{claim.params} > {ceiling}", {"max_params": excess}) if excess > 0 else Allow()
    )


def governed(
    study: optuna.Study, job: TableJob, judge: Callable[[Claim], Verdict], case: Case
) -> tuple[list[Claim], list[float]]:
    """Search as a sweep does, one candidate at a time."""
    searcher = OptunaSearcher(
        study, job, price=job.price, judge=lambda config: judge(job.price(config)), reports=1, seed=case.seed
    )
    claims: list[Claim] = []
    scores: list[float] = []
    while len(scores) < case.evaluations:
        name = str(len(scores))
        config = searcher.suggest(name)
        if config == Searcher.FINISHED:
            break
        claim = job.price(config)
        verdict = judge(claim)
        if isinstance(verdict, Deny):
            searcher.on_trial_refused(name, verdict)
            continue
        claims.append(claim)
        scores.append(job.begin(config).score)
        searcher.on_trial_complete(name, result_of(scores[-1]))
    return claims, scores


def result_of(score: float) -> dict[str, Any]:
    """A candidate's one report, as Tune gives it to a searcher."""
    return {"score": score, "training_iteration": 1, "lease/train_flops": 0, "lease/wall_ms": 0}


def plain(
    study: optuna.Study, job: TableJob, judge: Callable[[Claim], Verdict], case: Case
) -> tuple[list[Claim], list[float]]:
    """Search by ask and tell: refused specs are told, repeats are evaluated."""
    claims: list[Claim] = []
    scores: list[float] = []
    for _ in range(PROPOSALS):
        trial = study.ask()
        spec = job.suggest(trial)
        claim = job.price(trial.params)
        verdict = judge(claim)
        if isinstance(verdict, Deny):
            for rule, over in verdict.excess.items():
                trial.set_constraint(rule, over)
            study.tell(trial, state=TrialState.PRUNED)
            continue
        claims.append(claim)
        scores.append(job.space.score(spec))
        study.tell(trial, scores[-1])
        if len(scores) == case.evaluations:
            break
    return claims, scores


def repeats(study: optuna.Study) -> int:
    """Refused specs that the sampler proposed more than twice; what was enqueued is not its own."""
    refused = Counter(
        tuple(sorted(trial.params.items()))
        for trial in study.get_trials(deepcopy=False)
        if trial.constraints and "fixed_params" not in trial.system_attrs
    )
    return sum(count > 2 for count in refused.values())


def row_of(table: Table, ceiling: bool, sampler: str, found: Sequence[Found]) -> dict[str, Any]:
    """Medians over seeds."""
    longest = max(len(one.regrets) for one in found)
    at = {f"regret_{count}": regret_after(count, found) for count in sorted({*MILESTONES, longest})}
    needed = statistics.median(evaluations_to(table.target, one.regrets) for one in found)
    return {
        "table": table.name,
        "ceiling": "median params" if ceiling else "none",
        "sampler": sampler,
        "seeds": len(found),
        **at,
        "evaluations_to_target": None if math.isinf(needed) else needed,
        "sampler_s": round(statistics.median(one.seconds for one in found), 2),
        "trained_over_ceiling": sum(one.over for one in found),
        "repeats": sum(one.repeats for one in found),
    }


def regret_after(evaluations: int, found: Sequence[Found]) -> float | None:
    """Median regret after so many evaluations; None where a search was shorter."""
    if any(len(one.regrets) < evaluations for one in found):
        return None
    return round(statistics.median(one.regrets[evaluations - 1] for one in found), 3)


def evaluations_to(target: float, regrets: Sequence[float]) -> float:
    """Evaluations until the regret is at the target; infinity where it never was."""
    return next((count for count, regret in enumerate(regrets, 1) if regret <= target), math.inf)


def cases_of(table: Table, ceiling: bool, sampler: str, evaluations: int, full: bool) -> list[Case]:
    """The searches of one row, one for each seed."""
    short = sampler in SLOW and not full
    made = partial(Case, table=table, ceiling=ceiling, sampler=sampler)
    evaluations = SHORT if short else evaluations
    return [made(seed=seed, evaluations=evaluations) for seed in range(20 if full else 1 if short else 3)]


def arguments() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="20 seeds instead of 3, slow samplers to the end")
    names = [*SAMPLERS, *PLAIN]
    offered = [*names, *UNBOUNDED]
    parser.add_argument("--samplers", nargs="+", choices=offered, default=names, help="these alone")
    tables = [table.name for table in TABLES]
    parser.add_argument("--tables", nargs="+", choices=tables, default=tables, help="these alone")
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help="of each search")
    return parser.parse_args()


def main() -> None:
    """Search every table with every sampler."""
    given = arguments()
    if not DATA.exists():
        print(f"{DATA}: no such folder, expected the published tables in it", file=sys.stderr)
        sys.exit(2)
    tables = [table for table in TABLES if table.name in given.tables]
    rows = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for table, ceiling, sampler in itertools.product(tables, (False, True), given.samplers):
            cases = cases_of(table, ceiling, sampler, given.evaluations, given.full)
            rows.append(row_of(table, ceiling, sampler, list(pool.map(search, cases))))
            print(json.dumps(rows[-1]), flush=True)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
