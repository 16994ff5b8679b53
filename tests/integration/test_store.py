"""What every store promises: one suite for all kinds. What only SQLite files can do is in test_sqlite.py."""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from comagent.errors import StoreError
from comagent.ids import uuid7
from comagent.store import (
    Committed,
    DocumentRow,
    Epoch,
    Event,
    EventRow,
    Exists,
    JobCommit,
    JobRow,
    Outcome,
    ProgressRow,
    Refused,
    Stale,
    Store,
    store_at,
)

FIRST, SECOND = (1, 1), (1, 2)


def row(job_id: str, **fields: object) -> JobRow:
    job = JobRow(
        job_id,
        tenant="acme",
        principal="ada",
        parent=None,
        shard="s1",
        process_name="etl",
        process_hash="f00",
        process_doc=b'{"name":"etl"}',
        tools_doc=b"{}",
        inputs_doc=b'{"n":1}',
        root_path="/work",
        priority=0,
        idem_key=job_id,
        payload_hash="beef",
        submitted_ms=1_000,
    )
    return job._replace(**fields)  # type: ignore[arg-type]


def done(task: str, result: bytes | None = b"1", **fields: object) -> Outcome:
    outcome = Outcome(task, "1.1.1", 1, "succeeded", result, None, None, started_ms=2_000, ended_ms=2_005)
    return outcome._replace(**fields)  # type: ignore[arg-type]


def failed_attempt(task: str) -> Event:
    return Event("attempt_failed", task, b'{"error":"no"}', 2_001)


def admit(store: Store, *, epoch: Epoch = FIRST, shard: str = "s1", n: int = 1, job_id: str | None = None) -> str:
    job_id = job_id or uuid7()
    assert store.commit(shard, n, [JobCommit(job_id, epoch, admit=row(job_id, shard=shard))]) == [Committed(1)]
    return job_id


def tasks(rows: Sequence[ProgressRow]) -> list[str]:
    return [progress.outcome.task for progress in rows]


def test_an_admitted_job_reads_back_as_it_was_given(store: Store) -> None:
    job = row(uuid7(), parent=uuid7(), priority=30, process_doc=b"x" * 100_000)
    assert store.commit("s1", 1, [JobCommit(job.job_id, FIRST, admit=job)]) == [Committed(1)]
    found = store.job(job.job_id)
    assert found is not None
    for field in JobRow._fields:
        assert getattr(found, field) == getattr(job, field), field
    assert (found.status, found.epoch, found.seq, found.error, found.ended_ms) == ("pending", FIRST, 1, None, None)


def test_an_unknown_job_is_none_and_has_nothing(store: Store) -> None:
    assert store.job("nobody") is None
    assert store.seq("nobody") is None
    assert store.outcome("nobody", "a") is None
    assert store.progress("nobody") == []
    assert store.stream("nobody") == []


def test_outcomes_then_events_get_the_next_numbers_in_order(store: Store) -> None:
    job_id = admit(store)
    first = [done("a"), done("b", None, status="failed", error=b'{"m":"no"}', document="d" * 64, attempt=3)]
    happened = [failed_attempt("b"), Event("note", None, b"{}", 2_002)]
    verdicts = store.commit("s1", 2, [JobCommit(job_id, FIRST, outcomes=first, events=happened)])
    assert verdicts == [Committed(5)]
    outcomes = [ProgressRow(2, FIRST, first[0]), ProgressRow(3, FIRST, first[1])]
    events = [EventRow(4, happened[0]), EventRow(5, happened[1])]
    assert store.progress(job_id) == outcomes
    assert store.outcome(job_id, "b") == outcomes[1]
    assert store.events(job_id) == events
    assert store.stream(job_id) == [*outcomes, *events]
    assert store.seq(job_id) == 5


def test_a_job_can_be_admitted_finished_and_described_in_one_commit(store: Store) -> None:
    job_id = uuid7()
    commit = JobCommit(
        job_id,
        FIRST,
        admit=row(job_id),
        outcomes=[done("a")],
        events=[Event("submitted", None, b"{}", 1_000)],
        documents=[DocumentRow("a" * 64, 70_000, "json")],
        status="succeeded",
        at_ms=3_000,
    )
    assert store.commit("s1", 1, [commit]) == [Committed(2)]
    found = store.job(job_id)
    assert found is not None
    assert (found.status, found.ended_ms, found.seq) == ("succeeded", 3_000, 2)
    assert store.document("a" * 64) == DocumentRow("a" * 64, 70_000, "json")
    assert store.document("b" * 64) is None


