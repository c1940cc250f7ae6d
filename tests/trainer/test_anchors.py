"""Drawing of steps and anchors: which triples, how often, and what is left out."""

from collections import Counter

import pytest
import torch

from trainer.choices import CROSSED, EARLY, LATE, PAIRINGS, STRATIFIED
from trainer.stages import anchors as stage
from trainer.stages.anchors import Pairs, choose_steps

DRAWS = 3000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def choose_pairs(*sizes: int, generator: torch.Generator, pairing: str = CROSSED) -> Pairs:
    return stage.choose_pairs(*sizes, pairing=pairing, generator=generator)


def triples(pairs: Pairs) -> list[tuple[int, int, int]]:
    return list(zip(pairs.prompt.tolist(), pairs.anchor.tolist(), pairs.step.tolist(), strict=True))


def test_crossed_anchors_are_drawn_without_replacement_and_are_the_same_at_every_step():
    for seed in range(50):
        drawn = triples(choose_pairs(3, 6, 4, 2, generator=generator(seed)))
        assert len(drawn) == len(set(drawn)) == 3 * 4 * 2
        for prompt in range(3):
            first, second = ({a for p, a, k in drawn if (p, k) == (prompt, step)} for step in range(2))
            assert first == second
            assert len(first) == 4
            assert first <= set(range(6))


@pytest.mark.parametrize(("group", "anchors", "steps"), [(12, 1, 8), (6, 2, 3), (6, 1, 6), (5, 5, 1)])
def test_stratified_anchors_are_all_different_while_there_are_enough(group, anchors, steps):
    for seed in range(50):
        drawn = triples(choose_pairs(3, group, anchors, steps, pairing=STRATIFIED, generator=generator(seed)))
        assert Counter((p, k) for p, _, k in drawn) == {(p, k): anchors for p in range(3) for k in range(steps)}
        for prompt in range(3):
            assert len({a for p, a, _ in drawn if p == prompt}) == anchors * steps


@pytest.mark.parametrize(("group", "anchors", "steps"), [(4, 3, 5), (2, 1, 8), (3, 2, 3), (4, 4, 3)])
def test_stratified_anchors_take_turns_when_there_are_too_few(group, anchors, steps):
    """None of a step's is there twice, and no candidate is an anchor two times more than another."""
    for seed in range(50):
        drawn = triples(choose_pairs(2, group, anchors, steps, pairing=STRATIFIED, generator=generator(seed)))
        assert len(drawn) == len(set(drawn)) == 2 * anchors * steps
        for prompt in range(2):
            turns = Counter(a for p, a, _ in drawn if p == prompt)
            assert max(turns.values()) - min(turns[candidate] for candidate in range(group)) <= 1


def test_every_step_has_every_candidate_equally_often():
    """1 / G of the draws, within four and a half standard errors of a fair draw, at each of 3 steps."""
    g, counts = generator(), Counter()
    for _ in range(DRAWS):
        counts.update((k, a) for _, a, k in triples(choose_pairs(1, 5, 1, 3, pairing=STRATIFIED, generator=g)))
    error = (DRAWS * 0.2 * 0.8) ** 0.5
    assert len(counts) == 15
    assert all(abs(count - 0.2 * DRAWS) < 4.5 * error for count in counts.values())


def test_with_a_single_step_both_pairings_are_the_same():
    drawn = [triples(choose_pairs(3, 6, 2, 1, pairing=pairing, generator=generator(3))) for pairing in PAIRINGS]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_pairs_are_ordered_by_step(pairing):
    """Pairs of one micro-batch share a step as far as possible, so that masks and sigmas of a step stay together."""
    pairs = choose_pairs(2, 4, 3, 3, pairing=pairing, generator=generator())
    assert pairs.step.tolist() == sorted(pairs.step.tolist())
    assert Counter(pairs.step.tolist()) == {0: 6, 1: 6, 2: 6}


def test_every_candidate_is_an_anchor_equally_often():
    """B / G of the draws, within four standard errors of a fair draw."""
    g = generator()
    counts = Counter(a for _ in range(DRAWS) for a in choose_pairs(1, 5, 2, 1, generator=g).anchor.tolist())
    error = (DRAWS * 0.4 * 0.6) ** 0.5
    assert all(abs(counts[candidate] - 0.4 * DRAWS) < 4 * error for candidate in range(5))


def test_prompts_draw_their_anchors_independently():
    g, same = generator(), 0
    for _ in range(DRAWS):
        first, second = choose_pairs(2, 4, 2, 1, generator=g).anchor.view(2, 2).tolist()
        same += first == second
    assert same / DRAWS == pytest.approx(1 / 6, abs=0.03)  # 6 pairs out of 4


def test_all_candidates_as_anchors_leave_nothing_to_chance():
    every = [(p, a, k) for k in range(3) for p in range(2) for a in range(4)]
    assert triples(choose_pairs(2, 4, 4, 3, generator=generator(1))) == every


def test_a_draw_belongs_to_its_generator():
    assert triples(choose_pairs(3, 12, 4, 2, generator=generator(5))) == triples(
        choose_pairs(3, 12, 4, 2, generator=generator(5))
    )
    assert triples(choose_pairs(3, 12, 4, 2, generator=generator(5))) != triples(
        choose_pairs(3, 12, 4, 2, generator=generator(6))
    )


@pytest.mark.parametrize("anchors", [0, 5])
def test_a_number_of_anchors_that_the_group_does_not_have_is_refused(anchors):
    with pytest.raises(ValueError, match=f"between 1 and the group size 4, got {anchors}"):
        choose_pairs(1, 4, anchors, 1, generator=generator())


def test_only_keeps_the_triples_of_the_marked_prompts():
    pairs = choose_pairs(3, 4, 2, 2, generator=generator())
    kept = pairs.only(torch.tensor([True, False, True]))
    assert triples(kept) == [t for t in triples(pairs) if t[0] != 1]
    assert len(kept) == 2 * 2 * 2
    assert len(pairs.only(torch.zeros(3, dtype=torch.bool))) == 0


def test_steps_are_distinct_ascending_and_drawn_equally_often():
    g, counts = generator(), Counter()
    for _ in range(DRAWS):
        steps = choose_steps(8, 3, generator=g)
        assert steps == sorted(set(steps))
        assert len(steps) == 3
        counts.update(steps)
    error = (DRAWS * 3 / 8 * 5 / 8) ** 0.5
    assert set(counts) == set(range(8))
    assert all(abs(n - DRAWS * 3 / 8) < 4 * error for n in counts.values())


def test_all_steps_leave_nothing_to_chance():
    assert choose_steps(5, 5, generator=generator()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [0, 9])
def test_a_number_of_steps_that_the_solver_does_not_take_is_refused(count):
    with pytest.raises(ValueError, match=f"between 1 and the 8 solver steps, got {count}"):
        choose_steps(8, count, generator=generator())


@pytest.mark.parametrize("count", [1, 3, 8])
def test_early_steps_are_the_first_and_late_ones_the_last(count):
    assert choose_steps(8, count, EARLY, generator=generator()) == list(range(count))
    assert choose_steps(8, count, LATE, generator=generator()) == list(range(8 - count, 8))
