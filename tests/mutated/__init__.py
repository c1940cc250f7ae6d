"""The mistakes that the tests must notice: see mutations.py."""

from . import (
    bench_gpu,
    board,
    cli,
    diagnosis,
    engine,
    evidence,
    files,
    formats,
    memory,
    models,
    planning,
    plugins,
    rewards,
    rewards_clip,
    rewards_judges,
    rewards_server,
    settings,
    stages,
    steering,
    trust,
)

REWARDS = (rewards, rewards_clip, rewards_judges, rewards_server)
FAMILIES = (
    stages,
    settings,
    *REWARDS,
    plugins,
    models,
    files,
    formats,
    memory,
    planning,
    engine,
    evidence,
    steering,
    diagnosis,
    board,
    cli,
    bench_gpu,
    trust,
)
TARGETS = [target for family in FAMILIES for target in family.TARGETS]
