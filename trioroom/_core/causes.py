"""What is inside an error: nurseries wrap errors in groups, libraries in errors of their own."""

from __future__ import annotations


def first_of(error: BaseException) -> BaseException:
    """One error of a group, for a message in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def root_of(error: BaseException) -> BaseException:
    """What began it: Trio and others wrap the refusal of each address they tried."""
    while (cause := error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__) is not None:
        error = cause
    return error


def leaves_of(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in ``group``, however many nurseries they came through."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves_of(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
