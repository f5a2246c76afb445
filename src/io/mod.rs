//! glommio: sockets, clocks and threads, and no decisions.
