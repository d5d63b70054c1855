//! What other nodes ask of this one, handed to whoever answers it: the owner of checks, the log, the member.

use std::sync::Arc;

use crate::cluster::handoff::{InstallAsk, Target};
use crate::cluster::links::Links;
use crate::cluster::{InForceAsk, Member};
use crate::peer::{Ask, Call, Failure, Handler, Hello, Kind, Opaque};
use crate::routing::Owner;

/// See the module.
pub struct Peers {
    owner: Owner,
    member: Arc<Member>,
    links: Arc<Links>,
    target: Target,
}

impl Peers {
    /// Answers for these.
    pub fn new(owner: Owner, member: Arc<Member>, links: Arc<Links>, target: Target) -> Self {
        Self { owner, member, links, target }
    }
}

impl Handler for Peers {
    fn admits(&self, hello: &Hello) -> bool {
        self.links.number_of(&hello.who.node).is_some()
    }

    async fn handle(&self, call: Call) -> Result<Opaque, Failure> {
        match call.request.kind {
            kind if Owner::knows(kind) => self.owner.answer(call).await,
            Kind::RAFT => self.links.serve_raft(self.member.raft(), call).await,
            InstallAsk::KIND => {
                let kept = self.target.install(call.request.read_question()?).await?;
                Opaque::answer::<InstallAsk>(&kept).map_err(|error| Failure::Failed(error.to_string()))
            }
            InForceAsk::KIND => {
                self.member.reach(call.request.read_question::<InForceAsk>()?.at).await;
                Opaque::answer::<InForceAsk>(&()).map_err(|error| Failure::Failed(error.to_string()))
            }
            _ => Err(Failure::UnknownKind),
        }
    }
}