def test_a_stream_goes_on_where_it_stopped(store: Store) -> None:
    job_id = admit(store)
    for n in range(2, 6):
        commit = JobCommit(job_id, FIRST, outcomes=[done(f"a{n}"), done(f"b{n}")], events=[failed_attempt("c")])
        store.commit("s1", n, [commit])
    whole = store.stream(job_id)
    assert [entry.seq for entry in whole] == list(range(2, 14))
    pieces: list[ProgressRow | EventRow] = []
    while piece := store.stream(job_id, after_seq=pieces[-1].seq if pieces else 0, limit=5):
        pieces += piece
    assert pieces == whole
    assert store.events(job_id, after_seq=4, limit=2) == [entry for entry in whole if isinstance(entry, EventRow)][1:3]


def test_failed_attempts_are_counted_by_task(store: Store) -> None:
    job_id = admit(store)
    events = [failed_attempt("a"), failed_attempt("b"), failed_attempt("a"), Event("note", "a", b"", 1)]
    store.commit("s1", 2, [JobCommit(job_id, FIRST, events=events)])
    assert store.attempts(job_id) == {"a": 2, "b": 1}


def test_a_status_alone_raises_seq_too_so_that_a_lost_answer_can_be_settled(store: Store) -> None:
    job_id = admit(store)
    assert store.commit("s1", 2, [JobCommit(job_id, FIRST, status="running", at_ms=1)]) == [Committed(2)]
    assert store.seq(job_id) == 2


def test_a_terminal_status_ends_the_job_and_another_one_reopens_it(store: Store) -> None:
    job_id = admit(store)
    store.commit("s1", 2, [JobCommit(job_id, FIRST, status="failed", error=b'{"m":"no"}', at_ms=9_000)])
    ended = store.job(job_id)
    assert ended is not None
    assert (ended.status, ended.error, ended.ended_ms) == ("failed", b'{"m":"no"}', 9_000)
    assert store.unfinished(["s1"]) == []
    store.commit("s1", 3, [JobCommit(job_id, FIRST, status="running", at_ms=9_001)])
    reopened = store.job(job_id)
    assert reopened is not None
    assert (reopened.status, reopened.error, reopened.ended_ms) == ("running", None, None)
    assert store.unfinished(["s1"]) == [job_id]


def test_rows_without_a_status_leave_the_status_alone(store: Store) -> None:
    job_id = admit(store)
    store.commit("s1", 2, [JobCommit(job_id, FIRST, status="running", at_ms=1)])
    store.commit("s1", 3, [JobCommit(job_id, FIRST, outcomes=[done("a")], at_ms=2)])
    found = store.job(job_id)
    assert found is not None
    assert found.status == "running"


@pytest.mark.parametrize("stale", [(1, 1), (0, 9), (2, 1), (1, 3)])
def test_only_the_epoch_of_the_job_commits(store: Store, stale: Epoch) -> None:
    job_id = admit(store, epoch=SECOND)
    verdicts = store.commit("s1", 2, [JobCommit(job_id, stale, outcomes=[done("a")], status="failed", at_ms=1)])
    assert verdicts == [Stale()]
    assert store.progress(job_id) == []
    assert store.seq(job_id) == 1
    assert store.batches("s1", after_n=1) == []


def test_a_fenced_out_job_does_not_hold_up_the_others(store: Store) -> None:
    mine, lost, also_mine = (admit(store, n=n) for n in (1, 2, 3))
    store.take_over(["s1"], to="s2", epoch=SECOND, job_ids=[lost])
    commits = [JobCommit(job_id, FIRST, outcomes=[done("a")]) for job_id in (also_mine, lost, mine)]
    assert store.commit("s1", 4, commits) == [Committed(2), Stale(), Committed(2)]
    assert [len(store.progress(job_id)) for job_id in (mine, lost, also_mine)] == [1, 0, 1]


def test_the_first_outcome_of_a_task_wins(store: Store) -> None:
    job_id = admit(store)
    store.commit("s1", 2, [JobCommit(job_id, FIRST, outcomes=[done("a", b"1")])])
    [verdict] = store.commit("s1", 3, [JobCommit(job_id, FIRST, outcomes=[done("z"), done("a", b"2")])])
    assert isinstance(verdict, Refused)
    assert [(entry.outcome.task, entry.outcome.result) for entry in store.progress(job_id)] == [("a", b"1")]
    assert store.seq(job_id) == 2


