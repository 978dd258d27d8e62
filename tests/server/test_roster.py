from server.roster import Member, sample


def roster(names: list[str]) -> dict[str, Member]:
    return {name: Member(name, node, {}) for node, name in enumerate(names)}


def test_a_sample_depends_on_names_not_on_nodes_or_their_order() -> None:
    names = [f"s{i}" for i in range(10)]
    drawn = [list(sample(roster(names), 0.3, 7, r)) for r in range(20)]
    assert drawn == [list(sample(roster(names[::-1]), 0.3, 7, r)) for r in range(20)]
    assert all(len(set(d)) == 3 for d in drawn)
    assert len({tuple(d) for d in drawn}) > 5
    assert drawn != [list(sample(roster(names), 0.3, 8, r)) for r in range(20)]


def test_at_least_one_site_is_asked_and_all_at_fraction_one() -> None:
    assert len(sample(roster(["a", "b", "c"]), 0.01, 0, 1)) == 1
    assert list(sample(roster(["b", "a"]), 1.0, 0, 1)) == ["a", "b"]
