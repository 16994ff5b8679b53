"""What every coordination service promises, and how an observer judges the leases in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comagent.coordination import (
    Coordination,
    EmbeddedCoordination,
    Epoch,
    Lease,
    LeaseWatch,
    OwnedProcess,
    Owner,
    boot_id,
    is_alive,
    is_stale_at_once,
    process_start_time,
    this_process,
)
from comagent.errors import StoreError

FIRST, SECOND, THIRD = (1, 1), (1, 2), (2, 1)


def lease(epoch: Epoch = FIRST, shard: str = "s1", *processes: OwnedProcess) -> Lease:
    name = f"{shard}-{epoch}"
    return Lease(shard, epoch, f"scheduler-{name}", f"supervisor-{name}", 0, Owner(boot_id(), processes))


def test_epochs_rise_region_by_region(coordination: Coordination) -> None:
    epochs = [coordination.next_epoch("north") for _ in range(5)]
    assert sorted(set(epochs)) == epochs
    assert coordination.next_epoch("south") == epochs[0]
    assert coordination.next_epoch("north") > epochs[-1]


def test_epochs_rise_on_after_closing_and_opening(coordination: Coordination) -> None:
    before = coordination.next_epoch("north")
    coordination.close()
    coordination.open()
    assert coordination.next_epoch("north") > before


def test_a_claimed_lease_reads_back_as_it_was_given(coordination: Coordination) -> None:
    mine = lease(FIRST, "s1", this_process("cli"), OwnedProcess(1, 0.25, 'odd "name"'))
    assert coordination.claim(mine, expected=None)
    assert coordination.lease("s1") == mine
    assert coordination.lease("s2") is None


def test_a_lease_that_somebody_holds_is_not_free(coordination: Coordination) -> None:
    assert coordination.claim(lease(FIRST), expected=None)
    assert not coordination.claim(lease(SECOND), expected=None)
    assert coordination.lease("s1") == lease(FIRST)


def test_a_takeover_needs_the_lease_to_be_the_one_expected(coordination: Coordination) -> None:
    coordination.claim(lease(FIRST), expected=None)
    assert coordination.claim(lease(SECOND), expected=lease(FIRST))
    assert not coordination.claim(lease(THIRD), expected=lease(FIRST))
    assert coordination.lease("s1") == lease(SECOND)


def test_a_takeover_needs_no_matching_counter(coordination: Coordination) -> None:
    coordination.claim(lease(FIRST), expected=None)
    coordination.renew("s1", FIRST)
    assert coordination.claim(lease(SECOND), expected=lease(FIRST))


@pytest.mark.parametrize("epoch", [(1, 2), (1, 1), (0, 9)])
def test_a_takeover_needs_a_greater_epoch(coordination: Coordination, epoch: Epoch) -> None:
    coordination.claim(lease(SECOND), expected=None)
    assert not coordination.claim(lease(epoch), expected=lease(SECOND))
    assert coordination.lease("s1") == lease(SECOND)


def test_nobody_takes_over_what_is_gone(coordination: Coordination) -> None:
    assert not coordination.claim(lease(SECOND), expected=lease(FIRST))
    assert coordination.leases() == []


def test_renewing_raises_the_counter_and_nothing_else(coordination: Coordination) -> None:
    coordination.claim(lease(FIRST), expected=None)
    assert coordination.renew("s1", FIRST)
    assert coordination.renew("s1", FIRST)
    assert coordination.lease("s1") == lease(FIRST)._replace(counter=2)


def test_a_replaced_owner_can_neither_renew_nor_record_nor_release(coordination: Coordination) -> None:
    coordination.claim(lease(FIRST), expected=None)
    coordination.claim(lease(SECOND), expected=lease(FIRST))
    assert not coordination.renew("s1", FIRST)
    assert not coordination.record_processes("s1", FIRST, [this_process("late")])
    assert not coordination.release("s1", FIRST)
    assert coordination.lease("s1") == lease(SECOND)


def test_recorded_processes_replace_those_before(coordination: Coordination) -> None:
    mine = lease(FIRST, "s1", this_process("cli"))
    coordination.claim(mine, expected=None)
    agents = (OwnedProcess(10, 1.5, "agent"), OwnedProcess(11, 1.75, "agent"))
    assert coordination.record_processes("s1", FIRST, agents)
    assert coordination.lease("s1") == mine._replace(owner=Owner(boot_id(), agents))


def test_a_released_lease_is_free_again(coordination: Coordination) -> None:
    coordination.claim(lease(FIRST), expected=None)
    assert coordination.release("s1", FIRST)
    assert not coordination.renew("s1", FIRST)
    assert coordination.claim(lease(SECOND), expected=None)


def test_leases_are_listed_by_shard(coordination: Coordination) -> None:
    for shard in ("b", "c", "a"):
        coordination.claim(lease(FIRST, shard), expected=None)
    assert coordination.leases() == [lease(FIRST, shard) for shard in "abc"]


def test_a_closed_coordination_says_so(coordination: Coordination) -> None:
    coordination.close()
    coordination.close()
    with pytest.raises(StoreError, match="closed"):
        coordination.leases()


RACER = """
import json
import sys
from pathlib import Path
from comagent.coordination import EmbeddedCoordination, Lease, Owner

