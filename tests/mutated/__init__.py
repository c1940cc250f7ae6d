"""The mistakes that the tests must notice: see mutations.py."""

from . import board, diagnosis, engine, models, rewards, rewards_clip, rewards_judges, rewards_server, stages, steering

FAMILIES = (stages, rewards, rewards_clip, rewards_judges, rewards_server, models, engine, steering, diagnosis, board)
TARGETS = [target for family in FAMILIES for target in family.TARGETS]
