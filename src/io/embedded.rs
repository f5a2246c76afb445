//! The embedded store on the store's threads.

use crate::io::store_bridge::{Origin, Store, StoreReader};
use crate::model::Wall;
use crate::store::embedded::{Embedded, Reader};
use crate::store::{Reply, Request};

impl Store for Embedded {
    type Reader = Reader;

    fn epoch(&self) -> u64 {
        Self::epoch(self)
    }

    fn apply(&mut self, requests: Vec<(Origin, Request)>, replies: &mut Vec<(Origin, Reply)>) {
        Self::apply(self, requests, replies);
    }

    fn reader(&self) -> Reader {
        Self::reader(self)
    }

    fn purge(&mut self, now: Wall, max: usize) -> usize {
        Self::purge(self, now, max)
    }
}

impl StoreReader for Reader {
    fn read(&self, request: &Request) -> Reply {
        Self::read(self, request)
    }
}
