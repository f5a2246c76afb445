//! The shard's rooms through their one boundary, with real bytes: what a client sees, and nothing else.

mod bytes;
mod connect;
mod deliver;
mod drain;
mod harness;
mod history;
mod in_doubt;
mod login;
mod memory;
mod rest;
mod send;
mod slow;
mod sockjs;
mod storm;
mod subscribe;
mod times;
