//! What other nodes ask of this one, handed to whoever answers it: the owner of checks, the log,
//! the member.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::backup::{BackUps, PieceAsk};
use crate::cluster::handoff::{InstallAsk, Target};
use crate::cluster::links::Links;
use crate::cluster::{InForceAsk, KnownAsk, Member, OrderAsk, RelayAsk, WhereaboutsAsk};
use crate::peer::{Ask, Call, Class, Failure, Handler, Hello, Kind, Opaque};
use crate::routing::Owner;

/// See the module.
pub struct Peers {
    owner: Owner,
    member: Arc<Member>,
    links: Arc<Links>,
    target: Target,
    backups: Arc<BackUps>,
    control: Handle,
}

impl Peers {
    /// Answers for these; on the control runtime, which calls this, whatever takes its time.
    pub fn new(
        owner: Owner,
        member: Arc<Member>,
        links: Arc<Links>,
        target: Target,
        backups: Arc<BackUps>,
    ) -> Self {
        Self { owner, member, links, target, backups, control: Handle::current() }
    }

    /// An order may take seconds and a look at the whole table: not on a worker.
    async fn order(&self, call: Call) -> Result<Opaque, Failure> {
        let OrderAsk { order, by } = call.request.read_question::<OrderAsk>()?;
        let member = self.member.clone();
        let taking = self.control.spawn(async move { member.take_order(order, by).await });
        let answer = AbortOnDropHandle::new(taking).await;
        let answer = answer.map_err(|error| Failure::Failed(error.to_string()))?;
        Opaque::answer::<OrderAsk>(&answer).map_err(|error| Failure::Failed(error.to_string()))
    }

    /// An order of a node that can't reach the leader.
    async fn relay(&self, call: Call) -> Result<Opaque, Failure> {
        let RelayAsk { order, by } = call.request.read_question::<RelayAsk>()?;
        let member = self.member.clone();
        let passing = self.control.spawn(async move { member.pass_order(order, by).await });
        let answer = AbortOnDropHandle::new(passing).await;
        let answer = answer.map_err(|error| Failure::Failed(error.to_string()))?;
        Opaque::answer::<RelayAsk>(&answer).map_err(|error| Failure::Failed(error.to_string()))
    }
}

impl Handler for Peers {
    fn admits(&self, hello: &Hello) -> bool {
        let is_known = self.links.number_of(&hello.who.node).is_some();
        is_known || (hello.class != Class::Checks && self.member.listens_to_strangers())
    }

    fn connected(&self, peer: &Hello) {
        self.links.peer_connected(peer);
    }

    fn disconnected(&self, peer: &Hello) {
        self.links.peer_disconnected(peer);
    }

    async fn handle(&self, call: Call) -> Result<Opaque, Failure> {
        match call.request.kind {
            kind if Owner::knows(kind) => self.owner.answer(call).await,
            Kind::RAFT | Kind::RAFT_LATER => self.links.serve_raft(self.member.raft(), call).await,
            InstallAsk::KIND => {
                let kept = self.target.install(call.request.read_question()?).await?;
                Opaque::answer::<InstallAsk>(&kept)
                    .map_err(|error| Failure::Failed(error.to_string()))
            }
            PieceAsk::KIND => {
                let piece = self.backups.piece(call.request.read_question::<PieceAsk>()?).await?;
                Opaque::answer::<PieceAsk>(&piece)
                    .map_err(|error| Failure::Failed(error.to_string()))
            }
            InForceAsk::KIND => {
                self.member.reach(call.request.read_question::<InForceAsk>()?.at).await;
                Opaque::answer::<InForceAsk>(&())
                    .map_err(|error| Failure::Failed(error.to_string()))
            }
            KnownAsk::KIND => {
                let known = self.member.known(&call.request.read_question::<KnownAsk>()?).await;
                Opaque::answer::<KnownAsk>(&known)
                    .map_err(|error| Failure::Failed(error.to_string()))
            }
            WhereaboutsAsk::KIND => {
                let ask = call.request.read_question::<WhereaboutsAsk>()?;
                let known = self.member.hear_whereabouts(&call.from.who.node, &ask);
                Opaque::answer::<WhereaboutsAsk>(&known)
                    .map_err(|error| Failure::Failed(error.to_string()))
            }
            OrderAsk::KIND => self.order(call).await,
            RelayAsk::KIND => self.relay(call).await,
            _ => Err(Failure::UnknownKind),
        }
    }
}