@pytest.mark.parametrize(
    "poison",
    [
        done("a", {"not": "bytes"}),  # type: ignore[arg-type]
        done("a", started_ms=2**80),
        done("half of a pair \ud800"),
        done("a", status=None),
    ],
    ids=["type", "size of number", "not Unicode", "missing"],
)
def test_what_cannot_be_stored_harms_only_its_own_job(store: Store, poison: Outcome) -> None:
    good, bad, also_good = (admit(store, n=n) for n in (1, 2, 3))
    commits = [
        JobCommit(good, FIRST, outcomes=[done("a")]),
        JobCommit(bad, FIRST, outcomes=[done("b"), poison], status="succeeded", at_ms=1),
        JobCommit(also_good, FIRST, outcomes=[done("a")], events=[failed_attempt("a")]),
    ]
    verdicts = store.commit("s1", 4, commits)
    assert isinstance(verdicts[1], Refused)
    assert verdicts[0] == Committed(2)
    assert verdicts[2] == Committed(3)
    assert store.progress(bad) == []
    found = store.job(bad)
    assert found is not None
    assert (found.seq, found.status) == (1, "pending")
    assert store.commit("s1", 5, [JobCommit(bad, FIRST, outcomes=[done("b")])]) == [Committed(2)]


def test_a_refused_admission_leaves_no_job(store: Store) -> None:
    job_id = uuid7()
    [verdict] = store.commit("s1", 1, [JobCommit(job_id, FIRST, admit=row(job_id), outcomes=[done("a"), done("a")])])
    assert isinstance(verdict, Refused)
    assert store.job(job_id) is None
    admit(store, job_id=job_id)


def test_a_nul_byte_in_a_value_is_a_byte_like_any_other(store: Store) -> None:
    job_id = admit(store)
    commit = JobCommit(job_id, FIRST, outcomes=[done("a", b'"\x00"', error=b"\x00\xff")])
    assert store.commit("s1", 2, [commit]) == [Committed(2)]
    found = store.outcome(job_id, "a")
    assert found is not None
    assert (found.outcome.result, found.outcome.error) == (b'"\x00"', b"\x00\xff")


def test_a_nul_character_in_text_is_kept_or_refused_and_harms_nobody_else(store: Store) -> None:
    odd, good = admit(store, n=1), admit(store, n=2)
    commits = [JobCommit(odd, FIRST, outcomes=[done("a\x00b")]), JobCommit(good, FIRST, outcomes=[done("a")])]
    verdicts = store.commit("s1", 3, commits)
    assert verdicts[1] == Committed(2)
    if verdicts[0] == Committed(2):
        assert tasks(store.progress(odd)) == ["a\x00b"]
    else:
        assert isinstance(verdicts[0], Refused)
        assert store.progress(odd) == []


def test_the_same_submission_again_is_told_of_the_first(store: Store) -> None:
    job_id = admit(store)
    again = row(job_id, payload_hash="other", idem_key="other")
    same_key = row(uuid7(), idem_key=job_id)
    verdicts = store.commit("s1", 2, [JobCommit(job.job_id, FIRST, admit=job) for job in (again, same_key)])
    assert verdicts == [Exists(job_id, "beef"), Exists(job_id, "beef")]
    assert [job.job_id for job in store.jobs()] == [job_id]


def test_idempotency_keys_belong_to_their_tenant(store: Store) -> None:
    job_id = admit(store)
    other = row(uuid7(), tenant="globex", idem_key=job_id)
    assert store.commit("s1", 2, [JobCommit(other.job_id, FIRST, admit=other)]) == [Committed(1)]


def test_a_job_appears_once_in_a_batch(store: Store) -> None:
    job_id = admit(store)
    with pytest.raises(ValueError, match="once"):
        store.commit("s1", 2, [JobCommit(job_id, FIRST), JobCommit(job_id, FIRST)])


def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert store.commit("s1", 1, []) == []
    assert store.last_batch("s1") == 0


def test_batches_tell_who_added_what(store: Store) -> None:
    a, b = uuid7(), uuid7()
    store.commit("s1", 7, [JobCommit(job_id, FIRST, admit=row(job_id)) for job_id in (b, a)])
    store.commit("s1", 8, [JobCommit(b, FIRST, outcomes=[done("x"), done("y")])])
    store.commit("s2", 1, [JobCommit(a, FIRST, outcomes=[done("x")])])
    assert store.batches("s1") == [("s1", 7, a, 1, 1), ("s1", 7, b, 1, 1), ("s1", 8, b, 2, 3)]
    assert store.batches("s1", after_n=7) == [("s1", 8, b, 2, 3)]
    assert store.batches("s1", limit=1) == [("s1", 7, a, 1, 1)]
    assert (store.last_batch("s1"), store.last_batch("s2"), store.last_batch("s3")) == (8, 1, 0)


