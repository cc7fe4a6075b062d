from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from tests.side_by_side import own_part_first, own_ports, turn, worker_count

HERE = Path(__file__)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ([HERE.parent], 8),
        ([HERE.parent / "cli", HERE.parent / "web"], 8),
        ([HERE], 0),
        ([HERE.parent / "cli", HERE], 0),
        ([f"{HERE}::test_only_directories_get_workers"], 0),
    ],
)
def test_only_directories_get_workers(arguments: list[Path | str], count: int) -> None:
    assert worker_count([str(argument) for argument in arguments], 2) == count


def test_many_cores_do_not_get_ever_more_workers() -> None:
    assert worker_count([str(HERE.parent)], 64) == 8


def test_workers_share_no_port() -> None:
    workers = [{"PYTEST_XDIST_WORKER": f"gw{number}", "PYTEST_XDIST_WORKER_COUNT": "3"} for number in range(3)]
    ports = list(chain.from_iterable(own_ports(worker) for worker in workers))
    assert len(ports) == len(set(ports)) == 10_000
    assert sorted(own_ports({})) == sorted(ports)
    assert own_ports({}) != own_ports({}), "two runs side by side would take the same ones"


def test_longest_come_first() -> None:
    paths = ["_core/test_pace.py", "backplane/kafka/test_faults.py", "backplane/kafka/test_presence_nodes.py"]
    assert sorted(paths, key=turn) == paths[::-1]
    for path in paths[1:]:
        assert (HERE.parent / path).is_file()


def test_each_worker_begins_with_a_part_of_its_own() -> None:
    workers = [{"PYTEST_XDIST_WORKER": f"gw{number}", "PYTEST_XDIST_WORKER_COUNT": "3"} for number in range(3)]
    assert [own_part_first("abcdefg", worker) for worker in workers] == [
        list("abcdefg"),
        list("cdefgab"),
        list("efgabcd"),
    ]
    assert own_part_first("abc", {}) == ["a", "b", "c"]
