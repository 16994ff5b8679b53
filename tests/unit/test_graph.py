from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from comagent.graph import ancestors, descendants, find_cycle
from comagent.nearest import did_you_mean, nearest

DIAMOND = {"b": ["a"], "c": ["a"], "d": ["b", "c"]}


def test_a_graph_without_a_cycle_has_none() -> None:
    assert find_cycle("abcd", DIAMOND) is None
    assert find_cycle([], {}) is None


def test_a_cycle_is_named_from_its_first_task_and_back() -> None:
    needs = {"a": ["c"], "b": ["a"], "c": ["b"], "d": ["c"]}
    assert find_cycle("dcba", needs) == ["c", "a", "b", "c"]
    assert find_cycle("abcd", needs) == ["a", "b", "c", "a"]


def test_a_task_that_needs_itself_is_a_cycle() -> None:
    assert find_cycle("ab", {"b": ["b"]}) == ["b", "b"]


def test_a_chain_of_ten_thousand_that_bites_its_tail_is_found() -> None:
    ids = [str(number) for number in range(10_000)]
    needs = {later: [earlier] for earlier, later in pairwise(ids)} | {"0": ["9999"]}
    assert find_cycle(ids, needs) == [*ids, "0"]


def test_needs_that_do_not_exist_are_left_to_others() -> None:
    assert find_cycle("ab", {"a": ["x"], "b": ["a"]}) is None


def test_ancestors_and_descendants_are_transitive() -> None:
    assert ancestors("abcd", DIAMOND, "d") == {"a", "b", "c"}
    assert descendants("abcd", DIAMOND, "a") == {"b", "c", "d"}


@given(st.dictionaries(st.integers(0, 7).map(str), st.lists(st.integers(0, 7).map(str), max_size=3)))
def test_each_task_of_a_cycle_needs_the_one_before(needs: dict[str, list[str]]) -> None:
    ids = [str(number) for number in range(8)]
    cycle = find_cycle(ids, needs)
    if cycle is None:
        assert all(task not in ancestors(ids, needs, task) for task in ids)
    else:
        assert cycle[0] == cycle[-1]
        assert all(before in needs[task] for before, task in pairwise(cycle))


def test_near_names_are_suggested_whatever_their_case() -> None:
    assert nearest("Fetch", ["fetch", "load"]) == ("fetch",)
    assert nearest("zzz", ["fetch", "load"]) == ()
    assert did_you_mean("fetc", ["fetch", "load"]) == 'Did you mean "fetch"?'
    assert did_you_mean("zzz", ["fetch"], otherwise="There is fetch.") == "There is fetch."
