//! A network between two processes: copies bytes, and can be cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ports;

const BUFFER_BYTES: usize = 1 << 16;

/// Listens on an address of its own for as long as its process lives.
#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Leads to `target`, whether or not somebody listens there.
    pub fn to(target: SocketAddr) -> Self {
        let address = ports::free();
        let listener = TcpListener::bind(address).expect("the port is free");
        let proxy = Self { address, connections: Arc::default() };
        let accepting = proxy.clone();
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|near| accepting.connect(near, target));
        });
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection in the middle of whatever is said.
    pub fn cut(&self) {
        let connections = std::mem::take(&mut *self.lock());
        connections.iter().for_each(end);
    }

    /// A connection to somebody who is not there ends at once.
    fn connect(&self, near: TcpStream, target: SocketAddr) {
        let Ok(far) = TcpStream::connect(target) else { return };
        let copy = |from: &TcpStream, to: &TcpStream| {
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            std::thread::spawn(move || copy(&from, &to));
            std::io::Result::Ok(())
        };
        _ = near.set_nodelay(true).and(far.set_nodelay(true));
        if copy(&near, &far).and(copy(&far, &near)).is_ok() {
            let mut connections = self.lock();
            connections.retain(|connection| connection.peer_addr().is_ok());
            connections.extend([near, far]);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    end(from);
    end(to);
}

fn end(connection: &TcpStream) {
    // It may have ended by itself.
    _ = connection.shutdown(Shutdown::Both);
}
