"""What the processes of a store share in memory."""

import os

from ostraka.metrics import Board, Metric
from ostraka.shared import NOBODY, Incarnations, Pins, SharedWords


def test_the_oldest_reader_of_any_process_holds_the_collector_back() -> None:
    words = SharedWords(2, 1, NOBODY)
    now = [5]
    ours, theirs = (Pins(lambda: now[0], words, row) for row in range(2))
    assert ours.oldest() == NOBODY
    first = theirs.enter()
    now[0] = 9
    second = ours.enter()
    assert ours.oldest() == theirs.oldest() == 5
    theirs.leave(first)
    theirs.leave(first)
    assert ours.oldest() == 9
    ours.leave(second)
    assert ours.oldest() == NOBODY


def test_a_reader_that_had_time_enough_holds_nothing_back_any_more() -> None:
    pins = Pins(lambda: 7)
    old = pins.enter()
    for _ in range(3):
        pins.age(3)
    assert pins.oldest() == 7
    young = pins.enter()
    pins.age(3)
    assert pins.oldest() == 7, "the young one is there"
    pins.leave(young)
    assert pins.oldest() == NOBODY
    pins.leave(old)


def test_children_see_each_others_words_and_sums() -> None:
    board = Board([Metric("things_total", "counter", "things", {"kind": ("a", "b")})], 3)
    alive = Incarnations(3)
    for row in (1, 2):
        pid = os.fork()
        if pid == 0:
            board.take_row(row)
            board.add(board.cell("things_total", "a"), row)
            alive.register(row, bytes([row]) * 16)
            os._exit(0)
        os.waitpid(pid, 0)
    assert board.total("things_total", "a") == 3
    assert b'things_total{kind="a"} 3' in board.render()
    assert alive.alive() == {b"\x01" * 16, b"\x02" * 16}
    alive.clear(1)
    assert alive.alive() == {b"\x02" * 16}
