"""Every error that liveness raises, by who is to blame and who can mend it.

Expected outcomes (an epoch that was already over, a row that finished meanwhile) are values, not errors.
"""


class LivenessError(Exception):
    """The base of all errors of this package; its text is one line that says what to do."""


class SettingsError(LivenessError):
    """The operator's side: a setting is unusable. The text names the setting, the value and the fix."""


class AccessError(SettingsError, ValueError):
    """Both sides: a way of logging in is unusable. The text names the setting, never what is secret of it."""


class MessageError(LivenessError):
    """The sender's side: bytes that do not say what a message of their subject has to say."""


class CannotStartError(LivenessError):
    """The surroundings' side: something the service needs is wrong and will not mend itself by waiting."""


class DatabaseAwayError(LivenessError):
    """Postgres cannot be reached, or cannot answer just now; the same call may succeed later."""


class DatabaseRefusedError(LivenessError):
    """Postgres understood the statement and refused it; the same call will be refused again."""


class ContestedError(DatabaseRefusedError):
    """Somebody holds what some of the rows asked for need; the same call may succeed in a moment."""


class TurnedAwayError(MessageError):
    """A stranger's message, beyond the bounds for those: as if it had not been heard."""


class NotLeaderError(LivenessError):
    """Another replica acts, or none does yet: nothing was done here, and the leader does what is to be done."""


class PausedError(LivenessError):
    """An operator has paused: nothing was taken. The text says who, since when, and why."""


class NoServiceError(LivenessError):
    """Nobody answered on the service's API subjects."""


class ForbiddenError(LivenessError):
    """The operator's side: NATS does not let this login ask the service, or hear the answer."""


class NatsAwayError(LivenessError):
    """NATS cannot be reached, so nobody can be asked and nobody heard."""


class StreamAwayError(LivenessError):
    """JetStream does not answer for the events' stream, or not yet; the same call may succeed later."""


class NatsRefusedError(LivenessError):
    """NATS does not let us in, or is not to be trusted. The text goes on behind "NATS at ..."."""


class LostError(LivenessError):
    """The worker's side: its work was given away, or may be before it is done. It has to stop, and drop its work."""


class DrainingError(LivenessError):
    """The worker's side: it is about to leave, and begins nothing any more."""


class EmbeddedError(LivenessError):
    """An embedded server could not be found or did not start."""
