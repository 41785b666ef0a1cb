"""Why did the policy of `conditional` get stuck at narrow networks, and what mended it?

    python benchmarks/actors.py [--landscapes linear] [--arms former present] [--seeds 6]

Its actor ended in a sigmoid and followed the critic's gradient as it is; what a walk keeps was bounded from above only,
so that a policy which keeps little everywhere had what it left spread evenly afterwards; and its settings were others.
An arm is a combination of these parts, which live on here only; the state and the returns are those of today. Two
additive landscapes, drawn anew for each seed: a channel of a group is worth the same however many there are (`linear`),
or less and less (`saturating`). Beside the policy's regret (`policies.py`) stands what the actor wants of each group on
the way there, before any bound, and the slope of the critic at that point. Run again to go on.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import policies
import tasks
import torch
from searchers import RESULTS, Landscape
from torch import Tensor, nn

import prunesearch as ps
from prunesearch.budget import FeasibleSet
from prunesearch.search.conditional import ConditionalSearcher, ConditionalSettings, Rollout
from prunesearch.search.ddpg import Agent, DDPGSettings, _Actor
from prunesearch.search.random_search import RandomSearcher
from prunesearch.search.uniform import uniform_structure
from prunesearch.structure import FloatArray, Space, Structure
from prunesearch.trial import Trial

EPISODES = (200, 700)
FIRST_SEED = 500


class SigmoidActor(_Actor):
    """As the published one, in what torch draws for its last layer."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        self.layers[-1] = nn.Linear(hidden, 1)

    def forward(self, states: Tensor) -> Tensor:  # noqa: D102 - as of every module
        return super().forward(states).sigmoid()


