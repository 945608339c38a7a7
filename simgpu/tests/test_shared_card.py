"""Several processes on one card: sums that stay right whoever dies, a stranger, and files that are not a card's."""

from __future__ import annotations

import os
import random
import signal
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from neighbour import Card, Neighbour, World, world

GIB = 1 << 30
ALL = 12 * GIB


@pytest.fixture
def card() -> Iterator[World]:
    with world() as made:
        yield made


def test_two_processes_share_the_memory(card: World) -> None:
    with Neighbour(card.name) as one, Neighbour(card.name) as two:
        assert one.ask("reserve", 7 * GIB)
        assert not two.ask("reserve", 6 * GIB)
        assert two.ask("reserve", 5 * GIB)
        assert card.held() == {one.pid: 7 * GIB, two.pid: 5 * GIB}
        assert card.status()["free_bytes"] == 0
        one.ask("give_back", GIB)
        assert two.ask("reserve", GIB)
        assert not one.ask("reserve", 1)


def test_memory_of_a_killed_process_returns(card: World) -> None:
    with Neighbour(card.name) as survivor, Neighbour(card.name) as victim:
        assert victim.ask("reserve", 10 * GIB)
        assert not survivor.ask("reserve", 3 * GIB)
        victim.kill()
        assert survivor.ask("reserve", 3 * GIB)
        assert card.held() == {survivor.pid: 3 * GIB}


def test_a_process_that_nobody_has_waited_for_is_dead_too(card: World) -> None:
    with Neighbour(card.name) as survivor, Neighbour(card.name) as victim:
        assert victim.ask("reserve", 10 * GIB)
        victim.kill(wait=False)
        os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
        assert survivor.ask("reserve", 3 * GIB)
        assert list(card.held()) == [survivor.pid]


def test_kills_at_random_moments_leave_the_sums_right(card: World) -> None:
    chance = random.Random(4)
    with Neighbour(card.name) as survivor:
        assert survivor.ask("reserve", GIB)
        for _ in range(20):
            churning = [Neighbour(card.name) for _ in range(4)]
            for one in churning:
                one.ask("churn", 2 * GIB)
            for one in churning:
                time.sleep(chance.random() / 1000)
                status = card.status()
                assert status["used_bytes"] == sum(p["bytes"] for p in status["processes"]) <= ALL
                one.kill()
            assert card.held() == {survivor.pid: GIB}
            assert survivor.ask("reserve", 11 * GIB)
            assert not survivor.ask("reserve", 1)
            survivor.ask("give_back", 11 * GIB)


def test_a_stopped_process_keeps_its_memory(card: World) -> None:
    with Neighbour(card.name) as other, Neighbour(card.name) as stopped:
        assert stopped.ask("reserve", 10 * GIB)
        os.kill(stopped.pid, signal.SIGSTOP)
        assert not other.ask("reserve", 3 * GIB)


