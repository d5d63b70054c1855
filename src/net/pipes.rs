//! A network of pipes in memory, for tests: what is dialled comes out at whoever listens under that
//! name.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::{Carried, Dial, Listen, Network, Stream};

/// What a pipe holds in each direction.
const PIPE_BYTES: usize = 16 << 10;

/// The network; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Pipes(Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<DuplexStream>>>>);

impl Pipes {
    /// Listens under `name`, instead of whoever did before.
    pub(crate) fn listen(&self, name: &str) -> PipeListener {
        let (pipes, listener) = mpsc::unbounded_channel();
        self.0.lock().unwrap().insert(name.into(), pipes);
        PipeListener(listener)
    }
}

impl Network for Pipes {
    type Dial = PipeDial;
    fn dial(&self, address: &str) -> io::Result<PipeDial> {
        Ok(PipeDial { pipes: self.clone(), to: address.into(), dials: Arc::default() })
    }
}

pub(crate) struct PipeDial {
    pipes: Pipes,
    to: String,
    /// How often it has dialled.
    pub(crate) dials: Arc<AtomicUsize>,
}

pub(crate) struct PipeListener(mpsc::UnboundedReceiver<DuplexStream>);

impl Dial for PipeDial {
    type Stream = DuplexStream;
    async fn dial(&mut self) -> io::Result<DuplexStream> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let pipes = self.pipes.0.lock().unwrap();
        pipes.get(&self.to).ok_or_else(refused)?.send(far).map_err(|_| refused())?;
        Ok(near)
    }
}

impl Listen for PipeListener {
    type Stream = DuplexStream;
    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream, SocketAddr::from(([127, 0, 0, 1], 1)))),
            None => std::future::pending().await,
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 1)))
    }
}

impl Stream for DuplexStream {}

impl Carried for DuplexStream {
    type Parcel = Self;
    type Served = Self;
    fn pack(self) -> io::Result<Self> {
        Ok(self)
    }
    async fn unpack(parcel: Self) -> io::Result<Self> {
        Ok(parcel)
    }
}
