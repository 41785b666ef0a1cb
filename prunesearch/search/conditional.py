"""One policy for a whole set of budgets: a DDPG agent that walks through the groups with the budget in its state."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from prunesearch.budget import BudgetOrSet, FeasibleSet, as_structures
from prunesearch.errors import InfeasibleBudget
from prunesearch.ranges import number, whole_number
from prunesearch.search.ddpg import Agent, DDPGSettings, Walks
from prunesearch.search.proposals import BatchSearcher, put_random
from prunesearch.search.surrogate import normal_scores
from prunesearch.structure import FloatArray, Space, Structure

_SCALE = 0.3  # so that most returns are between -1 and 1


@dataclass(frozen=True)
class ConditionalSettings:
    """How the agent learns. Published values are the authors'; other defaults suit hundreds of evaluations.

    Attributes:
        warmup: Random structures per share before the policy acts; published: 300 in all.
        batch_size: Structures per batch, the shares in turn.
        hidden: Units of the hidden layers of actor and critic; published: 300.
        actor_lr: Learning rate of the actor (Adam); published: 1e-4.
        critic_lr: Learning rate of the critic (Adam); published: 1e-3.
        tau: Share of the online networks that goes into the target ones per update; published: 0.01.
        minibatch: Steps per update; published: 64.
        updates: Per episode learnt; published: one per step of it.
        noise: Standard deviation of the truncated normal around the policy's action, after the warm-up; published: 0.5.
        noise_decay: Factor per later episode of the same share; published: 0.95 per episode of any.
        least_noise: Where the decay ends; published: nowhere.

    Raises:
        TypeError: One of them is no number, or no whole one.
        ValueError: One of them is too small or too large.
    """

    warmup: int = 24
    batch_size: int = 6
    hidden: int = 64
    actor_lr: float = 2e-3
    critic_lr: float = 5e-3
    tau: float = 0.1
    minibatch: int = 128
    updates: int = 4
    noise: float = 0.425
    noise_decay: float = 0.96
    least_noise: float = 0.04

    def __post_init__(self) -> None:
        for name in ("warmup", "batch_size", "hidden", "minibatch", "updates"):
            whole_number(name, getattr(self, name), at_least=1)
        for name in ("actor_lr", "critic_lr"):
            number(name, getattr(self, name), "(0, inf)")
        for name in ("tau", "noise_decay"):
            number(name, getattr(self, name), "(0, 1]")
        for name in ("noise", "least_noise"):
            number(name, getattr(self, name), "[0, inf)")


@dataclass(frozen=True)
class _Episode:
    """One walk through the groups.

    Attributes:
        states: (g, features).
        actions: (g,) kept fractions.
        bounds: (g, 2) the lowest and the highest of them that the share allowed.
        share: Index of the share of the budget.
    """

    states: FloatArray
    actions: FloatArray
    bounds: FloatArray
    share: int


class ConditionalSearcher(BatchSearcher):
    """Learns one policy that answers several budgets, and others in between.

    An episode walks through the groups in order. The state says which group it is, what it costs, how much is already
    saved and still to come, what the groups before it keep, and the share of the budget that is asked for; the action
    is the kept fraction, clamped so that the rest can still meet that share and use it up. The return of an episode is
    the normal score of its rank among those of its share, in equal parts at every step.

    Source: Liu et al., Conditional automated channel pruning, IEEE SPL 2021 (arXiv:2009.09724), and the authors' code:
    DDPG, actor and critic of two hidden layers, discount 1, truncated normal noise, features scaled over the layers.
    Departs from it:

    - The actor is linear with inverted gradients (arXiv:1511.04143), where theirs ends in a sigmoid, which saturates.
    - The clamp is exact by the space's costs, where the printed equation contradicts itself, and has a lower side, too:
      what no later group could use is used now. Without it a policy that keeps little everywhere is never corrected,
      as what it leaves is used up after the walk, and the critic sees other actions than it chose. Noise is drawn, and
      the critic asked, within the clamp only.
    - The state has the index of the group as a vector of zeros and a one, and all kept fractions so far, where theirs
      has a number and the last fraction; it has the group's costs in place of kernel sizes and strides.
    - Normal scores of ranks within a share take the place of scores minus a baseline.
    - Random structures scaled to the budget warm up, not random walks, and the agent learns from them, too; theirs
      begins to learn after the warm-up. Every episode is replayed, where theirs keeps the last steps of 30 episodes.
    - Networks are smaller, rates higher, updates fewer, for hundreds of evaluations. Noise decays per share, and not to
      nothing. There is no reconstruction inside, and no beam search.

    Args:
        space: Where structures live.
        budget: What every proposal must meet.
        seed: Decides every draw.
        shares: Shares of the budget, each in (0, 1], for which structures are proposed; one policy learns all of them.
        settings: How it learns.

    Attributes:
        walk: What the agent sees and may do.
        agent: Actor and critic.

    Raises:
        InfeasibleBudget: No structure meets the budget, or one of its shares.
        ValueError: There is no share, or one outside (0, 1].
    """

    settings_type = ConditionalSettings

    def __init__(
        self,
        space: Space,
        budget: BudgetOrSet,
        *,
        seed: int = 0,
        shares: Sequence[float] = (1.0,),
        settings: ConditionalSettings | None = None,
    ) -> None:
        super().__init__(space, budget, seed=seed)
        if not shares:
            raise ValueError("Expected at least one of the shares of the budget, got none. Say for example [1, 0.8].")
        self._shares = tuple(sorted(set(shares), reverse=True))
        self._sets = [of_share(self.feasible, share) for share in self._shares]
        self._settings = own = settings or ConditionalSettings()
        self.walk = Rollout(space, self.feasible)
        ddpg = DDPGSettings(own.hidden, own.actor_lr, own.critic_lr, own.tau, own.minibatch)
        self.agent = Agent(self.walk.features, ddpg, seed)
        self._episodes: list[_Episode] = []
        self._turns = [0] * len(self._shares)

    def plan(self, rng: np.random.Generator, batch: int) -> None:
        """Learn from what was told, then put a structure of each share in turn into the queue."""
        self._learn(rng)
        own = self._settings
        if min(self._turns) < own.warmup:
            for index, feasible in enumerate(self._sets):
                more = min(own.batch_size, own.warmup - self._turns[index])
                put_random(self.queue, feasible, rng, more)
                self._turns[index] += more
            return
        for turn in range(own.batch_size):
            index = (batch + turn) % len(self._shares)
            proposed = self._act(self._shares[index], self._sets[index], self._noise(index), rng)
            if not self.queue.put([proposed], 1):
                put_random(self.queue, self._sets[index], rng, 1)
            self._turns[index] += 1

    def _noise(self, index: int) -> float:
        own = self._settings
        return max(own.least_noise, own.noise * own.noise_decay ** (self._turns[index] - own.warmup))

    def policy(self, share: float) -> Structure:
        """What the policy, without noise, keeps for a share of the budget, also one that it was not trained on.

        It has learnt from everything told by now. Asking it changes nothing of what is proposed later.

        Raises:
            ValueError: The share is not in (0, 1].
            InfeasibleBudget: No structure meets it.
        """
        feasible = of_share(self.feasible, share)
        learnt = copy.copy(self)
        learnt.agent, learnt._episodes = copy.deepcopy(self.agent), list(self._episodes)
        learnt._learn(np.random.default_rng([self._seed, 2, len(self.told)]))
        return learnt._act(share, feasible, 0.0, np.random.default_rng(0))

    def _act(self, share: float, feasible: FeasibleSet, noise: float, rng: np.random.Generator) -> Structure:
        """Rollout through the groups; widen what is left."""
        kept: Structure = ()
        for g, group in enumerate(self.space.groups):
            (allowed,) = self.walk.allowed(kept, feasible, [g])
            wanted = self.agent.act(self.walk.states(kept, share, [g])[0])
            wanted = _truncated_normal(wanted, noise, (allowed[0] / group.width, allowed[-1] / group.width), rng)
            kept = (*kept, min(allowed, key=lambda width: abs(width / group.width - wanted)))
        return as_structures(feasible.widen([kept]))[0]

    def _learn(self, rng: np.random.Generator) -> None:
        """Make episodes of the trials told since, whoever proposed them, and learn from all."""
        structures, scores = self.told.scored()
        fresh = range(len(self._episodes), len(scores))
        if not fresh or not self.space.groups:
            return
        told = as_structures(structures)
        self._episodes += [self._episode(told[i]) for i in fresh]
        rewards = self._returns(scores) / len(self.space.groups)
        states, actions, bounds = (
            np.stack([getattr(episode, part) for episode in self._episodes]) for part in ("states", "actions", "bounds")
        )
        walks = Walks(states, actions, bounds[..., 0], bounds[..., 1], rewards)
        self.agent.learn(walks, len(fresh) * self._settings.updates, rng)

    def _episode(self, structure: Structure) -> _Episode:
        admitting = [i for i, feasible in enumerate(self._sets) if feasible.contains([structure])[0]]
        index = admitting[-1] if admitting else 0
        steps = range(len(structure))
        full = np.array(self.space.full)
        allowed = self.walk.allowed(structure, self._sets[index], steps)
        bounds = np.array([(widths[0], widths[-1]) for widths in allowed]) / full[:, None]
        states = self.walk.states(structure, self._shares[index], steps)
        return _Episode(states, np.array(structure) / full, bounds, index)

    def _returns(self, scores: FloatArray) -> FloatArray:
        """(p,) how good every episode is among those of its share: normal scores, most of them between -1 and 1.

        Args:
            scores: (p,) of the episodes, as of now: a failed one has the lowest of all, which may be a later one's.
        """
        returns = np.zeros(len(self._episodes))
        shares = np.array([episode.share for episode in self._episodes])
        for share in np.unique(shares):
            returns[shares == share] = normal_scores(scores[shares == share]) * _SCALE
        return returns


class Rollout:
    """The environment: what the agent sees of each group, and which widths the rest of the walk still allows."""

    def __init__(self, space: Space, feasible: FeasibleSet) -> None:
        self._space = space
        self._feasible = feasible
        full = np.array(space.full)
        without = np.repeat(full[None], len(full), axis=0)
        np.fill_diagonal(without, np.array(space.minimum))
        macs = space.macs([full]) - space.macs(without)
        params = space.params([full]) - space.params(without)
        shares = macs / max(macs.sum(), 1)
        ahead = shares[::-1].cumsum()[::-1]
        self._static = np.column_stack([*map(_spread, (full, shares, params, ahead)), np.eye(len(full))])
        self._most = float(feasible.usage([full])[0])
        self.features = self._static.shape[1] + len(full) + 5

    def states(self, kept: Structure, share: float, steps: Sequence[int]) -> FloatArray:
        """(steps, features) before each of some groups is decided, those before it being `kept`."""
        full, minimum = self._space.full, self._space.minimum
        most = self._feasible.usage([(*kept[:g], *full[g:]) for g in steps])
        least = self._feasible.usage([(*kept[:g], *minimum[g:]) for g in steps])
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.nan_to_num(np.clip((share - least) / (most - least), 0.0, 1.0), nan=1.0)
        previous = [kept[g - 1] / full[g - 1] if g else 1.0 for g in steps]
        dynamic = np.column_stack(
            [np.full(len(steps), share), 1 - most / self._most, least / share, room, np.array(previous)]
        )
        before = np.arange(len(full)) < np.array(steps)[:, None]
        fractions = np.zeros(len(full))
        fractions[: len(kept)] = 2 * np.array(kept) / full[: len(kept)] - 1
        return np.column_stack([self._static[list(steps)], 2 * dynamic - 1, before * fractions])

    def allowed(self, kept: Structure, feasible: FeasibleSet, steps: Sequence[int]) -> list[list[int]]:
        """Widths of each of some groups, ascending, after which the rest can still meet the budget and use it up.

        So none that is too wide with the later groups at their narrowest, and none so narrow that a wider one would
        fit with all of them at full width. The narrowest alone where none meets the budget, as with foreign structures.
        """
        groups = [self._space.groups[g] for g in steps]
        meets = feasible.contains(self._tried(kept, steps, self._space.minimum))
        wastes = feasible.contains(self._tried(kept, steps, self._space.full))
        ends = np.cumsum([len(group.widths) for group in groups])[:-1]
        found = []
        for group, enough, too_little in zip(groups, np.split(meets, ends), np.split(wastes, ends), strict=True):
            widths = np.array(group.widths)
            inside = widths[enough] if enough.any() else widths[:1]
            start = widths[too_little].max(initial=0)
            found.append(inside[inside >= min(start, inside[-1])].tolist())
        return found

    def _tried(self, kept: Structure, steps: Sequence[int], later: Structure) -> list[Structure]:
        """Every width of each of some groups, after the `kept` ones before it and before `later` ones."""
        return [(*kept[:g], width, *later[g + 1 :]) for g in steps for width in self._space.groups[g].widths]


def of_share(feasible: FeasibleSet, share: float) -> FeasibleSet:
    """The structures within a share of the budget.

    Raises:
        TypeError: The share is no number.
        ValueError: It is not in (0, 1].
        InfeasibleBudget: No structure meets it; the message has the lowest that can be met.
    """
    share = number("a share of the budget", share, "(0, 1]")
    within = feasible.tightened(share)
    for (resource, whole), (_, least) in zip(feasible.limits, within.limits, strict=True):
        if least > whole * share:
            raise InfeasibleBudget(
                f"A share of {share:g} of the budget ({whole * share:,.6g} {resource}) cannot be met: the narrowest "
                f"structure has {least:,.6g}, a share of {least / whole:.3g}. Ask for more.",
                limit=whole * share,
                reachable=(least, feasible.costs(resource, [feasible.space.full])[0]),
                unit=resource,
            )
    return within


def _spread(values: FloatArray) -> FloatArray:
    """From -1 for the lowest to 1 for the highest; 0 where all are equal."""
    span = np.ptp(values) if len(values) else 0
    return 2 * (values - values.min()) / span - 1 if span else np.zeros(len(values))


def _truncated_normal(mean: float, deviation: float, bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """A draw within the bounds; the mean, moved there, where nothing is to be drawn."""
    low, high = bounds
    mean = min(max(mean, low), high)
    if deviation < 1e-6 or low == high:
        return mean
    normal = NormalDist(mean, deviation)
    drawn = normal.inv_cdf(min(max(rng.uniform(normal.cdf(low), normal.cdf(high)), 1e-9), 1 - 1e-9))
    return min(max(drawn, low), high)
