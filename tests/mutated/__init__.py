"""The mistakes that the tests must notice: see mutations.py."""

from . import engine, models, rewards, rewards_clip, rewards_judges, rewards_server, stages

FAMILIES = (stages, rewards, rewards_clip, rewards_judges, rewards_server, models, engine)
TARGETS = [target for family in FAMILIES for target in family.TARGETS]
