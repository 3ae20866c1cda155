"""The controller: an LSTM that writes a spec as a sequence of decisions, each fed back as the next input.

Source: Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rsi_ray.samplers.meta_learner.fields import Field, Fields

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
SIZE, HIDDEN = 16, 32
PARTS = 8
RATE, ENTROPY, BASELINE = 0.01, 0.02, 0.9


def levels(field: Field) -> int:
    """Answers that the controller can give: the values, or parts of a range."""
    return PARTS if field.places is None else len(field.places)


def level_of(field: Field, places: Array) -> npt.NDArray[np.int64]:
    """The answer that each place is, -1 for none."""
    there = np.nan_to_num(places)
    if field.places is None:
        found = np.minimum(there * PARTS, PARTS - 1).astype(np.int64)
    else:
        found = np.abs(there[:, None] - field.places).argmin(axis=1)
    return np.where(np.isnan(places), -1, found)


def place_of(field: Field, answers: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
    """A place for each answer, anywhere in its part of a range."""
    if field.places is not None:
        return np.asarray(field.places[answers])
    return np.asarray((answers + rng.random(len(answers))) / PARTS)


class Writer(nn.Module):
    """The network: what is asked and the answer before it go in, a score of each answer comes out.

    Args:
        questions: how many parameters it knows.
        answers: how many answers to all of them.
    """

    def __init__(self, questions: int, answers: int) -> None:
        super().__init__()
        self.asked = nn.Parameter(0.1 * torch.randn(questions, SIZE))
        # the last one is that nothing was answered
        self.answers = nn.Parameter(0.1 * torch.randn(answers + 1, SIZE))
        self.liked = nn.Parameter(torch.zeros(answers + 1))
        self.lstm = nn.LSTM(2 * SIZE, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, SIZE)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, asked: torch.Tensor, before: torch.Tensor, offered: torch.Tensor) -> torch.Tensor:
        """Logarithms of the probability of each answer.

        Args:
            asked: index of each step's parameter, (steps,).
            before: answer given at the step before, (rows, steps).
            offered: answers that a step offers, -1 where there are fewer, (steps, most).

        Returns:
            (rows, steps, most), minus infinity where none is offered.
        """
        questions = self.asked[asked].expand(len(before), -1, -1)
        hidden, _ = self.lstm(torch.cat([questions, self.answers[before]], dim=2))
        scores = torch.einsum("rsd,smd->rsm", self.out(hidden), self.answers[offered]) + self.liked[offered]
        return torch.log_softmax(scores.masked_fill(offered < 0, -math.inf), dim=2)


class Controller:
    """Draws specs from the network and trains it by REINFORCE.

    It knows parameters by their names, and learns new ones and new ranges as they come.

    Args:
        seed: of the first weights.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.known: dict[str, Field] = {}
        self.baseline: float | None = None
        self._plain: dict[str, Array] = {}
        self._use(self._made(0, 0))

    def _made(self, questions: int, answers: int) -> Writer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return Writer(questions, answers)

    def meet(self, fields: Fields) -> None:
        """Learn the names and the ranges of a space; what is known of answers that stay is kept."""
        new = {field.name: field for field in fields.fields}
        if all(self.known.get(name) == field for name, field in new.items()):
            return
        self._become({**self.known, **new})

    def _become(self, known: dict[str, Field]) -> None:
        old, old_first, old_known = self.writer, self._first(), self.known
        self.known = known
        writer = self._made(len(known), sum(levels(field) for field in known.values()))
        kept = {name: value for name, value in old.state_dict().items() if name.startswith(("lstm", "out"))}
        writer.load_state_dict(kept, strict=False)
        first = self._first()
        with torch.no_grad():
            for index, (name, field) in enumerate(known.items()):
                if name not in old_known:
                    continue
                writer.asked[index] = old.asked[list(old_known).index(name)]
                for level, old_level in enumerate(_old_levels(field, old_known[name])):
                    if old_level >= 0:
                        writer.answers[first[name] + level] = old.answers[old_first[name] + old_level]
                        writer.liked[first[name] + level] = old.liked[old_first[name] + old_level]
            writer.answers[-1] = old.answers[-1]
        self._use(writer)

    def _use(self, writer: Writer) -> None:
        self.writer = writer
        self._adam = torch.optim.Adam(writer.parameters(), lr=RATE)
        self._plain = {}

    def _first(self) -> dict[str, int]:
        first, total = {}, 0
        for name, field in self.known.items():
            first[name] = total
            total += levels(field)
        return first

    def weights(self) -> dict[str, Array]:
        """The network's as arrays; until it is trained again."""
        if not self._plain:
            state = self.writer.state_dict()
            self._plain = {name: value.numpy().astype(np.float64) for name, value in state.items()}
        return self._plain

    def draw(
        self,
        fields: Fields,
        count: int,
        rng: np.random.Generator,
        absent: Callable[[Array, int], npt.NDArray[np.bool_]],
        given: Mapping[int, float] = MappingProxyType({}),
    ) -> Array:
        """Write specs, one decision after another.

        Args:
            fields: of the space, in the order of the decisions.
            count: how many specs.
            rng: of the draws.
            absent: which rows, as far as they are written, have no field of this index.
            given: places that are decided already, by index.
        """
        weights, first = self.weights(), self._first()
        order = {name: index for index, name in enumerate(self.known)}
        rows = np.full((count, len(fields)), np.nan)
        hidden = np.zeros((count, HIDDEN))
        cell = np.zeros((count, HIDDEN))
        before = np.repeat(weights["answers"][-1:], count, axis=0)
        for index, field in enumerate(fields.fields):
            asked = np.repeat(weights["asked"][None, order[field.name]], count, axis=0)
            hidden, cell = _lstm(weights, np.concatenate([asked, before], axis=1), hidden, cell)
            offered = slice(first[field.name], first[field.name] + levels(field))
            spoken = hidden @ weights["out.weight"].T + weights["out.bias"]
            scores = spoken @ weights["answers"][offered].T + weights["liked"][offered]
            chosen = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
            rows[:, index] = place_of(field, chosen, rng)
            if index in given:
                rows[:, index] = given[index]
                chosen = level_of(field, rows[:, index])
            rows[absent(rows, index), index] = np.nan
            there = ~np.isnan(rows[:, index])
            before = np.where(there[:, None], weights["answers"][offered][chosen], weights["answers"][-1])
        return rows

    def decide(self, fields: Fields, given: Mapping[int, float], rng: np.random.Generator) -> float:
        """The place of the last field after those that are given, by index."""
        return float(self.draw(fields, 1, rng, _all_there, given)[0, -1])

    def train(self, fields: Fields, rows: Array, rewards: Array) -> None:
        """One step of REINFORCE on specs that it drew: the reward above the moving baseline, and entropy.

        Args:
            fields: of the space.
            rows: the specs, (rows, fields).
            rewards: of each, more is better, (rows,).
        """
        if self.baseline is None:
            self.baseline = float(rewards.mean())
        asked, before, offered, chosen = self._steps(fields, rows)
        told = self.writer(asked, before, offered)
        there = chosen >= 0
        taken = told.gather(2, chosen.clamp(min=0)[..., None])[..., 0].masked_fill(~there, 0.0).sum(dim=1)
        surprise = -(told.exp() * told.masked_fill(offered < 0, 0.0)).sum(dim=2)
        advantage = torch.as_tensor(rewards - self.baseline, dtype=torch.float32)
        loss = -(advantage * taken).mean() - ENTROPY * surprise.masked_fill(~there, 0.0).sum(dim=1).mean()
        self._adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.writer.parameters(), 1.0)
        self._adam.step()
        self.baseline = BASELINE * self.baseline + (1 - BASELINE) * float(rewards.mean())
        self._plain = {}

    def _steps(
        self, fields: Fields, rows: Array
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What was asked, answered before, offered, and chosen (-1 for nothing), as the network takes it."""
        first, order = self._first(), {name: index for index, name in enumerate(self.known)}
        most = max(levels(field) for field in fields.fields)
        offered = np.full((len(fields), most), -1)
        chosen = np.full(rows.shape, -1)
        for index, field in enumerate(fields.fields):
            offered[index, : levels(field)] = first[field.name] + np.arange(levels(field))
            chosen[:, index] = level_of(field, rows[:, index])
        starts = np.array([first[field.name] for field in fields.fields])
        # -1 is the last row of the answers: none
        answered = np.where(chosen >= 0, chosen + starts, -1)
        before = np.concatenate([np.full((len(rows), 1), -1), answered[:, :-1]], axis=1)
        asked = np.array([order[field.name] for field in fields.fields])
        return (
            torch.as_tensor(asked),
            torch.as_tensor(before),
            torch.as_tensor(offered),
            torch.as_tensor(chosen),
        )

    def tensors(self) -> dict[str, Floats]:
        """The network's weights, by their names."""
        return {name: value.numpy().copy() for name, value in self.writer.state_dict().items()}

    def load(self, known: Mapping[str, Field], tensors: Mapping[str, Floats], baseline: float | None) -> None:
        """Take up the parameters that are known, the weights and the baseline of another one.

        Raises:
            ValueError: the weights are not of these parameters.
        """
        writer = self._made(len(known), sum(levels(field) for field in known.values()))
        try:
            writer.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise ValueError(f"weights of another controller: {said}") from error
        self.known = dict(known)
        self._use(writer)
        self.baseline = baseline


def _all_there(rows: Array, _: int) -> npt.NDArray[np.bool_]:
    return np.zeros(len(rows), dtype=np.bool_)


def _old_levels(field: Field, old: Field) -> list[int]:
    """For each answer of a parameter, the one that it was before; -1 where it is new."""
    at = (np.arange(PARTS) + 0.5) / PARTS if field.places is None else field.places
    was = np.array([old.place(field.value(place)) for place in at.tolist()])
    return [int(level) for level in level_of(old, was)]


def _lstm(weights: Mapping[str, Array], x: Array, hidden: Array, cell: Array) -> tuple[Array, Array]:
    """One step of PyTorch's LSTM, whose gates are input, forget, cell and output."""
    gates = x @ weights["lstm.weight_ih_l0"].T + hidden @ weights["lstm.weight_hh_l0"].T
    gates += weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]
    enter, forget, new, leave = np.split(gates, 4, axis=1)
    cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-enter))
    return np.tanh(cell) / (1 + np.exp(-leave)), cell
