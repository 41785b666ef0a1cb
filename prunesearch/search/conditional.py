"""One policy for a whole set of budgets: a DDPG agent that walks through the groups with the budget in its state."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.budget import Budget, FeasibleSet, as_structures
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.structure import FloatArray, Space, Structure

FEATURES = 10


@dataclass(frozen=True)
class ConditionalSettings:
    """How the agent learns. Published values are the authors'; other defaults suit hundreds of evaluations.

    Attributes:
        warmup: Random structures per share before the policy acts; published: 300 in all.
        batch_size: Structures per batch, the shares in turn.
        hidden: Units of the hidden layers of actor and critic; published: 300.
        actor_lr: Of Adam; published: 1e-4.
        critic_lr: Of Adam; published: 1e-3.
        tau: Share of the online networks that goes into the target ones per update.
        minibatch: Steps per update.
        updates: Per episode learnt; published: one per step of it.
        noise: Standard deviation of the truncated normal around the policy's action, after the warm-up.
        noise_decay: Factor per later episode of the same share; published: 0.95 per episode of any.
    """

    warmup: int = 20
    batch_size: int = 6
    hidden: int = 64
    actor_lr: float = 1e-3
    critic_lr: float = 1e-2
    tau: float = 0.01
    minibatch: int = 64
    updates: int = 8
    noise: float = 0.5
    noise_decay: float = 0.98

    def __post_init__(self) -> None:
        if min(self.warmup, self.batch_size, self.hidden, self.minibatch, self.updates) < 1:
            raise ValueError(f"Expected sizes of at least 1, got {self}.")
        if not 0 < self.noise_decay <= 1 or self.noise < 0:
            raise ValueError(f"Expected noise >= 0 and a noise_decay in (0, 1], got {self}.")


@dataclass(frozen=True)
class _Episode:
    """One walk through the groups: (g, features) states, (g,) kept fractions, its share of the budget, its score."""

    states: FloatArray
    actions: FloatArray
    share: int
    score: float


class ConditionalSearcher(BatchSearcher):
    """Learns one policy that answers several budgets, and others in between.

    An episode walks through the groups in order. The state says which group it is, what it costs, how much is already
    saved and still to come, the previous action, and the share of the budget that is asked for; the action is the kept
    fraction, clamped so that the rest can still meet that share. The return of an episode is the rank of its score
    among those of its share, from -1/2 to 1/2, in equal parts at every step.

    Source: Liu et al., Conditional automated channel pruning, IEEE SPL 2021 (arXiv:2009.09724), and the authors' code:
    DDPG, actor and critic of two hidden layers, learning rates 1e-4 and 1e-3, tau 0.01, discount 1, truncated normal
    noise. Departs from it: the clamp is the one on the kept fraction, exact by the space's costs, where the printed
    equation contradicts itself; warm-up structures are random ones scaled to the budget; what the last group leaves of
    the budget is used up; kernel sizes and strides are not in the state, the group's costs are; noise decays per share;
    ranks within a share take the place of baselines per share; there is no reconstruction inside.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        shares: Of the budget, each in (0, 1]: one policy serves them all.
        settings: How it learns.

    Raises:
        InfeasibleBudget: No structure meets the budget.
    """

    settings_type = ConditionalSettings

    def __init__(
        self,
        space: Space,
        budget: Budget,
        *,
        seed: int = 0,
        shares: Sequence[float] = (1.0,),
        settings: ConditionalSettings | None = None,
    ) -> None:
        super().__init__(space, budget, seed=seed)
        if not shares or not all(0 < share <= 1 for share in shares):
            raise ValueError(f"Expected shares of the budget in (0, 1], got {tuple(shares)}.")
        self._shares = tuple(sorted(shares, reverse=True))
        self._sets = [self.feasible.tightened(share) for share in self._shares]
        self._settings = settings or ConditionalSettings()
        self._walk = _Walk(space, self.feasible)
        self._agent = _Agent(self._settings, seed)
        self._episodes: list[_Episode] = []
        self._learnt = 0
        self._turns = [0] * len(self._shares)

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Learn from what was told, then put a structure of each share in turn into the queue."""
        self._remember()
        self._learn(rng)
        if min(self._turns) < self._settings.warmup:
            for index, feasible in enumerate(self._sets):
                put_random(self.queue, feasible, rng, self._settings.batch_size)
                self._turns[index] += self._settings.batch_size
            return
        for number in range(self._settings.batch_size):
            index = (batch + number) % len(self._shares)
            noise = self._settings.noise * self._settings.noise_decay ** (self._turns[index] - self._settings.warmup)
            proposed = self._act(self._shares[index], self._sets[index], noise, rng)
            if not self.queue.put([proposed], 1):
                put_random(self.queue, self._sets[index], rng, 1)
            self._turns[index] += 1

    def policy(self, share: float) -> Structure:
        """What the policy, without noise, keeps for a share of the budget, one it was not trained on included.

        Raises:
            ValueError: The share is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"Expected a share of the budget in (0, 1], got {share}.")
        return self._act(share, self.feasible.tightened(share), 0.0, np.random.default_rng(0))

    def _act(self, share: float, feasible: FeasibleSet, noise: float, rng: np.random.Generator) -> Structure:
        """Walk through the groups; widen what is left."""
        kept: Structure = ()
        previous = 1.0
        for group in self.space.groups:
            state = self._walk.state(kept, share, previous)
            wanted = _truncated_normal(self._agent.act(state), noise, rng)
            allowed = self._walk.allowed(kept, feasible)
            width = min(allowed, key=lambda candidate: abs(candidate / group.width - wanted))
            kept, previous = (*kept, width), width / group.width
        return as_structures(feasible.widen([kept]))[0]

    def _remember(self) -> None:
        """Make episodes of the trials told since, whoever proposed them."""
        structures, scores = self.told.scored()
        for structure, score in zip(
            as_structures(structures)[len(self._episodes) :], scores[len(self._episodes) :], strict=True
        ):
            self._episodes.append(self._episode(structure, float(score)))

    def _episode(self, structure: Structure, score: float) -> _Episode:
        usage = float(self.feasible.usage([structure])[0])
        admitting = [i for i, feasible in enumerate(self._sets) if feasible.contains([structure])[0]]
        index = admitting[-1] if admitting else 0
        share = self._shares[index] if admitting else min(usage, 1.0)
        actions = np.array(structure) / np.array(self.space.full)
        previous = [1.0, *actions[:-1]]
        states = [self._walk.state(structure[:g], share, previous[g]) for g in range(len(structure))]
        return _Episode(np.array(states), actions, index, score)

    def _learn(self, rng: np.random.Generator) -> None:
        fresh = len(self._episodes) - self._learnt
        if fresh == 0 or not self.space.groups:
            return
        returns = np.zeros(len(self._episodes))
        shares = np.array([episode.share for episode in self._episodes])
        scores = np.array([episode.score for episode in self._episodes])
        for share in np.unique(shares):
            chosen = shares == share
            ranks = scores[chosen].argsort(kind="stable").argsort(kind="stable")
            returns[chosen] = (ranks + 0.5) / chosen.sum() - 0.5
        self._agent.learn(self._episodes, returns / len(self.space.groups), fresh * self._settings.updates, rng)
        self._learnt = len(self._episodes)


class _Walk:
    """The environment: what the agent sees of each group, and which widths the rest of the walk still allows."""

    def __init__(self, space: Space, feasible: FeasibleSet) -> None:
        self._space = space
        self._feasible = feasible
        full = np.array(space.full)
        without = np.repeat(full[None], len(full), axis=0)
        np.fill_diagonal(without, np.array(space.minimum))
        self._macs = (space.macs([full]) - space.macs(without)) / space.macs([full])
        self._params = (space.params([full]) - space.params(without)) / space.params([full])
        self._widths = full / full.max(initial=1)
        self._most = float(feasible.usage([full])[0])

    def state(self, kept: Structure, share: float, previous: float) -> FloatArray:
        """(features,) before the next group is decided."""
        g, groups = len(kept), len(self._space.groups)
        full, minimum = self._space.full, self._space.minimum
        decided = float(self._feasible.usage([(*kept, *full[g:])])[0])
        least = float(self._feasible.usage([(*kept, *minimum[g:])])[0])
        return np.array(
            [
                g / groups,
                self._widths[g],
                self._macs[g],
                self._params[g],
                len(self._space.groups[g].widths) / self._space.groups[g].width,
                share,
                (self._most - decided) / self._most,
                least / share,
                self._macs[g:].sum(),
                previous,
            ]
        )

    def allowed(self, kept: Structure, feasible: FeasibleSet) -> list[int]:
        """Widths of the next group that leave room for the others at their narrowest."""
        g = len(kept)
        widths = self._space.groups[g].widths
        rest = self._space.minimum[g + 1 :]
        inside = feasible.contains([(*kept, width, *rest) for width in widths])
        return [width for width, is_inside in zip(widths, inside, strict=True) if is_inside]


class _Agent:
    """DDPG in float64 on the CPU: actor, critic, and slow copies of both.

    Source: Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016, arXiv:1509.02971.
    """

    def __init__(self, settings: ConditionalSettings, seed: int) -> None:
        self._settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = _Actor(settings.hidden).double()
            self._critic = _Critic(settings.hidden).double()
        self._slow_actor, self._slow_critic = copy.deepcopy(self._actor), copy.deepcopy(self._critic)
        self._actor_optimizer = torch.optim.Adam(self._actor.parameters(), lr=settings.actor_lr, fused=True)
        self._critic_optimizer = torch.optim.Adam(self._critic.parameters(), lr=settings.critic_lr, fused=True)

    def act(self, state: FloatArray) -> float:
        """The kept fraction that the policy prefers."""
        with torch.no_grad():
            return float(self._actor(torch.from_numpy(state)[None]))

    def learn(self, episodes: Sequence[_Episode], rewards: FloatArray, updates: int, rng: np.random.Generator) -> None:
        """Update both networks from random steps of the episodes, whose steps have the (p,) rewards."""
        states = torch.from_numpy(np.concatenate([episode.states for episode in episodes]))
        actions = torch.from_numpy(np.concatenate([episode.actions for episode in episodes]))
        steps = len(episodes[0].actions)
        reward = torch.from_numpy(np.repeat(rewards, steps))
        last = torch.arange(len(actions)) % steps == steps - 1
        following = torch.where(last, torch.arange(len(actions)), torch.arange(len(actions)) + 1)
        for _ in range(updates):
            chosen = torch.from_numpy(rng.integers(0, len(actions), self._settings.minibatch))
            self._update(states[chosen], actions[chosen], reward[chosen], states[following[chosen]], ~last[chosen])

    def _update(self, states: Tensor, actions: Tensor, rewards: Tensor, following: Tensor, goes_on: Tensor) -> None:
        with torch.no_grad():
            later = self._slow_critic(following, self._slow_actor(following))
        loss = F.mse_loss(self._critic(states, actions), rewards + goes_on * later)
        _step(self._critic_optimizer, loss)
        _step(self._actor_optimizer, -self._critic(states, self._actor(states)).mean())
        with torch.no_grad():
            for slow, online in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
                torch._foreach_lerp_(list(slow.parameters()), list(online.parameters()), self._settings.tau)


class _Actor(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, states: Tensor) -> Tensor:
        return torch.sigmoid(self.layers(states)).squeeze(-1)


class _Critic(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.state, self.action = nn.Linear(FEATURES, hidden), nn.Linear(1, hidden)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        return self.rest(self.state(states) + self.action(actions[:, None])).squeeze(-1)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _truncated_normal(mean: float, deviation: float, rng: np.random.Generator) -> float:
    """A draw in [0, 1]."""
    if deviation < 1e-6:
        return min(max(mean, 0.0), 1.0)
    for _ in range(100):
        drawn = rng.normal(mean, deviation)
        if 0 <= drawn <= 1:
            return float(drawn)
    return min(max(mean, 0.0), 1.0)
