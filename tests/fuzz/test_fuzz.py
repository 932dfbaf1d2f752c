"""What was changed is refused in one sentence: a few hundred tries of `python -m tests.fuzz`."""

from tests.fuzz.__main__ import tried


def test_nothing_that_was_changed_breaks_anything() -> None:
    rows, said = tried(300, seed=1)
    assert not said, said[0]
    assert all(attempts > accepted for _, attempts, accepted, _ in rows)
    assert sum(accepted for _, _, accepted, _ in rows) > 10
