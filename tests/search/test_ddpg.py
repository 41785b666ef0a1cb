"""The agent by itself: where its actor goes, and that it finds the way back from a bound."""

from __future__ import annotations

import numpy as np
import pytest

from prunesearch.search.ddpg import Agent, DDPGSettings, Walks

SETTINGS = DDPGSettings(hidden=16, actor_lr=5e-3, critic_lr=1e-2, tau=0.1, minibatch=32)


def walks(slope: float, low: float, high: float) -> Walks:
    """One step each, from a state of one number, with a reward that rises or falls with the action."""
    actions = np.random.default_rng(0).uniform(low, high, (64, 1))
    bounds = np.ones_like(actions)
    return Walks(np.zeros((64, 1, 1)), actions, low * bounds, high * bounds, slope * (actions[:, 0] - actions.mean()))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.6)])
def test_an_actor_goes_to_the_bound_that_pays_and_comes_back_when_the_other_does(low: float, high: float) -> None:
    agent, rng, state = Agent(1, SETTINGS, seed=0), np.random.default_rng(0), np.zeros(1)
    near = 0.25 * (high - low)
    agent.learn(walks(1.0, low, high), 200, rng)
    assert high - near < agent.act(state) < high + near
    agent.learn(walks(-1.0, low, high), 300, rng)
    assert low - near < agent.act(state) < low + near


def test_an_actor_beyond_its_bounds_is_led_back_whatever_the_critic_says() -> None:
    agent, rng = Agent(1, SETTINGS, seed=0), np.random.default_rng(0)
    agent.learn(walks(1.0, 0.0, 1.0), 150, rng)
    assert agent.act(np.zeros(1)) > 0.7
    agent.learn(walks(1.0, 0.1, 0.4), 150, rng)  # still pays, but only so far
    assert agent.act(np.zeros(1)) < 0.5


def test_a_step_is_worth_what_the_rest_of_its_walk_pays() -> None:
    """Two steps; the first decides nothing by itself, but its action is what the second pays for."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(0, 1, (200, 2))
    states = np.zeros((200, 2, 2))
    states[:, 1] = np.column_stack([np.ones(200), actions[:, 0]])
    everywhere = np.ones_like(actions)
    agent = Agent(2, SETTINGS, seed=0)
    agent.learn(Walks(states, actions, 0 * everywhere, everywhere, actions[:, 0] - 0.5), 300, rng)
    assert agent.act(np.zeros(2)) > 0.8


def test_the_first_weights_depend_on_the_seed_alone() -> None:
    state = np.linspace(-1, 1, 5)
    one, again, other = (Agent(5, SETTINGS, seed).act(state) for seed in (1, 1, 2))
    assert one == again != other
