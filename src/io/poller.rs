//! One epoll descriptor for all sockets of a shard, and how to wait for it under glommio.
//!
//! glommio has no public "wait until this descriptor is readable", but its streams wait like that before they read. So
//! the poller wraps the epoll descriptor in a stream. The wait arms one poll in the ring, and the read that follows fails
//! with ENOTSOCK, which means that the wait is over. An armed poll stays armed until it fires, even if the task wakes for
//! another reason: cancelling it would leak its source.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_io::AsyncRead;
use glommio::net::UnixStream;
use rustix::event::{Timespec, epoll};

/// Lifetime and owner: a shard's executor. View: one shard.
pub(super) struct Poller {
    epoll: OwnedFd,
    armed: RefCell<Option<ManuallyDrop<UnixStream>>>,
    /// Work exists that no descriptor reports.
    nudged: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What happened to a descriptor. `key` is the number under which it was added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) key: u64,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer has closed its writing half: read until the end, even after a short read.
    pub(super) ending: bool,
    /// Both halves are closed or the connection was reset: it is gone, whether or not the shard reads it.
    pub(super) gone: bool,
}

/// Events of one call.
pub(super) const EVENTS_MAX: usize = 256;

impl Poller {
    /// # Errors
    /// When no descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, armed: RefCell::default(), nudged: Cell::default(), waker: RefCell::default() })
    }

    /// Adds a connection, edge-triggered. epoll also reports its present state, so no earlier bytes are missed.
    pub(super) fn add_connection(&self, socket: impl AsFd, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), flags)?)
    }

    /// Adds a listener, level-triggered: epoll reports it as long as a connection waits to be accepted.
    pub(super) fn add_listener(&self, socket: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
    }

    pub(super) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Appends to `events` what has happened, at most [`EVENTS_MAX`] events. Does not wait.
    pub(super) fn poll(&self, events: &mut Vec<Event>) -> io::Result<()> {
        let nothing = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut ready = [nothing; EVENTS_MAX];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(&self.epoll, &mut ready, Some(&at_once))?;
        for event in ready.iter().take(count) {
            let (flags, data) = (event.flags, event.data);
            let gone = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
            events.push(Event {
                key: data.u64(),
                readable: gone || flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
                writable: flags.contains(epoll::EventFlags::OUT),
                ending: gone || flags.contains(epoll::EventFlags::RDHUP),
                gone,
            });
        }
        Ok(())
    }

    /// Ends the wait of [`wait`](Self::wait), now or the next time. Same executor only.
    pub(super) fn nudge(&self) {
        self.nudged.set(true);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Waits for an event of a descriptor or a nudge. Only one task may wait.
    pub(super) async fn wait(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_wait(context)).await
    }

    fn poll_wait(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waker.borrow_mut().get_or_insert_with(|| context.waker().clone()).clone_from(context.waker());
        if self.nudged.replace(false) {
            return Poll::Ready(Ok(()));
        }
        let mut armed = self.armed.borrow_mut();
        let stream = armed.get_or_insert_with(|| self.epoll_stream());
        let waited = Pin::new(&mut **stream).poll_read(context, &mut [0; 1]);
        match waited {
            Poll::Pending => Poll::Pending,
            Poll::Ready(outcome) => {
                *armed = None;
                match outcome {
                    Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTSOCK.raw_os_error()) => Poll::Ready(Ok(())),
                    Err(error) => Poll::Ready(Err(error)),
                    Ok(_) => Poll::Ready(Err(io::Error::other("the epoll descriptor was replaced"))),
                }
            }
        }
    }

    /// A stream over the epoll descriptor, to arm a poll for reading. It is forgotten when the poll has fired. It then holds
    /// only a copy of the descriptor's number and one weak reference to the reactor, which leaks.
    fn epoll_stream(&self) -> ManuallyDrop<UnixStream> {
        // SAFETY: the number is that of an open descriptor, which `self` owns and closes. The stream never closes it,
        // since `ManuallyDrop` keeps it from being dropped, and does not outlive `self`, which holds it.
        ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(self.epoll.as_raw_fd()) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream as Socket;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;

    fn on_executor<F: Future<Output = ()> + 'static>(task: impl FnOnce() -> F + Send + 'static) {
        glommio::LocalExecutorBuilder::default().io_memory(0).spawn(task).unwrap().join().unwrap();
    }

    #[test]
    fn waits_repeatedly() {
        on_executor(|| async {
            let poller = Poller::new().unwrap();
            let (mut near, far) = Socket::pair().unwrap();
            poller.add_connection(&far, 7).unwrap();
            for _ in 0..100 {
                near.write_all(b"x").unwrap();
                poller.wait().await.unwrap();
                let mut events = Vec::new();
                poller.poll(&mut events).unwrap();
                assert_eq!(events.len(), 1);
                assert!(events[0].key == 7 && events[0].readable && !events[0].gone);
            }
        });
    }

    #[test]
    fn a_nudge_leaves_the_poll_armed() {
        on_executor(|| async {
            let poller = Rc::new(Poller::new().unwrap());
            let (mut near, far) = Socket::pair().unwrap();
            poller.add_listener(&far, 1).unwrap();
            for round in 0..100 {
                let nudging = Rc::clone(&poller);
                let nudge = glommio::spawn_local(async move { nudging.nudge() });
                poller.wait().await.unwrap();
                nudge.await;
                let mut events = Vec::new();
                poller.poll(&mut events).unwrap();
                assert!(events.is_empty(), "{round}");
            }
            let later = glommio::spawn_local(async move {
                glommio::timer::sleep(Duration::from_millis(1)).await;
                near.write_all(b"x").unwrap();
                near
            });
            poller.wait().await.unwrap();
            let mut events = Vec::new();
            poller.poll(&mut events).unwrap();
            assert_eq!(events.len(), 1);
            later.await;
        });
    }

    #[test]
    fn a_half_close_is_not_a_reset() {
        on_executor(|| async {
            let poller = Poller::new().unwrap();
            let (near, far) = Socket::pair().unwrap();
            poller.add_connection(&far, 1).unwrap();
            let mut events = Vec::new();
            near.shutdown(std::net::Shutdown::Write).unwrap();
            poller.poll(&mut events).unwrap();
            assert!(events.iter().any(|event| event.ending) && !events.iter().any(|event| event.gone));
            drop(near);
            poller.poll(&mut events).unwrap();
            assert!(events.iter().any(|event| event.gone));
        });
    }
}