class SigmoidAgent(Agent):
    """As the published one: the actor ends in a sigmoid, and the critic is asked about whatever it says."""

    def __init__(self, features: int, settings: DDPGSettings, seed: int) -> None:
        super().__init__(features, settings, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = SigmoidActor(features, settings.hidden).double()
        self._slow_actor = copy.deepcopy(self._actor)
        self._actor_optimizer = torch.optim.Adam(self._actor.parameters(), lr=settings.actor_lr, fused=True)

    def _value(self, states: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
        with torch.no_grad():
            value: Tensor = self._slow_critic(states, self._slow_actor(states))
            return value

    def _improve(self, states: Tensor, lowest: Tensor, highest: Tensor) -> None:
        self._actor_optimizer.zero_grad()
        (-self._critic(states, self._actor(states)).mean()).backward()
        self._actor_optimizer.step()


class BoundedAbove(Rollout):
    """A walk may keep as little as it likes."""

    def allowed(self, kept: Structure, feasible: FeasibleSet, steps: Sequence[int]) -> list[list[int]]:
        """Widths of each of some groups after which the rest can still meet the budget."""
        found = []
        for g in steps:
            widths = np.array(self._space.groups[g].widths)
            meets = feasible.contains(self._tried(kept, [g], self._space.minimum))
            found.append((widths[meets] if meets.any() else widths[:1]).tolist())
        return found


@dataclass(frozen=True)
class Arm:
    """A combination of parts.

    Attributes:
        agent: Actor and critic.
        walk: What may be kept.
        settings: Those that differ from the defaults.
        episodes: How many there are in all.
    """

    agent: type[Agent] = Agent
    walk: type[Rollout] = Rollout
    settings: Mapping[str, float] = field(default_factory=dict)
    episodes: int = EPISODES[0]

    def describe(self) -> dict[str, str]:
        """Its parts in words."""
        changed = [f"`{name}={value:g}`" for name, value in self.settings.items() if value != FORMER[name]]
        return {
            "actor": "sigmoid" if self.agent is SigmoidAgent else "inverted gradients",
            "bounds": "above" if self.walk is BoundedAbove else "above and below",
            "settings": ", ".join(["former", *changed]) if self.settings else "present",
        }


FORMER = {
    "actor_lr": 1e-3,
    "critic_lr": 1e-2,
    "tau": 0.01,
    "minibatch": 64,
    "updates": 8,
    "noise_decay": 0.98,
    "least_noise": 0.0,
}
"""Settings from when the policy got stuck."""

ARMS: Mapping[str, Arm] = {
    "former": Arm(SigmoidAgent, BoundedAbove, FORMER, EPISODES[-1]),
    "former, critic's rate a tenth": Arm(SigmoidAgent, BoundedAbove, {**FORMER, "critic_lr": 1e-3}),
    "former, noise that stays": Arm(SigmoidAgent, BoundedAbove, {**FORMER, "noise_decay": 1.0}),
    "former, inverted gradients": Arm(Agent, BoundedAbove, FORMER),
    "former, bounded below": Arm(SigmoidAgent, Rollout, FORMER),
    "former, both": Arm(Agent, Rollout, FORMER),
    "present": Arm(episodes=EPISODES[-1]),
    "present, sigmoid": Arm(agent=SigmoidAgent),
    "present, not bounded below": Arm(walk=BoundedAbove),
}

WHOLE, PARTS_ON = ("former", "present"), "linear"
"""The arms that are measured on both landscapes; the others where the former one gets stuck."""


class Variant(ConditionalSearcher):
    """`conditional` with the parts of an arm."""

    def __init__(self, space: Space, budget: ps.Budget, arm: Arm, seed: int) -> None:
        own = ConditionalSettings(**arm.settings)  # type: ignore[arg-type]  # sizes are whole
        super().__init__(space, budget, seed=seed, settings=own)
        self.walk = arm.walk(space, self.feasible)
        ddpg = DDPGSettings(own.hidden, own.actor_lr, own.critic_lr, own.tau, own.minibatch)
        self.agent = arm.agent(self.walk.features, ddpg, seed)

    def wanted(self, structure: Structure) -> tuple[FloatArray, FloatArray]:
        """(g,) what the actor wants of each group on the way to a structure, and (g,) the critic's slopes there."""
        states = torch.from_numpy(self.walk.states(structure, 1.0, range(len(structure))))
        with torch.no_grad():
            wanted = self.agent._actor(states)
        wanted.requires_grad_()
        (slopes,) = torch.autograd.grad(self.agent._critic(states, wanted).sum(), wanted)
        return wanted.detach().numpy(), slopes.numpy()


def linear(kept: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A channel of a group is worth the same however many there are."""
    return (rng.uniform(0.1, 2.0, kept.shape[1]) * kept).sum(axis=1)


def saturating(kept: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A channel of a group is worth less the more there are."""
    return -np.exp(-rng.uniform(1.5, 8.0, kept.shape[1]) * kept).sum(axis=1)


ADDITIVE: Mapping[str, Callable[[FloatArray, np.random.Generator], FloatArray]] = {
    "linear": linear,
    "saturating": saturating,
}


def learnt(landscape: Landscape, arm: Arm, seed: int) -> dict[str, Any]:
    """What the policy of an arm is after each number of episodes."""
    searcher, trials = Variant(landscape.space, landscape.budget, arm, seed), list[Trial]()
    after = {}
    for total in (episodes for episodes in EPISODES if episodes <= arm.episodes):
        policies.play(searcher, landscape, trials, total)
        structure = searcher.policy(1.0)
        wanted, slopes = searcher.wanted(structure)
        after[str(total)] = {
            "regret": round(policies.regret_of(landscape, structure), 4),
            "wanted": wanted.round(6).tolist(),
            "slopes": slopes.round(6).tolist(),
        }
    return after


def baselines(landscape: Landscape, seed: int) -> dict[str, Any]:
    """The regret of the uniform structure, and of a random search after as many evaluations."""
    even = policies.regret_of(landscape, uniform_structure(landscape.budget.check(landscape.space)))
    searcher, trials = RandomSearcher(landscape.space, landscape.budget, seed=seed), list[Trial]()
    policies.play(searcher, landscape, trials, EPISODES[-1])
    best = {str(total): round(policies.best_within(landscape, trials[:total]), 4) for total in EPISODES}
    return {"uniform": round(even, 4), "random": best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", nargs="*", default=list(ADDITIVE), choices=ADDITIVE)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS / "actors.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"cells": {}}
    stored["facts"] = {
        "machine": platform.machine(),
        "prunesearch": ps.__version__,
        "episodes": EPISODES,
        "arms": {name: arm.describe() for name, arm in ARMS.items()},
    }
    for kind in arguments.landscapes:
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            landscape = policies.drawn(kind, seed, ADDITIVE)
            for arm in (arm for arm in arguments.arms if arm in WHOLE or kind == PARTS_ON):
                cell = f"{kind}.{arm}.{seed}"
                if cell not in stored["cells"]:
                    facts = {"landscape": kind, "arm": arm, "seed": seed, **baselines(landscape, seed)}
                    stored["cells"][cell] = {**facts, "after": learnt(landscape, ARMS[arm], seed)}
                    tasks.save(stored, arguments.out, indent=None)
                    print(cell, {n: found["regret"] for n, found in stored["cells"][cell]["after"].items()}, flush=True)


if __name__ == "__main__":
    main()
