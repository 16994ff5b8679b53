"""What tools print: kept up to a limit, and never their error."""

import io
import sys
from pathlib import Path

import pytest

from comagent.output import Capped, cap_output


def test_what_is_printed_is_kept_up_to_the_limit() -> None:
    stream = io.StringIO()
    capped = Capped(stream, 10)
    written = [capped.write(text) for text in ("12345", "67890", "more", "x" * 1000)]

    assert written == [5, 5, 4, 1000]
    assert stream.getvalue() == "1234567890\n(silenced after 10 characters)\n"


def test_a_flood_in_one_piece_is_cut() -> None:
    stream = io.StringIO()
    Capped(stream, 10).write("x" * 1000)

    assert stream.getvalue().startswith("xxxxxxxxxx\n(silenced")


def test_nobody_closes_it_for_the_others() -> None:
    stream = io.StringIO()
    capped = Capped(stream, 10)
    capped.close()
    capped.write("still")

    assert stream.getvalue() == "still"


def test_what_cannot_be_written_is_dropped(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w", encoding="ascii") as file:
        capped = Capped(file, 100)
        capped.write("good\n")
        capped.write("not ASCII: \ud800\n")
        capped.write("good\n")
    capped.write("closed")

    assert (tmp_path / "file").read_text() == "good\ngood\n"


def test_capping_twice_is_capping_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    cap_output()
    once = sys.stdout, sys.stderr
    cap_output()

    assert (sys.stdout, sys.stderr) == once
