from protocol.seeds import seed_of


def test_a_seed_depends_on_every_part_and_on_nothing_else() -> None:
    seeds = {
        seed_of(0, "a", 1, 0),
        seed_of(1, "a", 1, 0),
        seed_of(0, "b", 1, 0),
        seed_of(0, "a", 2, 0),
        seed_of(0, "a", 1, 1),
    }
    assert len(seeds) == 5
    assert seed_of(0, "a", 1, 0) == seed_of(0, "a", 1, 0)
    assert all(0 <= seed < 2**32 for seed in seeds)
