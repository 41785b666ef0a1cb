"""DDPG with inverted gradients: an actor that says one number per state, within its bounds, and a critic."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunesearch.structure import FloatArray

_START = 0.1  # what the first actor's last layer is scaled by, so that it says about the same in every state


@dataclass(frozen=True)
class DDPGSettings:
    """How an agent learns.

    Attributes:
        hidden: Units of the hidden layers of actor and critic.
        actor_lr: Of Adam.
        critic_lr: Of Adam.
        tau: Share of the online networks that goes into the target ones per update.
        minibatch: Steps per update.
    """

    hidden: int
    actor_lr: float
    critic_lr: float
    tau: float
    minibatch: int


@dataclass(frozen=True)
class Walks:
    """What an agent learns from: p walks of g steps each.

    Attributes:
        states: (p, g, features) before each step.
        actions: (p, g) what was done.
        lowest: (p, g) the least that could have been done.
        highest: (p, g) the most.
        rewards: (p,) of every step of a walk.
    """

    states: FloatArray
    actions: FloatArray
    lowest: FloatArray
    highest: FloatArray
    rewards: FloatArray


class Agent:
    """Actor, critic, and slow copies of both; float64 on the CPU, discount 1.

    The actor's output is linear, and the gradient that the critic sends it is inverted at the bounds of each state: it
    shrinks on the way to a bound and turns round beyond it. So the actor neither leaves the bounds nor gets stuck at
    one, as a sigmoid does. The critic is asked about actions inside the bounds only, as it was trained on no others.

    Source: Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016, arXiv:1509.02971;
    Hausknecht and Stone, Deep reinforcement learning in parameterized action space, ICLR 2016, arXiv:1511.04143
    (equation 11, with the distance to the bound over the whole range of actions, 1, in place of that of the state).

    Args:
        features: Numbers in a state.
        settings: How it learns.
        seed: Decides the first weights.
    """

    def __init__(self, features: int, settings: DDPGSettings, seed: int) -> None:
        self._settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = _Actor(features, settings.hidden).double()
            self._critic = _Critic(features, settings.hidden).double()
        self._slow_actor, self._slow_critic = copy.deepcopy(self._actor), copy.deepcopy(self._critic)
        self._actor_optimizer = torch.optim.Adam(self._actor.parameters(), lr=settings.actor_lr, fused=True)
        self._critic_optimizer = torch.optim.Adam(self._critic.parameters(), lr=settings.critic_lr, fused=True)

    def act(self, state: FloatArray) -> float:
        """The action that the actor wants; it may be slightly outside the bounds."""
        with torch.no_grad():
            return float(self._actor(torch.from_numpy(state)[None]))

    def learn(self, walks: Walks, updates: int, rng: np.random.Generator) -> None:
        """Update both networks, each time from random steps of random walks."""
        count, length = walks.actions.shape
        states, actions, lowest, highest = (
            torch.from_numpy(part) for part in (walks.states, walks.actions, walks.lowest, walks.highest)
        )
        rewards = torch.from_numpy(walks.rewards)
        for _ in range(updates):
            walk, step = (torch.from_numpy(rng.integers(0, n, self._settings.minibatch)) for n in (count, length))
            following = walk, torch.clamp(step + 1, max=length - 1)
            at = walk, step
            later = self._value(states[following], lowest[following], highest[following])
            target = rewards[walk] + (step < length - 1) * later
            _step(self._critic_optimizer, F.mse_loss(self._critic(states[at], actions[at]), target))
            self._improve(states[at], lowest[at], highest[at])
            self._follow()

    def _value(self, states: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
        """What the slow networks expect of the rest of a walk."""
        with torch.no_grad():
            actions = self._slow_actor(states).clamp(lowest, highest)
            value: Tensor = self._slow_critic(states, actions)
            return value

    def _improve(self, states: Tensor, lowest: Tensor, highest: Tensor) -> None:
        """Move the actor to where the critic says that it is better."""
        wanted = self._actor(states)
        done = wanted.detach().clamp(lowest, highest).requires_grad_()
        (slope,) = torch.autograd.grad(self._critic(states, done).sum(), done)
        room = torch.where(slope > 0, highest - wanted.detach(), wanted.detach() - lowest)
        _step(self._actor_optimizer, -(wanted * slope * room).mean())

    def _follow(self) -> None:
        with torch.no_grad():
            for slow, online in ((self._slow_actor, self._actor), (self._slow_critic, self._critic)):
                torch._foreach_lerp_(list(slow.parameters()), list(online.parameters()), self._settings.tau)


class _Actor(nn.Module):
    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, 1)
        with torch.no_grad():
            last.weight *= _START
            last.bias.fill_(0.5)
        self.layers = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)

    def forward(self, states: Tensor) -> Tensor:
        wanted: Tensor = self.layers(states).squeeze(-1)
        return wanted


class _Critic(nn.Module):
    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.state, self.action = nn.Linear(features, hidden), nn.Linear(1, hidden)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        value: Tensor = self.rest(self.state(states) + self.action(actions[:, None])).squeeze(-1)
        return value


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