def test_a_document_that_two_jobs_name_is_kept_once(store: Store) -> None:
    document = DocumentRow("c" * 64, 5, "json")
    a, b = admit(store, n=1), admit(store, n=2)
    commits = [JobCommit(job_id, FIRST, documents=[document, document]) for job_id in (a, b)]
    assert store.commit("s1", 3, commits) == [Committed(2), Committed(2)]
    assert store.document(document.hash) == document


def test_jobs_are_listed_latest_first_without_their_documents(store: Store) -> None:
    ids = [admit(store, n=n, shard="s1" if n % 2 else "s2") for n in range(1, 6)]
    store.commit("s1", 9, [JobCommit(ids[0], FIRST, status="succeeded", at_ms=1)])
    assert [job.job_id for job in store.jobs()] == ids[::-1]
    assert {job.process_doc for job in store.jobs()} == {b""}
    assert [job.job_id for job in store.jobs(shard="s2")] == [ids[3], ids[1]]
    assert [job.job_id for job in store.jobs(status="succeeded")] == [ids[0]]
    assert store.jobs(tenant="nobody") == []
    assert [job.job_id for job in store.jobs(before=ids[3], limit=2)] == [ids[2], ids[1]]


def test_unfinished_jobs_are_those_of_the_shards_that_have_not_ended(store: Store) -> None:
    a, b, c = admit(store, shard="s1"), admit(store, shard="s2"), admit(store, shard="s3")
    store.commit("s2", 2, [JobCommit(b, FIRST, status="cancelled", at_ms=1)])
    assert store.unfinished(["s1", "s2"]) == [a]
    assert store.unfinished() == [a, c]
    assert store.unfinished([]) == []


def test_a_takeover_moves_unfinished_jobs_and_fences_their_owner_out(store: Store) -> None:
    running, ended, elsewhere = admit(store, n=1), admit(store, n=2), admit(store, shard="s3")
    store.commit("s1", 3, [JobCommit(ended, FIRST, status="succeeded", at_ms=1)])
    assert store.take_over(["s1"], to="s2", epoch=SECOND) == [running]
    found = store.job(running)
    assert found is not None
    assert (found.shard, found.epoch, found.seq) == ("s2", SECOND, 1)
    assert store.commit("s1", 4, [JobCommit(running, FIRST, outcomes=[done("a")])]) == [Stale()]
    assert store.commit("s2", 1, [JobCommit(running, SECOND, outcomes=[done("a")])]) == [Committed(2)]
    assert store.commit("s3", 2, [JobCommit(elsewhere, FIRST, outcomes=[done("a")])]) == [Committed(2)]


def test_a_shard_restarts_by_taking_itself_over(store: Store) -> None:
    jobs = [admit(store, n=n) for n in (1, 2)]
    assert store.take_over(["s1"], to="s1", epoch=SECOND) == jobs
    assert store.take_over(["s1"], to="s1", epoch=SECOND) == []


def test_epochs_are_compared_as_pairs(store: Store) -> None:
    job_id = admit(store, epoch=(1, 5))
    assert store.take_over(["s1"], to="s2", epoch=(1, 4)) == []
    assert store.take_over(["s1"], to="s2", epoch=(2, 1)) == [job_id]


def test_a_replaced_owner_admits_no_jobs(store: Store) -> None:
    """Nobody would look for them: the takeover has been and gone."""
    store.take_over(["s1"], to="s2", epoch=SECOND)
    late = uuid7()
    assert store.commit("s1", 1, [JobCommit(late, FIRST, admit=row(late))]) == [Stale()]
    assert store.job(late) is None
    admit(store, shard="s2", epoch=SECOND)


def test_a_replaced_owner_takes_nothing_over(store: Store) -> None:
    store.take_over([], to="s2", epoch=(1, 9))
    job_id = admit(store)
    assert store.take_over(["s1"], to="s2", epoch=SECOND) == []
    assert store.commit("s1", 2, [JobCommit(job_id, FIRST, outcomes=[done("a")])]) == [Committed(2)]


def test_taking_over_some_jobs_leaves_the_others_to_their_owner(store: Store) -> None:
    wanted, other = admit(store, n=1), admit(store, n=2)
    assert store.take_over(["s1"], to="s2", epoch=SECOND, job_ids=[wanted]) == [wanted]
    assert store.commit("s1", 3, [JobCommit(other, FIRST, outcomes=[done("a")])]) == [Committed(2)]
    admit(store, n=4)


