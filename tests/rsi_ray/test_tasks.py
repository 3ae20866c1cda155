"""The built-in task: disjoint parts, exact answers, the same data every time."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from rsi_ray.tasks.built_in import BuiltInOptions, built_in_task
from rsi_ray.tasks.code_generation import code_generation
from rsi_ray.tasks.language import language
from rsi_ray.tasks.problems import ProblemDomain, problem_domain
from rsi_ray.tasks.reasoning import reasoning
from rsi_ray.tasks.strategic_planning import MOVES, strategic_planning
from rsi_ray.tasks.task import DomainTask
from rsi_ray.tasks.text import TextDomain, text_domain, without_repeats
from search_spaces.transformer import Head

SMALL = BuiltInOptions(code_bytes=200_000, problems=2_000, holdout_size=64)
DENSE = ["language", "code_generation"]
ANSWERED = ["reasoning", "strategic_planning"]


@pytest.fixture(scope="module")
def task() -> DomainTask[Head]:
    return built_in_task(SMALL)


def texts() -> list[TextDomain]:
    return [
        language(length=16, holdout_size=64),
        code_generation(length=16, holdout_size=64, max_bytes=200_000),
    ]


def problems() -> list[ProblemDomain]:
    rng = np.random.default_rng(0)
    return [
        reasoning(length=21, problems=3_000, holdout_size=64, rng=rng),
        strategic_planning(side=4, problems=3_000, holdout_size=64, rng=rng),
    ]


def held_starts(domain: TextDomain) -> Iterator[int]:
    return iter([*domain.holdout_starts, *domain.sealed_starts])


def windows(domain: TextDomain, starts: Iterator[int]) -> Iterator[bytes]:
    return (domain.text[start : start + domain.head.length + 1].tobytes() for start in starts)


@pytest.mark.parametrize("domain", texts(), ids=DENSE)
def test_no_span_of_a_text_that_is_held_occurs_in_any_training_window(domain: TextDomain) -> None:
    held = set(windows(domain, held_starts(domain)))
    assert not any(window in held for window in windows(domain, iter(domain.train_starts)))


@pytest.mark.parametrize("domain", texts(), ids=DENSE)
def test_no_training_window_shares_a_byte_with_a_span_that_is_held(domain: TextDomain) -> None:
    held = np.zeros(len(domain.text), dtype=bool)
    for start in held_starts(domain):
        held[start : start + domain.head.length + 1] = True
    covered = np.zeros_like(held)
    for offset in range(domain.head.length + 1):
        covered[domain.train_starts + offset] = True
    assert not (held & covered).any()
    assert covered.mean() > 0.9


@pytest.mark.parametrize("domain", texts(), ids=DENSE)
def test_the_equal_parts_of_a_text_have_a_span_each_held_out_and_sealed_in_turn(domain: TextDomain) -> None:
    part = len(domain.text) // 128
    assert [start // part for start in domain.holdout_starts] == list(range(0, 128, 2))
    assert [start // part for start in domain.sealed_starts] == list(range(1, 128, 2))


def test_a_span_that_occurs_again_is_not_taken_as_holdout() -> None:
    rng = np.random.default_rng(0)
    text = rng.integers(256, size=400, dtype=np.uint8).tobytes()
    repeated = text[:17] + text
    assert text_domain("t", repeated, length=16, holdout_size=1).holdout_starts[0] > 0


def test_a_text_that_only_repeats_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^poem: .* occurs only once$"):
        text_domain("poem", b"rose is a " * 100, length=16, holdout_size=2)


def test_a_text_too_short_for_its_holdout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^poem: 100 bytes are too few"):
        text_domain("poem", bytes(range(100)), length=16, holdout_size=2)


def test_a_text_too_long_for_its_places_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsi_ray.tasks.text.MAX_BYTES", 99)
    with pytest.raises(ValueError, match=r"^poem: 100 bytes are too many, expected at most 99$"):
        text_domain("poem", bytes(range(100)), length=4, holdout_size=2)


def test_no_more_source_is_kept_than_asked_for() -> None:
    text = code_generation(length=16, holdout_size=64, max_bytes=1_000_000).text
    assert 500_000 < len(text) <= 1_000_000


def test_a_paragraph_that_several_texts_share_is_kept_once() -> None:
    assert without_repeats([b"licence\n\na", b"licence\n\nb"]) == b"licence\n\na\n\nb"


@pytest.mark.parametrize("domain", texts(), ids=DENSE)
def test_the_target_of_a_dense_head_is_the_byte_that_follows(domain: TextDomain) -> None:
    batch = domain.draw(np.random.default_rng(0), 8)
    assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert domain.text.tobytes().find(bytes([*batch.inputs[0], batch.targets[0, -1]])) >= 0


@pytest.mark.parametrize("domain", problems(), ids=ANSWERED)
def test_no_problem_occurs_twice(domain: ProblemDomain) -> None:
    rows = [row.tobytes() for row in domain.problems]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("domain", problems(), ids=ANSWERED)
def test_training_never_draws_a_holdout_problem(domain: ProblemDomain) -> None:
    held = {row.tobytes() for row in domain.holdout().inputs}
    drawn = {row.tobytes() for row in domain.draw(np.random.default_rng(0), 20_000).inputs}
    assert len(drawn) > 1_000
    assert not held & drawn


def test_repeated_problems_are_dropped_before_the_split() -> None:
    head = Head(name="parity", classes=2, length=2, dense=False)
    every = np.array([[48 + a, 48 + b] for a in range(4) for b in range(4)] * 3, dtype=np.uint8)
    domain = problem_domain(head, every, every.sum(axis=1) % 2, holdout_size=5, rng=np.random.default_rng(0))
    assert len(domain.problems) == 16
    assert np.array_equal(domain.answers, domain.problems.sum(axis=1) % 2)


def test_too_few_distinct_problems_are_refused() -> None:
    head = Head(name="parity", classes=2, length=1, dense=False)
    same = np.zeros((100, 1), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"^parity: 1 distinct problems are too few"):
        problem_domain(head, same, np.zeros(100, int), holdout_size=5, rng=np.random.default_rng(0))


def value_of(text: str) -> int:
    """Evaluate a list by rewriting its innermost parts until one digit is left."""
    functions = {"^": max, "_": min, "<": lambda digits: digits[0], ">": lambda digits: digits[-1]}
    while not text.isdigit():
        text = re.sub(r"\(([\^_<>])(\d+)\)", lambda match: functions[match[1]](match[2]), text)
    return int(text)


def test_every_answer_of_reasoning_is_the_value_of_its_list() -> None:
    domain = problems()[0]
    for row, answer in zip(domain.problems, domain.answers, strict=True):
        assert value_of(row.tobytes().lstrip(b"\0").decode()) == answer


def test_every_list_ends_at_the_last_position() -> None:
    assert (problems()[0].problems[:, -1] == ord(")")).all()


def test_a_length_without_room_for_any_list_is_refused() -> None:
    with pytest.raises(ValueError, match="no list fits in 4 bytes"):
        reasoning(length=4, problems=100, holdout_size=1, rng=np.random.default_rng(0))


def best_moves(maze: str, side: int) -> set[str]:
    """Search from S over single cells and return the first moves of all shortest paths."""
    steps = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
    start, goal = divmod(maze.index("S"), side), divmod(maze.index("G"), side)

    def steps_to_goal(origin: tuple[int, int]) -> float:
        queue, seen = deque([(origin, 0)]), {origin}
        while queue:
            (row, column), done = queue.popleft()
            if (row, column) == goal:
                return done
            for down, right in steps.values():
                cell = row + down, column + right
                if not (0 <= cell[0] < side and 0 <= cell[1] < side) or cell in seen:
                    continue
                if maze[cell[0] * side + cell[1]] != "#":
                    seen.add(cell)
                    queue.append((cell, done + 1))
        return float("inf")

    best = steps_to_goal(start)
    after = {name: (start[0] + down, start[1] + right) for name, (down, right) in steps.items()}
    return {
        name
        for name, (row, column) in after.items()
        if 0 <= row < side
        and 0 <= column < side
        and maze[row * side + column] != "#"
        and steps_to_goal((row, column)) == best - 1
    }


def test_every_answer_of_strategic_planning_is_the_only_best_first_move() -> None:
    domain = problems()[1]
    for row, answer in zip(domain.problems[:500], domain.answers[:500], strict=True):
        assert best_moves(row[:-1].tobytes().decode(), 4) == {MOVES[answer]}


def test_one_step_mazes_and_long_ways_round_both_occur() -> None:
    mazes = [row[:-1].tobytes().decode() for row in problems()[1].problems]
    assert any("SG" in maze for maze in mazes)
    assert any(abs(maze.index("S") - maze.index("G")) > 10 for maze in mazes)


def test_every_head_has_the_same_number_of_holdout_samples(task: DomainTask[Head]) -> None:
    holdout = task.holdout()
    assert {len(holdout[head.name].inputs) for head in task.heads} == {task.holdout_size}


def test_inputs_and_targets_have_the_shapes_that_the_heads_declare(task: DomainTask[Head]) -> None:
    batch = task.batch(np.random.default_rng(0), 3)
    for head in task.heads:
        assert batch[head.name].inputs.shape == (3, head.length)
        assert batch[head.name].targets.shape == ((3, head.length) if head.dense else (3,))
        assert batch[head.name].targets.max() < head.classes
        assert batch[head.name].inputs.dtype == batch[head.name].targets.dtype == np.int64


def test_batches_and_holdouts_are_in_the_order_of_the_heads(task: DomainTask[Head]) -> None:
    names = [head.name for head in task.heads]
    assert list(task.batch(np.random.default_rng(0), 1)) == list(task.holdout()) == names


def test_the_four_domains_are_those_that_the_limits_name(task: DomainTask[Head]) -> None:
    assert {head.name for head in task.heads} == {*DENSE, *ANSWERED}


def test_two_preparations_have_the_same_digest_and_the_same_batches(task: DomainTask[Head]) -> None:
    again = built_in_task.__wrapped__(SMALL)
    assert again.digest == task.digest
    one, other = (t.batch(np.random.default_rng(3), 4) for t in (task, again))
    assert all(np.array_equal(one[name].inputs, other[name].inputs) for name in one)


@pytest.mark.parametrize(
    "other",
    [
        BuiltInOptions(code_bytes=200_000, problems=2_000, holdout_size=64, seed=1),
        BuiltInOptions(code_bytes=200_000, problems=2_000, holdout_size=63),
        BuiltInOptions(code_bytes=200_000, problems=2_000, holdout_size=64, text_length=17),
    ],
    ids=["seed", "holdout_size", "text_length"],
)
def test_other_data_has_another_digest(task: DomainTask[Head], other: BuiltInOptions) -> None:
    assert built_in_task(other).digest != task.digest


@pytest.mark.parametrize("domain", [texts()[0], *problems()], ids=["language", *ANSWERED])
def test_one_changed_byte_changes_the_digest(domain: TextDomain | ProblemDomain) -> None:
    name = "text" if isinstance(domain, TextDomain) else "problems"
    data = getattr(domain, name).copy()
    data.flat[-1] ^= 1
    assert replace(domain, **{name: data}).digest != domain.digest


@pytest.mark.parametrize("domain", texts(), ids=DENSE)
def test_another_sealed_span_changes_the_digest(domain: TextDomain) -> None:
    starts = domain.sealed_starts.copy()
    starts[-1] += 1
    assert replace(domain, sealed_starts=starts).digest != domain.digest


def test_one_changed_answer_changes_the_digest() -> None:
    domain = problems()[0]
    assert replace(domain, answers=9 - domain.answers).digest != domain.digest


def test_a_process_prepares_a_task_once() -> None:
    assert built_in_task(SMALL) is built_in_task(
        BuiltInOptions(code_bytes=200_000, problems=2_000, holdout_size=64)
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("holdout_size", 0), ("text_length", -1), ("maze_side", 100), ("seed", 1.5), ("seed", True)],
)
def test_an_option_out_of_its_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a whole number from"):
        BuiltInOptions(**{name: value})  # type: ignore[arg-type]
