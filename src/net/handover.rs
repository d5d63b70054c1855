//! Connections are accepted in one place and handed to the workers in turn.
//!
//! One listener rather than one per worker: with SO_REUSEPORT a second process would bind the same
//! port without anybody noticing, and few connections would spread unevenly. A connection belongs
//! to one worker for its whole life.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::{Carried, Listen};
use crate::watch;

/// Connections that may wait for one worker to take them up.
const HANDOVER_MAX: usize = 256;
/// How long to wait after a failed accept (out of descriptors, say) before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that are still taken after the stop: as many as the system may have kept.
const LATE_MAX: usize = 1_024;

/// A connection on its way to a worker, counted until it is closed.
pub struct Parcel<S: Carried> {
    /// The connection; the worker unpacks it.
    pub stream: S::Parcel,
    /// Who is at the other end.
    pub from: SocketAddr,
    /// Dropped when the connection is closed.
    pub counted: Counted,
}

/// One of the connections that are open.
pub struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives connections to one worker.
pub type Sender<S> = mpsc::Sender<Parcel<S>>;
/// Takes them up there.
pub type Receiver<S> = mpsc::Receiver<Parcel<S>>;

/// The ends through which connections reach `workers` workers.
pub fn handover<S: Carried>(workers: usize) -> (Vec<Sender<S>>, Vec<Receiver<S>>) {
    (0..workers).map(|_| mpsc::channel(HANDOVER_MAX)).unzip()
}

/// Accepts connections and hands them to the workers in turn, until told to stop; then those that
/// the system has taken up to that moment. `open` counts them; beyond `most` they are closed at
/// once, and `refused` is told whose.
pub async fn accept<L: Listen>(
    mut listener: L,
    workers: Vec<Sender<L::Stream>>,
    most: usize,
    open: Arc<AtomicUsize>,
    refused: impl Fn(SocketAddr) + Send,
    mut stop: watch::Receiver<bool>,
) {
    let (mut turn, mut stopping, mut late) = (0, false, 0);
    while late < LATE_MAX {
        let accepted = match stopping {
            false => tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    stopping = true;
                    continue;
                }
                accepted = listener.accept() => accepted,
            },
            // Their clients have connected and may have asked already.
            true => match listener.accept().now_or_never() {
                Some(accepted) => accepted,
                None => return,
            },
        };
        late += usize::from(stopping);
        let (stream, from) = match accepted.and_then(|(stream, from)| Ok((stream.pack()?, from))) {
            Ok(packed) => packed,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let counted = Counted(open.clone());
        if open.fetch_add(1, Ordering::Relaxed) >= most {
            refused(from);
            continue;
        }
        turn = (turn + 1) % workers.len();
        // A worker that is behind keeps the others waiting rather than being passed over: it will
        // catch up at once.
        let _ = workers[turn].send(Parcel { stream, from, counted }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipes::Pipes;
    use crate::net::{Dial, Network};
    use std::sync::Mutex;

    #[tokio::test(start_paused = true)]
    async fn connections_go_to_the_workers_in_turn_and_beyond_the_bound_they_are_closed() {
        let pipes = Pipes::default();
        let (senders, mut receivers) = handover(2);
        let (stop, stopped) = watch::channel(false);
        let (open, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
        let told = refused.clone();
        let refused_one = move |_| *told.lock().unwrap() += 1;
        let accepting = accept(pipes.listen("n1"), senders, 4, open.clone(), refused_one, stopped);
        let accepting = tokio::spawn(accepting);
        let mut dial = pipes.dial("n1").unwrap();
        for _ in 0..5 {
            dial.dial().await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!((receivers[0].len(), receivers[1].len()), (2, 2));
        assert_eq!((open.load(Ordering::Relaxed), *refused.lock().unwrap()), (4, 1));
        drop(receivers[0].recv().await);
        assert_eq!(open.load(Ordering::Relaxed), 3);
        stop.send(true).unwrap();
        accepting.await.unwrap();
        // The workers hear that no more will come.
        let last = receivers[0].recv().await.is_some();
        assert!(last && receivers[0].recv().await.is_none());
    }
}
