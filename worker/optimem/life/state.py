"""Where an attachment stands, what a forward teaches it, and what one may have taught when it is over."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..errors import BadInput
from ..learning.calibrate import Steps
from ..model.recording import Recording
from .shortage import Shortage


class State(enum.Enum):
    """Where an attachment stands, and the device memory that each state costs."""

    LEARNING = "learning"  # a coming forward is recorded; between recorded forwards only buffers are on the device
    WEIGHING = "weighing"  # the next forward runs on the CPU, and its steps are timed; a plan is followed
    STEADY = "steady"  # a plan is followed: residents and the arena are on the device
    DETACHED = "detached"  # nothing of ours is left


class Lesson(enum.Enum):
    """The kind of the next call."""

    RECORD = "record"  # weights are fetched on touch, and every reader is noted
    WEIGH = "weigh"  # the CPU computes, step by step
    WATCH = "watch"  # a plan is followed, and every operation is watched for readers that the recording has not seen
    FOLLOW = "follow"  # a plan is followed


@dataclass(frozen=True)
class Outcome:
    """What a call has come to. `steps` are the median step times of steady forwards, in the first outcome that has them."""

    steps: Steps | None = None


@dataclass(frozen=True)
class Unbegun(Outcome):
    """The call was refused at its entry."""


@dataclass(frozen=True)
class Done(Outcome):
    """The forward went as planned."""


@dataclass(frozen=True)
class Failed(Outcome):
    """The forward raised an error of the model's own."""


@dataclass(frozen=True)
class Learnt(Outcome):
    """The forward was recorded."""

    recording: Recording | None = None


@dataclass(frozen=True)
class Unplanned(Outcome):
    """The forward was recorded, and no controller is there to plan with it."""


@dataclass(frozen=True)
class Refused(Outcome):
    """The forward was recorded, and the controller has refused to plan with it."""

    refusal: BadInput | None = None


@dataclass(frozen=True)
class Replanned(Outcome):
    """Another plan came for the recording in force, and is followed."""


@dataclass(frozen=True)
class Reopened(Outcome):
    """The next call is to be recorded: memory has become less, a generator was stepped, or a reader was unforeseen."""


@dataclass(frozen=True)
class Weighed(Outcome):
    """The forward ran on the CPU. `steps` is None where it failed, or went another way than the recorded one."""


@dataclass(frozen=True)
class Strayed(Outcome):
    """The forward left the recorded way. `unforeseen`: a module read a weight that no recording had seen it read."""

    unforeseen: bool = False


@dataclass(frozen=True)
class Short(Outcome):
    """The forward ran out of device memory."""

    shortage: Shortage | None = None