def test_everything_is_there_after_closing_and_opening_again(store: Store, store_url: str) -> None:
    job_id = admit(store)
    store.commit("s1", 2, [JobCommit(job_id, FIRST, outcomes=[done("a")])])
    store.close()
    store.close()
    again = store_at(store_url)
    again.open()
    assert tasks(again.progress(job_id)) == ["a"]
    again.close()


def test_a_closed_store_says_so(store_url: str) -> None:
    closed = store_at(store_url)
    with pytest.raises(StoreError, match="closed"):
        closed.seq("a")
    with pytest.raises(StoreError, match="closed"):
        closed.commit("s1", 1, [])


def test_a_reader_beside_the_commits_misses_nothing(store: Store) -> None:
    job_id = admit(store)
    batches, seen = 30, [1]
    failures: list[BaseException] = []

    def follow() -> None:
        try:
            while seen[-1] < 1 + 2 * batches:
                seen.extend(entry.seq for entry in store.stream(job_id, after_seq=seen[-1]))
        except StoreError as error:
            failures.append(error)

    reader = threading.Thread(target=follow)
    reader.start()
    for n in range(batches):
        commit = JobCommit(job_id, FIRST, outcomes=[done(f"t{n}")], events=[failed_attempt("x")])
        assert store.commit("s1", 2 + n, [commit]) == [Committed(3 + 2 * n)]
    reader.join(30)
    assert failures == []
    assert seen == list(range(1, 2 + 2 * batches))


OWNER = """
import sys
from comagent.store import Committed, Event, JobCommit, Outcome, store_at

url, job_id, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = store_at(url)
store.open()
print("ready", flush=True)
sys.stdin.readline()
for n in range(first, first + 100_000):
    outcomes = [Outcome(f"t{n}.{i}", "1", 1, "succeeded", b"x" * 500, None, None, 1, 1) for i in range(20)]
    [verdict] = store.commit("s1", n, [JobCommit(job_id, (1, 1), outcomes=outcomes, events=[Event("e", None, b"", 1)])])
    print(n, *verdict, flush=True)
    if not isinstance(verdict, Committed):
        break
"""


def start_owner(url: str, job_id: str, first: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OWNER, url, job_id, str(first)]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    return owner


def let_go(owner: subprocess.Popen[str]) -> None:
    assert owner.stdin is not None
    owner.stdin.write("go\n")
    owner.stdin.flush()


def test_a_kill_loses_nothing_acknowledged_and_leaves_whole_commits_only(store: Store, store_url: str) -> None:
    job_id = admit(store)
    n = 2
    for acknowledged in (1, 7, 30):
        owner = start_owner(store_url, job_id, n)
        let_go(owner)
        assert owner.stdout is not None
        for _ in range(acknowledged):
            owner.stdout.readline()
        owner.send_signal(signal.SIGKILL)
        answers = [line.split() for line in owner.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
        last = int(answers[-1][0]) if answers else n + acknowledged - 1
        seq = store.seq(job_id)
        assert seq is not None
        # The commit under way may be there as well: unacknowledged is not undone.
        committed = (seq - 1) // 21
        assert 1 + 21 * committed == seq
        assert committed + 1 - last in (0, 1)
        assert [entry.seq for entry in store.stream(job_id, limit=10**9)] == list(range(2, seq + 1))
        assert store.last_batch("s1") == committed + 1
        n = committed + 2


def test_an_owner_that_was_paused_during_a_takeover_commits_nothing(store: Store, store_url: str) -> None:
    job_id = admit(store)
    owner = start_owner(store_url, job_id, 2)
    try:
        owner.send_signal(signal.SIGSTOP)
        assert store.take_over(["s1"], to="s2", epoch=SECOND) == [job_id]
        owner.send_signal(signal.SIGCONT)
        answers, _ = owner.communicate("go\n", timeout=30)
    finally:
        owner.kill()
    assert answers == "2\n"
    assert store.stream(job_id) == []
    assert store.seq(job_id) == 1


def test_a_store_has_an_address(store_url: str) -> None:
    for address in ("nonsense", "redis://host/0", "sqlite://", "sqlite:///:memory:"):
        with pytest.raises(StoreError, match="sqlite:////"):
            store_at(address)
    with pytest.raises(StoreError) as raised:
        store_at("mysql://me:secret@host/db")
    assert "secret" not in str(raised.value)
