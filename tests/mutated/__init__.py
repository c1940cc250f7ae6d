"""The mistakes that the tests must notice: see mutations.py."""

from . import engine, models, rewards, rewards_judges, stages

TARGETS = [*stages.TARGETS, *rewards.TARGETS, *rewards_judges.TARGETS, *models.TARGETS, *engine.TARGETS]
