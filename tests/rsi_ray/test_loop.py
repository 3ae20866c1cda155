"""The recursive loop, driven by ports in plain Python."""

from dataclasses import dataclass, field

import pytest

from rsi_ray.loop import Answer, Found, Searched, Standing, Terms, Verified, Why, improve
from safety import Allow, Deny, Hold

BASE = Standing(generation=0, artifact="a0", score=0.5, config={"depth": 1})
ALLOWED = Allow()


@dataclass
class Plain:
    """A world in which generation n scores `scores[n - 1]`; what it was asked is kept."""

    scores: list = field(default_factory=lambda: [0.51, 0.53, 0.55])
    verdicts: dict = field(default_factory=dict)
    ceilings: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    promotions: dict = field(default_factory=dict)
    noisy: set = field(default_factory=set)
    stopped: str = ""
    now: Standing = BASE
    asked: list = field(default_factory=list)
    shut: str = ""
    candidates: int = 1
    promoted: int = 0

    def __post_init__(self):
        self.promoted = self.promoted or self.now.generation

    def champion(self):
        return self.now

    def next_generation(self):
        return self.promoted + 1

    def search(self, champion):
        if self.stopped:
            return Searched(best_first=(), stopped=self.stopped)
        found = [
            Found(number=number, config={"depth": champion.generation + 2}, reported=0.9, record={})
            for number in range(self.candidates)
        ]
        return Searched(best_first=found)

    def verify(self, found):
        generation = self.next_generation()
        standing = Standing(
            generation=generation,
            artifact=f"a{generation}.{found.number}",
            score=self.scores[generation - 1],
            config=found.config,
        )
        return Verified(
            standing=standing,
            reported=found.reported,
            domains={},
            verdict=self.ceilings.get(found.number, ALLOWED),
            is_beyond_noise=found.number not in self.noisy,
            noise=f"noise of {found.number}",
        )

    def judge(self, champion, wanted):
        return self.verdicts.get(wanted.generation, ALLOWED)

    def ask(self, wanted, held):
        self.asked.append((wanted.standing.generation, held))
        return self.answers.get(wanted.standing.generation, (Answer.APPROVED, ""))

    def promote(self, wanted):
        verdict = self.promotions.get(wanted.standing.generation, ALLOWED)
        if verdict == ALLOWED:
            self.now, self.promoted = wanted.standing, wanted.standing.generation
        return verdict

    def shut_down(self, reason):
        self.shut = reason


def run(world, last=3, min_improvement=0.01, must_ask=True):
    events = []
    terms = Terms(last_generation=last, min_improvement=min_improvement, must_ask=must_ask)
    ending = improve(world, terms, events.append)
    assert (events[-1].kind, events[-1].text) == ("ended", ending.text)
    return ending, [event.kind for event in events]


def test_each_generation_is_searched_verified_asked_for_and_promoted():
    world = Plain()
    ending, events = run(world)
    assert ending.why is Why.COMPLETE
    assert world.now.generation == 3
    assert world.asked == [(1, None), (2, None), (3, None)]
    assert events == ["searching", "searched", "verified", "asked", "promoted"] * 3 + ["ended"]


def test_a_loop_goes_on_from_the_champion_that_stands():
    world = Plain(now=Standing(generation=2, artifact="a2", score=0.53, config={}))
    run(world)
    assert world.asked == [(3, None)]


def test_what_people_went_back_from_counts_as_a_generation_that_was_had():
    world = Plain(now=Standing(generation=1, artifact="a1", score=0.51, config={}), promoted=2)
    ending, _ = run(world)
    assert world.asked == [(3, None)]
    assert (ending.why, ending.text) == (
        Why.COMPLETE,
        "generation 3 is the last that this run may promote",
    )
    world = Plain(promoted=3)
    assert (run(world)[0].why, world.asked) == (Why.COMPLETE, [])


def test_a_loop_whose_lineage_goes_back_meanwhile_goes_on_from_there():
    searched = []

    class GoingBack(Plain):
        def search(self, champion):
            searched.append(champion.artifact)
            return super().search(champion)

        def promote(self, wanted):
            verdict = super().promote(wanted)
            self.now = BASE
            return verdict

    run(GoingBack(), last=2)
    assert searched == ["a0", "a0"]


def test_no_answer_is_no():
    world = Plain(answers={2: (Answer.NONE, "nobody has answered")})
    ending, _ = run(world)
    assert (ending.why, ending.text) == (Why.WAITS, "nobody has answered")
    assert world.now.generation == 1


