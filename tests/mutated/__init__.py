"""The mistakes that the tests must notice: see mutations.py."""

from . import engine, models, rewards, rewards_server, stages

TARGETS = [*stages.TARGETS, *rewards.TARGETS, *rewards_server.TARGETS, *models.TARGETS, *engine.TARGETS]
