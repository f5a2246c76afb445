//! Load for a tidings server, with checks for lost, doubled and reordered messages.
//!
//! Purpose: open-loop and closed-loop load over STOMP on WebSockets and SockJS, REST reads of the histories, kills, and the
//! server's cost in the kernel's accounting. Flows in: options. Flows out: a summary, one line of JSON, and the exit code: 0 when
//! nothing was lost, doubled or reordered, 1 otherwise, 2 when the load could not be applied.
//! It uses the rooms client, protocol and model of the server's package, which build without the server.

pub mod clock;
pub mod connection;
pub mod cost;
pub mod crash;
pub mod engine;
pub mod floor;
pub mod generate;
pub mod guide;
pub mod idle;
pub mod marker;
pub mod meter;
pub mod pages;
pub mod pairs;
pub mod random;
pub mod report;
pub mod rest;
pub mod run;
pub mod sequence;
pub mod server;
pub mod socket;
pub mod tables;
pub mod target;
pub mod topic;
pub mod verify;
