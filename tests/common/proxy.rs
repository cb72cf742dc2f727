//! A line between two nodes that a test can cut.
//!
//! Bytes pass as they are; the nodes know nothing of it. [`Line::cut`] ends every connection that
//! goes through it and leaves both nodes and the way for new connections as they are.

#![allow(dead_code, reason = "not every test cuts the line")]

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// See the module. Its threads end with the test's process.
pub(crate) struct Line {
    /// Where it listens.
    pub(crate) port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    /// A line to a port of this machine.
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let open = Arc::new(Mutex::new(Vec::new()));
        let streams = Arc::clone(&open);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // The other end may not listen just now: then this connection ends too.
                if let Ok(far) = TcpStream::connect(("127.0.0.1", target)) {
                    join(&near, &far, &streams).expect("sockets can be cloned");
                }
            }
        });
        Self { port, open }
    }

    /// Ends every connection; how many there were.
    pub(crate) fn cut(&self) -> usize {
        let streams = std::mem::take(&mut *lock(&self.open));
        for stream in &streams {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        streams.len() / 2
    }
}

fn lock(streams: &Mutex<Vec<TcpStream>>) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(near: &TcpStream, far: &TcpStream, streams: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    lock(streams).extend([near.try_clone()?, far.try_clone()?]);
    for (from, to) in [(near, far), (far, near)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
