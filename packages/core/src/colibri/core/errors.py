"""Errors meant for a person: one sentence that says what was found, and a hint at the mend."""


class UserError(Exception):
    """A mistake that the caller can mend; command lines print it without a traceback and exit 2."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def first_line(error: BaseException) -> str:
    """What another library's error says first, for a sentence of ours; 200 characters at most."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class RowError(Exception):
    """One row cannot be used. `reason` is a short code that rows are counted and retried by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["RowError"], tuple[str, str]]:
        return type(self), (self.reason, self.message)
