//! Whether a node is there: it is greeted and left again.
//!
//! Whoever wants to become a member is looked for at the address that it names, before it is one:
//! the greeting has to come about, so it is that node, of that cluster, in a version that is spoken
//! here. A node that isn't running yet stands on its [`Doorstep`] meanwhile, greets whoever comes,
//! and answers nothing.

use std::time::Duration;

use super::Class;
use super::frame::FrameError;
use super::handshake::{self, HANDSHAKE_MAX, HandshakeError, Identity, Us};
use super::proof::Guard;
use crate::check::Name;
use crate::net::{Carried as _, Dial, Listen, Stream as _};
use crate::placement::FormatLevel;

/// How long to wait where the system can't give a connection: it has too many, and some will end.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Greets the node `peer` at the other end and returns the format level of its program. Errs with
/// the reason where another node answers, or none. A node that is not admitted yet can't know the
/// secret of the cluster: it is asked for no proof, and nothing is asked of it.
pub async fn knock<D: Dial>(
    us: &Identity,
    peer: &Name,
    dial: &mut D,
) -> Result<FormatLevel, String> {
    let stream = dial.dial().await.map_err(|error| error.to_string())?;
    let certified = stream.certified().cloned();
    let (mut reader, mut writer) = handshake::framed(stream);
    let us = Us { identity: us, guard: &Guard::default() };
    let greeted =
        handshake::call(&mut reader, &mut writer, us, certified.as_ref(), Class::Raft, peer).await;
    greeted.map(|agreed| agreed.peer.who.level).map_err(|error| error.to_string())
}

/// Where a node stands that has an address and isn't running yet.
pub struct Doorstep<'l, L> {
    listener: &'l mut L,
    us: Identity,
}

impl<'l, L: Listen> Doorstep<'l, L> {
    /// That of the node which `us` names, at the address where `listener` listens.
    pub fn new(listener: &'l mut L, us: Identity) -> Self {
        Self { listener, us }
    }

    /// Greets whoever comes, one after another, for as long as it is polled.
    pub async fn greet(self) {
        loop {
            // Who can't be accepted, or doesn't greet within a second, comes again.
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(AGAIN_AFTER).await;
                continue;
            };
            if let Err(error) = self.greet_one(stream).await {
                tracing::debug!(%error, "somebody at the door");
            }
        }
    }

    async fn greet_one(&self, connection: L::Stream) -> Result<(), HandshakeError> {
        let parcel = connection.pack().map_err(FrameError::Io)?;
        let unpacked = tokio::time::timeout(HANDSHAKE_MAX, L::Stream::unpack(parcel)).await;
        let stream = unpacked.map_err(|_| HandshakeError::TooSlow)?.map_err(FrameError::Io)?;
        let certified = stream.certified().cloned();
        let (mut reader, mut writer) = handshake::framed(stream);
        let us = Us { identity: &self.us, guard: &Guard::default() };
        let greeted =
            handshake::answer(&mut reader, &mut writer, us, certified.as_ref(), |_| true).await;
        greeted.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Network as _;
    use crate::net::pipes::Pipes;
    use crate::peer::{BootId, Lineage, VERSIONS};

    fn identity(node: &str, cluster: &str) -> Identity {
        let name = |text| Name::new(text).unwrap();
        Identity {
            cluster: name(cluster),
            node: name(node),
            boot: BootId(1),
            versions: VERSIONS,
            lineage: Lineage::default(),
            level: Default::default(),
        }
    }

    #[tokio::test]
    async fn who_stands_on_its_doorstep_is_found_by_its_name_and_cluster_alone() {
        let pipes = Pipes::default();
        let mut listener = pipes.listen("n4");
        let knocks = async {
            let mut said = Vec::new();
            for (us, peer) in [("demo", "n4"), ("demo", "n5"), ("prod", "n4")] {
                let mut dial = pipes.dial("n4").unwrap();
                said.push(knock(&identity("n1", us), &Name::new(peer).unwrap(), &mut dial).await);
            }
            let mut nowhere = pipes.dial("n9").unwrap();
            said.push(
                knock(&identity("n1", "demo"), &Name::new("n9").unwrap(), &mut nowhere).await,
            );
            said.into_iter().map(|said| said.err().unwrap_or_default()).collect::<Vec<_>>()
        };
        let said = tokio::select! {
            said = knocks => said,
            () = Doorstep::new(&mut listener, identity("n4", "demo")).greet() => unreachable!(),
        };
        let expected = [
            "",
            "refused the peer: it is node n4, where node n5 was called",
            "the peer refused: it belongs to the cluster prod, this is the cluster demo",
            "connection refused",
        ];
        assert_eq!(said, expected);
    }
}
