"""What a question to Alpaca's REST service may end in, sorted by what a strategy would do about it.

Decides the sentences. Must never receive a key, a secret or a header: whoever raises has taken them out.
"""

from consumers.errors import BusError, ExtraMissing


class RestError(BusError):
    """A question to Alpaca's REST service that has no answer."""


class RestUnavailable(RestError):
    """The service did not answer in time, not at all, or with a fault of its own (5xx); a later try may do."""


class RestRefused(RestError):
    """The service understood and declined (400, 401, 403, 404, 422): the same question will be declined again.

    `status` is the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class RestLimited(RestError):
    """The account's calls for this minute are spent: by Alpaca's word (429), or by the shared budget's count.

    `retry_after_s` is how many seconds from now a call may be possible again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RestMissing(RestError, ExtraMissing):
    """alpaca-py, or something that it needs, is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(package, "for questions to Alpaca's REST service", "rest")
