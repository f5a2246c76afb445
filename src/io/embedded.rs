//! The embedded store on the store's threads.

use crate::io::store_bridge::{Origin, Store, StoreReader};
use crate::model::Wall;
use crate::store::embedded::{Embedded, Reader};
use crate::store::{Read, Reply, Write};

impl Store for Embedded {
    type Reader = Reader;

    fn epoch(&self) -> u64 {
        Self::epoch(self)
    }

    fn apply(&mut self, writes: Vec<(Origin, Write)>, replies: &mut Vec<(Origin, Reply)>) {
        Self::apply(self, writes.into_iter().map(|(origin, write)| (origin, write.into())), replies);
    }

    fn reader(&self) -> Reader {
        Self::reader(self)
    }

    fn purge(&mut self, now: Wall, max: usize) -> usize {
        Self::purge(self, now, max)
    }
}

impl StoreReader for Reader {
    fn read(&self, read: &Read) -> Reply {
        Self::read(self, read)
    }
}
