"""The mistakes that the tests must notice: see mutations.py."""

from . import (
    board,
    cli,
    diagnosis,
    engine,
    files,
    memory,
    models,
    planning,
    rewards,
    rewards_clip,
    rewards_judges,
    rewards_server,
    stages,
    steering,
)

REWARDS = (rewards, rewards_clip, rewards_judges, rewards_server)
FAMILIES = (stages, *REWARDS, models, files, memory, planning, engine, steering, diagnosis, board, cli)
TARGETS = [target for family in FAMILIES for target in family.TARGETS]
