//! Listening sockets: one for each shard and address, all on the same port; the kernel spreads new connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, getsockname, listen, socket_with, sockopt};

use crate::shard::ListenerKind;

/// Connections that the kernel completes before they are accepted; `net.core.somaxconn` may make it fewer.
const BACKLOG: i32 = 4_096;

/// Lifetime: until the drain. Owner: a shard's pump. View: one shard.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    /// Which protocols its connections speak.
    pub(super) kind: ListenerKind,
    /// Not watched: the shard has reached its limit of connections, or the process its limit of descriptors.
    pub(super) paused: bool,
}

/// The outcome of one attempt to accept.
#[derive(Debug)]
pub(super) enum Accepted {
    Connection {
        socket: OwnedFd,
        peer: IpAddr,
    },
    /// No connection waits.
    WouldBlock,
    /// The connection ended before it was accepted; others may wait.
    Vanished,
    /// The process or the system is out of descriptors or memory.
    Exhausted(io::Error),
    Failed(io::Error),
}

impl Listener {
    pub(super) fn accept(&self) -> Accepted {
        match acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
                Accepted::Connection { socket, peer }
            }
            Err(Errno::AGAIN) => Accepted::WouldBlock,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => Accepted::Exhausted(error.into()),
            // accept(2) reports errors of the connection that waited; the listener is sound.
            Err(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM,
            ) => Accepted::Vanished,
            Err(error) => Accepted::Failed(error.into()),
        }
    }

    /// Starts to accept connections into the backlog.
    pub(super) fn listen(&self) -> io::Result<()> {
        Ok(listen(&self.socket, BACKLOG)?)
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        SocketAddr::try_from(getsockname(&self.socket)?).map_err(Into::into)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Checks that the address is free. Shards share a port, which hides a second server on it; a bind without sharing
/// finds that server. Port 0 is always free.
pub(super) fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = open(address)?;
    // Allow for a connection of an earlier server in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(bind(&socket, &address)?)
}

/// Binds one socket for each shard. With port 0, all use the port that the first one gets.
pub(super) fn bind_all(address: SocketAddr, kind: ListenerKind, shards: u16) -> io::Result<Vec<Listener>> {
    let mut address = address;
    let mut listeners = Vec::new();
    for _ in 0..shards {
        let socket = open(address)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        // Accepted connections inherit this on Linux.
        sockopt::set_tcp_nodelay(&socket, true)?;
        bind(&socket, &address)?;
        let listener = Listener { socket, kind, paused: false };
        address = listener.address()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn open(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn a_second_server_is_found() {
        let listeners = bind_all(loopback(), ListenerKind::Http, 2).unwrap();
        let address = listeners[0].address().unwrap();
        assert_eq!(listeners[1].address().unwrap(), address);
        for listener in &listeners {
            listener.listen().unwrap();
        }
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(probe(address).is_ok());
    }

    #[test]
    fn accepted_connections_send_at_once() {
        let listener = bind_all(loopback(), ListenerKind::Http, 1).unwrap().remove(0);
        listener.listen().unwrap();
        assert!(matches!(listener.accept(), Accepted::WouldBlock));
        let _client = TcpStream::connect(listener.address().unwrap()).unwrap();
        let Accepted::Connection { socket, peer } = listener.accept() else { panic!("no connection was accepted") };
        assert_eq!(peer, IpAddr::from([127, 0, 0, 1]));
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
    }
}
