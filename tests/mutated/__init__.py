"""The mistakes that the tests must notice: see mutations.py."""

from . import engine, models, rewards, stages

TARGETS = [*stages.TARGETS, *rewards.TARGETS, *models.TARGETS, *engine.TARGETS]