def test_threads_of_one_process_lose_nothing(card: World) -> None:
    mine = Card(card.name)

    def work() -> None:
        for _ in range(500):
            assert mine.reserve(5)
            mine.give_back(3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mine.reserved() == 4 * 500 * 2
    mine.close()


def test_a_stranger_takes_and_leaves(card: World) -> None:
    with Neighbour(card.name) as one:
        assert one.ask("reserve", 4 * GIB)
        card.squeeze("3GiB")
        assert card.status()["free_bytes"] == 5 * GIB
        card.squeeze("6 GiB")  # more than is free
        status = card.status()
        assert (status["free_bytes"], status["squeezed_bytes"], status["used_bytes"]) == (0, 9 * GIB, 13 * GIB)
        assert not one.ask("reserve", 1)
        card.release()
        assert card.status()["free_bytes"] == 8 * GIB


def test_the_link_is_seen_and_cannot_be_more_than_the_cards(card: World) -> None:
    card.link("x4")
    assert card.status()["link"] == {"generation": 4, "width": 4}
    card.link("gen3")
    assert card.status()["link"] == {"generation": 3, "width": 4}
    for wrong in ("x32", "gen5", "x3", "x0", "fast", ""):
        with pytest.raises(ValueError, match="link"):
            card.link(wrong)
    card.link("pcie3x8")
    assert card.status()["link"] == {"generation": 3, "width": 8}
    card.link("reset")
    assert card.status()["link"] == card.status()["max_link"]


def test_what_a_stranger_did_outlives_the_processes_and_nothing_else_does(card: World) -> None:
    one = Neighbour(card.name, SIMGPU_CAPACITY="6GiB")
    assert card.state.exists()
    card.squeeze("1GiB")
    one.leave()
    assert card.state.exists()
    with Neighbour(card.name, profile="t4") as two:  # another card now, under the same stranger
        assert two.ask("reserve", 15 * GIB)
        assert not two.ask("reserve", 1)
        card.release()
        two.leave()
    assert not card.state.exists()


def test_processes_that_come_and_go_are_always_on_the_same_card(card: World) -> None:
    flickering = [Neighbour(card.name) for _ in range(3)]
    for one in flickering:
        one.say("flicker", 300)
    assert [one.answer() for one in flickering] == [0, 0, 0]
    for one in flickering:
        one.leave()
    assert not card.state.exists()


def test_a_killed_processs_file_goes_with_the_next_look(card: World) -> None:
    with Neighbour(card.name) as one:
        one.ask("reserve", GIB)
    assert card.state.exists()
    assert card.status()["idle"]
    assert not card.state.exists()


def test_what_is_called_after_leaving_does_no_harm(card: World) -> None:
    mine = Card(card.name)
    assert mine.reserve(GIB)
    mine.leave()
    assert not card.state.exists()
    mine.give_back(GIB)
    mine.leave()
    assert mine.reserved() == 0
    assert mine.reserve(2 * GIB)
    assert card.held() == {os.getpid(): 2 * GIB}
    mine.close()
    assert not card.state.exists()


def test_a_card_in_use_keeps_its_profile_and_its_capacity(card: World) -> None:
    with Neighbour(card.name, SIMGPU_CAPACITY="6GiB") as one:
        with Neighbour(card.name, SIMGPU_CAPACITY="8GiB") as two:
            assert not two.ask("reserve", 7 * GIB)
        with pytest.raises(ValueError, match="in use as rtx3060, and t4 was asked for; choose another name"):
            Neighbour(card.name, profile="t4")
        assert one.ask("reserve", 6 * GIB)


def test_a_capacity_that_changes_counts_for_all(card: World) -> None:
    mine = Card(card.name)
    with Neighbour(card.name) as one:
        assert one.ask("reserve", 2 * GIB)
        mine.set_capacity(GIB)
        assert (card.status()["total_bytes"], card.status()["free_bytes"]) == (GIB, 0)
        assert not mine.reserve(1)
        mine.set_capacity(3 * GIB)
        assert mine.reserve(GIB)
    mine.close()


def test_a_forked_child_begins_with_nothing_and_leaves_its_parents_part_alone(card: World) -> None:
    with Neighbour(card.name) as parent:
        assert parent.ask("reserve", 2 * GIB)
        assert parent.ask("fork") == {"before": 0, "taken": True, "after": 0}
        assert card.held() == {parent.pid: 2 * GIB}
        assert parent.ask("fork", GIB, GIB) == {"before": 0, "taken": True, "after": 2 * GIB}
        assert parent.ask("fork", 11 * GIB) == {"before": 0, "taken": False, "after": 0}
        assert card.held() == {parent.pid: 2 * GIB}


def test_a_forked_child_whose_parent_left_is_on_the_card_that_others_see(card: World) -> None:
    with Neighbour(card.name) as parent:
        child = parent.ask("outlive", GIB)
        try:
            assert child != parent.pid
            assert card.held() == {child: GIB}
        finally:
            os.kill(child, signal.SIGKILL)


def test_an_exec_gives_up_what_the_process_had(card: World) -> None:
    with Neighbour(card.name) as one:
        assert one.ask("reserve", 2 * GIB)
        one.ask("exec")
        assert one.ask("reserve", GIB)
        assert card.held() == {one.pid: GIB}


def test_numbers_do_not_wrap(card: World) -> None:
    mine = Card(card.name)
    assert not mine.reserve(2**64 - 1)
    mine.give_back(1)
    assert mine.reserve(10)
    mine.give_back(11)
    assert mine.reserved() == 0
    assert mine.reserve(10, anyway=True)
    assert mine.reserve(2**64 - 1, anyway=True)
    assert card.status()["free_bytes"] == 0
    card.squeeze("4000000GiB")
    assert (card.status()["used_bytes"], card.status()["free_bytes"]) == (2**64 - 1, 0)
    mine.close()


def test_a_card_has_so_many_places(card: World) -> None:
    opened = [Card(card.name) for _ in range(256)]
    with pytest.raises(RuntimeError, match="has 256 processes"):
        Card(card.name)
    opened.pop().close()
    opened.append(Card(card.name))
    for one in opened:
        one.close()
    assert not card.state.exists()


def test_a_process_that_opens_a_card_twice_is_one(card: World) -> None:
    one, two = Card(card.name), Card(card.name)
    assert one.reserve(GIB)
    assert two.reserve(2 * GIB)
    assert card.held() == {os.getpid(): 3 * GIB}
    one.close()
    assert card.held() == {os.getpid(): 2 * GIB}
    two.close()


@pytest.mark.parametrize("name", ["a/b", "../x", "a b", "x" * 65, "é"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a card's name"):
        Card(name)


@pytest.mark.parametrize("size", ["", "3", "3 GiB", "0.5gib", "-1", "3GiBs", "1e9", "9" * 20, "8000000TiB"])
def test_sizes(card: World, size: str) -> None:
    right = {"3": 3, "3 GiB": 3 * GIB, "0.5gib": GIB // 2}
    if size in right:
        card.squeeze(size)
        assert card.status()["squeezed_bytes"] == right[size]
    else:
        with pytest.raises(ValueError, match="SIZE"):
            card.squeeze(size)


@pytest.mark.parametrize(
    "content",
    [b"x", b"not a card's state", b"\0" * 100, os.urandom(16704), os.urandom(100_000), b"HSEDGPU\0" + b"\xff" * 16696],
    ids=["one byte", "text", "short", "noise", "long noise", "wild numbers"],
)
def test_a_file_that_is_no_cards_is_left_alone_and_named(card: World, content: bytes) -> None:
    card.state.write_bytes(content)
    card.state.chmod(0o600)
    for act in (lambda: Card(card.name), card.status, lambda: card.squeeze("1GiB")):
        with pytest.raises(RuntimeError, match=f"{card.state} holds no simulated card's state; remove it, or choose"):
            act()
    assert card.state.read_bytes() == content


def test_a_truncated_state_is_named(card: World) -> None:
    Card(card.name).reserve(1)  # stays open to the end of the test
    half = card.state.read_bytes()[:8000]
    card.state.unlink()
    card.state.write_bytes(half)
    card.state.chmod(0o600)
    with pytest.raises(RuntimeError, match="holds no simulated card's state"):
        Card(card.name)


@pytest.mark.parametrize("content", [b"", b"\0" * 16704], ids=["nothing", "zeros"])
def test_a_file_whose_maker_died_is_made_again(card: World, content: bytes) -> None:
    card.state.write_bytes(content)
    card.state.chmod(0o600)
    mine = Card(card.name)
    assert mine.reserve(GIB)
    assert card.held() == {os.getpid(): GIB}
    mine.close()


def test_another_versions_card_is_made_anew_when_nobody_uses_it(card: World) -> None:
    def aged() -> bytes:
        content = bytearray(mine_bytes)
        struct.pack_into("<I", content, 8, 99)
        return bytes(content)

    with Neighbour(card.name) as one:
        mine_bytes = card.state.read_bytes()
        card.state.unlink()
        card.state.write_bytes(aged())
        card.state.chmod(0o600)
        with pytest.raises(RuntimeError, match=rf"is used by process {one.pid}, which has version 99"):
            Card(card.name)
    mine = Card(card.name)
    assert mine.reserve(GIB)
    mine.close()


def test_a_link_to_elsewhere_is_not_followed(card: World, tmp_path: object) -> None:
    card.state.symlink_to(f"{tmp_path}/elsewhere")
    with pytest.raises(RuntimeError, match=f"{card.state} is a symbolic link"):
        Card(card.name)
    assert not os.path.exists(f"{tmp_path}/elsewhere")


def test_a_folder_or_a_pipe_is_no_card(card: World) -> None:
    card.state.mkdir()
    with pytest.raises(RuntimeError, match=str(card.state)):
        Card(card.name)
    card.state.rmdir()
    os.mkfifo(card.state, 0o600)
    with pytest.raises(RuntimeError, match="is no regular file"):
        Card(card.name)


def test_a_file_that_others_may_open_is_refused(card: World) -> None:
    card.state.touch()
    card.state.chmod(0o666)
    with pytest.raises(RuntimeError, match=r"may be opened by other users; chmod 600"):
        Card(card.name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_another_users_file_is_refused(card: World) -> None:
    card.state.touch(mode=0o600)
    os.chown(card.state, 12345, -1)
    with pytest.raises(RuntimeError, match=rf"{card.state} (belongs to user 12345|\(remove it)|cannot open"):
        Card(card.name)