def test_a_rejection_ends_the_loop_and_changes_nothing():
    world = Plain(answers={1: (Answer.REJECTED, "ann rejects: no")})
    ending, events = run(world)
    assert ending.why is Why.REJECTED
    assert (world.now, "promoted" in events) == (BASE, False)


def test_nobody_is_asked_where_the_limits_want_no_approval():
    world = Plain()
    assert run(world, must_ask=False)[0].why is Why.COMPLETE
    assert world.asked == []


def test_what_is_held_for_people_is_asked_for_whatever_the_limits_want():
    held = Hold("max_improvement_rate", "improvement +20% is over the ceiling")
    world = Plain(verdicts={1: held})
    run(world, last=1, must_ask=False)
    assert world.asked == [(1, held)]


def test_what_is_held_until_a_time_waits_for_it():
    world = Plain(verdicts={1: Hold("max_improvement_rate", "wait", until_ms=5)})
    assert run(world)[0].why is Why.HELD
    assert world.asked == []


@pytest.mark.parametrize(("new", "why"), [(0.504999, Why.CONVERGED), (0.505, Why.COMPLETE)])
def test_an_improvement_under_the_least_one_has_converged_and_the_least_has_not(new, why):
    assert run(Plain(scores=[new]), last=1)[0].why is why


def test_a_worse_candidate_has_converged():
    assert run(Plain(scores=[0.4]))[0].why is Why.CONVERGED


def test_an_improvement_that_other_seeds_explain_is_none():
    ending, _ = run(Plain(noisy={0}))
    assert ending.why is Why.CONVERGED
    assert ending.text.endswith("noise of 0")


@pytest.mark.parametrize("old", [0.0, -0.5, float("nan")])
def test_an_undefined_improvement_is_for_the_ledger_and_people(old):
    held = Hold("max_improvement_rate", "undefined")
    world = Plain(now=Standing(generation=0, artifact="a0", score=old, config={}), verdicts={1: held})
    run(world, last=1)
    assert world.asked == [(1, held)]


def test_a_candidate_over_a_capability_ceiling_gives_way_to_the_next_best():
    world = Plain(candidates=2, ceilings={0: Deny("max_performance", "reasoning is over")})
    ending, events = run(world, last=1)
    assert ending.why is Why.COMPLETE
    assert world.now.artifact == "a1.1"
    assert events.count("refused") == 1


def test_a_candidate_that_other_seeds_explain_gives_way_to_the_next_best():
    world = Plain(candidates=2, noisy={0})
    ending, events = run(world, last=1)
    assert ending.why is Why.COMPLETE
    assert world.now.artifact == "a1.1"
    assert events.count("verified") == 2


def test_where_no_candidate_is_better_the_best_one_says_why():
    ending, _ = run(Plain(candidates=2, noisy={0, 1}))
    assert (ending.why, ending.text[-4:]) == (Why.CONVERGED, "of 0")


def test_where_no_candidate_is_under_the_ceilings_nothing_is_promoted():
    world = Plain(ceilings={0: Deny("max_performance", "reasoning is over")})
    assert run(world)[0].why is Why.NOTHING
    assert world.now == BASE


def test_a_runaway_is_shut_down():
    world = Plain(verdicts={2: Deny("runaway", "gains 0.01, 0.02, 0.04")})
    ending, _ = run(world)
    assert (ending.why, world.shut) == (Why.SHUT_DOWN, "gains 0.01, 0.02, 0.04")
    assert world.now.generation == 1


def test_a_lineage_that_has_had_its_generations_is_complete_not_shut_down():
    world = Plain(verdicts={2: Deny("max_generations", "generation 2 is over the ceiling of 1")})
    ending, _ = run(world)
    assert (ending.why, world.shut) == (Why.COMPLETE, "")


@pytest.mark.parametrize(
    ("verdict", "why"),
    [(Deny("approval.subject", "exchanged"), Why.STOPPED), (Hold("approval.quorum", "two"), Why.HELD)],
)
def test_the_ledger_has_the_last_word(verdict, why):
    world = Plain(promotions={1: verdict})
    ending, _ = run(world)
    assert (ending.why, ending.text) == (why, verdict.reason)
    assert world.now == BASE


def test_a_search_that_was_stopped_ends_the_loop():
    ending, _ = run(Plain(stopped="interrupted by SIGTERM"))
    assert (ending.why, ending.text) == (Why.STOPPED, "interrupted by SIGTERM")
