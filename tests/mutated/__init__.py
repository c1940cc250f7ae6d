"""The mistakes that the tests must notice: see mutations.py."""

from . import engine, models, rewards, rewards_clip, stages

TARGETS = [*stages.TARGETS, *rewards.TARGETS, *rewards_clip.TARGETS, *models.TARGETS, *engine.TARGETS]