coordination = EmbeddedCoordination(Path(sys.argv[1]))
coordination.open()
expected = coordination.lease("s1")
print("ready", flush=True)
sys.stdin.readline()
epochs = [coordination.next_epoch("north") for _ in range(50)]
claimed = coordination.claim(Lease("s1", epochs[-1], "", "", 0, Owner("")), expected=expected)
print(json.dumps([claimed, epochs]), flush=True)
"""


def test_of_processes_that_race_one_gets_the_lease_and_none_the_same_epoch(tmp_path: Path) -> None:
    path = tmp_path / "coordination.db"
    coordination = EmbeddedCoordination(path)
    coordination.open()
    held = lease(coordination.next_epoch("north"))
    coordination.claim(held, expected=None)
    command = [sys.executable, "-c", RACER, str(path)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    assert len({tuple(epoch) for _, epochs in answers for epoch in epochs}) == 150
    [winner] = [tuple(epochs[-1]) for claimed, epochs in answers if claimed]
    found = coordination.lease("s1")
    assert found is not None
    assert found.epoch == winner
    coordination.close()


def test_a_lease_expires_when_its_counter_stands_still_for_its_time_to_live() -> None:
    watch = LeaseWatch(ttl_s=3)
    beat = lease(FIRST)
    assert not watch.observe(beat, 1_000)
    assert not watch.observe(beat, 1_002.9)
    assert watch.observe(beat, 1_003)
    assert not watch.observe(beat._replace(counter=1), 1_003.1)
    assert not watch.observe(beat._replace(counter=1), 1_006)
    assert watch.observe(beat._replace(counter=1), 1_006.2)


def test_a_new_owner_starts_a_new_time_to_live() -> None:
    watch = LeaseWatch(ttl_s=3)
    watch.observe(lease(FIRST), 0)
    assert not watch.observe(lease(SECOND), 10)
    assert watch.observe(lease(SECOND), 13)


def test_leases_are_watched_apart() -> None:
    watch = LeaseWatch(ttl_s=3)
    watch.observe(lease(FIRST, "a"), 0)
    assert not watch.observe(lease(FIRST, "b"), 5)
    assert watch.observe(lease(FIRST, "a"), 5)
    watch.forget("a")
    assert not watch.observe(lease(FIRST, "a"), 6)


def ended_process() -> OwnedProcess:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start_time = process_start_time(child.pid)
    assert start_time is not None
    child.communicate()
    return OwnedProcess(child.pid, start_time, "child")


def test_an_owner_of_this_boot_whose_processes_are_gone_is_stale_at_once() -> None:
    assert is_stale_at_once(lease(FIRST, "s1", ended_process(), ended_process()))


def test_an_owner_with_one_living_process_is_not_stale_at_once() -> None:
    assert not is_stale_at_once(lease(FIRST, "s1", ended_process(), this_process("cli")))


def test_of_an_owner_of_another_boot_nothing_is_known() -> None:
    gone = lease(FIRST, "s1", ended_process())
    assert not is_stale_at_once(gone._replace(owner=gone.owner._replace(boot_id="another")))


def test_of_an_owner_without_processes_nothing_is_known() -> None:
    assert not is_stale_at_once(lease(FIRST))


def test_a_later_process_with_the_same_pid_is_another_one() -> None:
    me = this_process("me")
    assert me.pid == os.getpid()
    assert is_alive(me)
    assert not is_alive(me._replace(start_time=me.start_time - 60))


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start_time = process_start_time(child.pid)
    assert start_time is not None
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(OwnedProcess(child.pid, start_time, "child"))
    child.wait()
