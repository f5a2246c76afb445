//! What a device has at hand while it acts, and what it wants of the network.

use std::time::Duration;

use crate::shard::ListenerKind;
use crate::sim::network::Line;
use crate::sim::oracle::{Moment, Oracle};
use crate::sim::plan::Plan;
use crate::sim::random::Random;

/// How far the run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Faults,
    /// Nothing goes wrong any more: every device reconnects and finishes.
    Recovery,
    /// Devices begin nothing new.
    Settling,
}

/// The parts of the world that a device has at hand while it acts.
pub(super) struct Ctx<'a> {
    pub(super) random: &'a mut Random,
    pub(super) oracle: &'a mut Oracle,
    pub(super) plan: &'a Plan,
    pub(super) moment: Moment,
    pub(super) phase: Phase,
    pub(super) out: &'a mut Vec<Do>,
}

/// An action of a device on the network.
#[derive(Debug)]
pub(super) enum Do {
    Open(Line, ListenerKind),
    Send(Line, Vec<u8>),
    /// Closes the writing half of the connection.
    Finish(Line),
    Close(Line),
    /// Reads nothing for a while.
    Stall(Line, Duration),
}
