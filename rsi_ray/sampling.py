"""Our Optuna-backed Tune searcher: a study on disk, refusals and early stops told as what they are."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from rsi_ray.journal import one_write
from rsi_ray.objectives import SCORE, values_of
from rsi_ray.random_draws import draw_elsewhere
from rsi_ray.records import RECORD, Verdict, below
from rsi_ray.study import Outcome, config_of, known_outcomes, proposals_in_a_row, trial_of
from safety import Claim, Deny, request_digest
from safety import Verdict as SafetyVerdict
from safety.lease import FAILED, LOST
from search_spaces.space import Suggests

METRIC = SCORE
# proposals of the sampler for one trial, before one is drawn elsewhere
PATIENCE = 3
# times that a candidate is proposed again whose trial was lost for good, before it counts as failed
MOST_LOST = 1


@dataclass(frozen=True, kw_only=True)
class _Live:
    trial: optuna.Trial
    config: dict[str, Any]
    digest: str
    scores: dict[int, float]


class OptunaSearcher(Searcher):
    """Proposes configurations by an Optuna sampler.

    Stopped candidates are told PRUNED with their intermediate values, refused ones PRUNED with the
    violated constraint, failed ones FAIL. A configuration that is known is answered from its outcome, not
    run again. After a few proposals that can't be used, one is drawn at random among the feasible.

    Args:
        study: where candidates are told, and their records kept; what it holds already is known.
        space: what is searched.
        price: claim of a configuration.
        judge: a configuration against the ceilings, without budgets.
        reports: of a full training.
        objectives: of the study, the score first.
        baseline: configuration that is run first and alone; None for none.
        enqueued: configurations that are proposed before the sampler is asked.
        interrupted: trials that an earlier process left in the middle; they are run again before all else.
        seed: of the draws elsewhere; each is of its trial's number alone.
        one_more: has Tune ask for another trial, in place of one whose lease was lost.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Suggests[Any],
        *,
        price: Callable[[Mapping[str, Any]], Claim],
        judge: Callable[[Mapping[str, Any]], SafetyVerdict],
        reports: int,
        objectives: Sequence[str] = (SCORE,),
        baseline: Mapping[str, Any] | None = None,
        enqueued: Iterable[Mapping[str, Any]] = (),
        interrupted: Iterable[FrozenTrial] = (),
        seed: int,
        one_more: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.study, self._space = study, space
        self.failures_in_a_row = 0
        self.stopped_by = self.used_up = ""
        self._price, self._judge = price, judge
        self._reports, self._objectives = reports, tuple(objectives)
        self._outcomes = known_outcomes(study)
        self._baseline = dict(baseline) if baseline else None
        self._baseline_id: str | None = None
        if self._baseline and request_digest(self._baseline) in self._outcomes:
            self._baseline = None  # of a run that is resumed
        self._interrupted = deque(interrupted)
        queue = {request_digest(config): dict(config) for config in enqueued}
        known = {request_digest(config_of(trial)) for trial in self._interrupted} | self._outcomes.keys()
        self._queue = deque(config for digest, config in queue.items() if digest not in known)
        self._seed = seed
        self._live: dict[str, _Live] = {}
        self._twins: dict[str, list[optuna.Trial]] = {}
        self._attempts: Counter[str] = Counter()
        self._attempted = proposals_in_a_row(study)
        self._lost: Counter[str] = Counter()  # by digest, how often it has lost its lease
        self._one_more = one_more

    def suggest(self, trial_id: str) -> Any:
        """The next configuration that is not known; None while the baseline is trained.

        Raises:
            SearchExhausted: no spec of the space seems to be under the ceilings.
        """
        if self._baseline_id in self._live:
            return None
        if self.stopped_by:
            return Searcher.FINISHED
        if self._attempts[trial_id] == 0:
            self._attempts.clear()
            self._attempts[trial_id], self._attempted = self._attempted, 0
        while True:
            self._attempts[trial_id] += 1
            trial = self._ask(trial_id)
            if trial is None:
                return Searcher.FINISHED
            config = dict(trial.params)
            digest = request_digest(config)
            if not self._answer_from_record(trial, digest):
                self._live[trial_id] = _Live(trial=trial, config=config, digest=digest, scores={})
                return config

    def _ask(self, trial_id: str) -> optuna.Trial | None:
        if self._interrupted:
            known = self._interrupted.popleft()
            if self._baseline_id is None and config_of(known) == self._baseline:
                self._baseline_id = trial_id
            return self._suggested(lambda: optuna.Trial(self.study, known._trial_id))
        if self._baseline and self._baseline_id is None:
            self._baseline_id = trial_id
            self.study.enqueue_trial(self._baseline)
        elif self._queue:
            self.study.enqueue_trial(self._queue.popleft())
        elif self._attempts[trial_id] > PATIENCE:
            elsewhere = self._draw_elsewhere()
            if elsewhere is None:
                return None
            self.study.enqueue_trial(elsewhere)
        return self._suggested(self.study.ask)

    def _suggested(self, ask: Callable[[], optuna.Trial]) -> optuna.Trial:
        with one_write(self.study):
            trial = ask()
            self._space.suggest(trial)
        return trial

    def _draw_elsewhere(self) -> dict[str, Any] | None:
        known = {live.digest for live in self._live.values()} | self._outcomes.keys()
        rng = random.Random(f"{self._seed}:{len(self.study.get_trials(deepcopy=False))}")
        elsewhere = draw_elsewhere(self._space, self._judge, known, rng)
        if elsewhere is None:
            self.used_up = "every feasible spec that was drawn is known already"
        return elsewhere

    def _answer_from_record(self, trial: optuna.Trial, digest: str) -> bool:
        running = next((live for live in self._live.values() if live.digest == digest), None)
        if running is not None:
            self._twins.setdefault(digest, []).append(trial)
        elif digest in self._outcomes:
            self._tell_twin(trial, self._outcomes[digest])
        return running is not None or digest in self._outcomes

    def _tell_twin(self, trial: optuna.Trial, outcome: Outcome) -> None:
        trial.set_user_attr(RECORD, {"verdict": Verdict.KNOWN, "same_as": outcome.number})
        self._report(trial, outcome.scores)
        for name, over in outcome.excess.items():
            trial.set_constraint(name, over)
        self.study.tell(trial, outcome.values, outcome.state)

    def _report(self, trial: optuna.Trial, scores: Mapping[int, float]) -> None:
        if len(self._objectives) == 1:  # Optuna takes no intermediate values of several objectives
            told = trial._cached_frozen_trial.intermediate_values  # to an earlier process too
            for step in sorted(scores.keys() - told.keys()):
                trial.report(scores[step], step)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell an intermediate score."""
        live = self._live[trial_id]
        step = int(result["training_iteration"])
        if step not in live.scores:
            live.scores[step] = float(result[METRIC])
            self._report(live.trial, {step: live.scores[step]})

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the end: complete, stopped early, or failed."""
        if trial_id not in self._live:
            return
        if error or result is None:
            self._end(trial_id, TrialState.FAIL, {"verdict": Verdict.FAILED, "reason": "it failed"})
            return
        self.on_trial_result(trial_id, result)
        whole = int(result["training_iteration"]) >= self._reports
        state = TrialState.COMPLETE if whole else TrialState.PRUNED
        verdict = Verdict.MEASURED if whole else Verdict.STOPPED
        record = {"verdict": verdict, **_measured(result)}
        proposed, trained = self._live[trial_id].config, below(result, "config/")
        if trained and trained != proposed:  # a scheduler has mutated it meanwhile
            record |= {"config": trained, "proposed": proposed}
        self._end(trial_id, state, record)

    def on_trial_refused(self, trial_id: str, denial: Deny) -> None:
        """Tell a refusal: PRUNED with the constraint set, or FAIL where the candidate itself failed.

        One whose lease was lost through no fault of its own is proposed again.
        """
        if trial_id not in self._live or (denial.rule == LOST and self._given_again(trial_id, denial)):
            return
        failed = denial.rule in (FAILED, LOST, "finite_score")
        verdict = Verdict.FAILED if failed else Verdict.REFUSED
        record = {"verdict": verdict, "rule": denial.rule, "reason": denial.reason}
        state = TrialState.FAIL if failed else TrialState.PRUNED
        # a budget's refusal says nothing of the candidate for good, but the sampler should move on
        excess = {} if failed else denial.excess or {denial.rule: 1.0}
        self._end(trial_id, state, record, excess)

    def _given_again(self, trial_id: str, denial: Deny) -> bool:
        """Propose a candidate once more; whether it may be."""
        live = self._live[trial_id]
        if self._lost[live.digest] >= MOST_LOST:
            return False
        self._lost[live.digest] += 1
        del self._live[trial_id]
        record = {"trial_id": trial_id, "verdict": Verdict.CUT, "rule": denial.rule, "reason": denial.reason}
        live.trial.set_user_attr(RECORD, {**record, "config": live.config, "scores": live.scores})
        self.study.tell(live.trial, None, TrialState.FAIL)
        if trial_id == self._baseline_id:
            self._baseline_id = None
        else:
            self._queue.appendleft(live.config)
        self._one_more()
        return True

    def _end(
        self,
        trial_id: str,
        state: TrialState,
        record: Mapping[str, Any],
        excess: Mapping[str, float] | None = None,
    ) -> None:
        live = self._live.pop(trial_id)
        if record["verdict"] != Verdict.REFUSED:
            self.failures_in_a_row = self.failures_in_a_row + 1 if state == TrialState.FAIL else 0
        excess = {name: min(over, 1e300) for name, over in (excess or {}).items()}
        whole = {"trial_id": trial_id, "config": live.config, **record, "scores": live.scores}
        if excess:
            whole["excess"] = excess
        with suppress(Exception):  # refused since it can't be priced
            whole["claim"] = self._price(whole["config"]).as_dict()
        if trial_id == self._baseline_id:
            whole["baseline"] = True
            if state != TrialState.COMPLETE:
                self.stopped_by = f"the baseline was {record['verdict']}: {record.get('reason', '')}"
        values = values_of(self._objectives, whole) if state == TrialState.COMPLETE else None
        if "proposed" in whole:
            self.study.add_trial(trial_of(self._space, whole["config"], state, values, whole))
            whole = {"trial_id": trial_id, "verdict": Verdict.MUTATED, "config": live.config}
            state, values = TrialState.PRUNED, None
        live.trial.set_user_attr(RECORD, whole)
        for name, over in excess.items():
            live.trial.set_constraint(name, over)
        self.study.tell(live.trial, values, state)
        number = live.trial.number
        outcome = Outcome(number=number, state=state, values=values, scores=live.scores, excess=excess)
        if whole["verdict"] != Verdict.MUTATED:
            self._outcomes[live.digest] = outcome
        for twin in self._twins.pop(live.digest, []):
            self._tell_twin(twin, outcome)

    def live_numbers(self) -> dict[str, int]:
        """Optuna numbers of the trials that run, by Tune id."""
        return {trial_id: live.trial.number for trial_id, live in self._live.items()}

    def save(self, checkpoint_path: str) -> None:
        """Name the study: it is durable already, and the whole state."""
        Path(checkpoint_path).write_text(json.dumps({"study": self.study.study_name}))

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to load: the study is the state."""
        json.loads(Path(checkpoint_path).read_text())


def _measured(result: Mapping[str, Any]) -> dict[str, Any]:
    # Tune gives a searcher its results flattened
    measured = {
        "score": float(result[METRIC]),
        "domains": below(result, "domains/"),
        "reports": int(result["training_iteration"]),
        "train_flops": int(result["lease/train_flops"]),
        "seconds": round(result["lease/wall_ms"] / 1000, 3),
    }
    if "latency_ms" in result:
        measured["latency_ms"] = float(result["latency_ms"])
    if members := below(result, "members/"):
        measured["members"] = members
    return measured
