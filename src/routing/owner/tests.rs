//! Forwards that come again, also after their partition has moved.

use super::*;
use crate::actor::{NothingFar, ShardArgs, mailboxes};
use crate::check::TenantId;
use crate::clock::{ManualClock, Now, SECOND};
use crate::cluster::links::LinksArgs;
use crate::net::Plain;
use crate::peer::{BootId, Identity, Lineage, VERSIONS};
use crate::placement::{NodeId, Places, Seat, Secret, Table, TableVersion};
use crate::policy::{Document, Policy};
use crate::random::Seed;
use crate::shard::Caps;

const POLICY: &str = r#"
    default_tier = "t"
    [tiers.t]
    limits = [{ name = "day", algorithm = "fixed_window", limit = 10, window = "1d" }]
"#;
const TTL: Duration = Duration::from_secs(1);

fn seat(node: u64) -> Seat {
    Seat { node: NodeId(node), boot: BootId(node) }
}

fn name(node: u64) -> Name {
    Name::new(&format!("n{node}")).unwrap()
}

/// The owner's side of n1, which owns everything, and the table that it goes by.
struct World {
    owner: Owner,
    in_force: Arc<InForce>,
    table: Table,
}

impl World {
    fn new() -> Self {
        let policy = Policy::new(1, Document::from_toml(POLICY.as_bytes()).unwrap(), None);
        let (in_force, secret) = (Arc::new(InForce::new(seat(1), policy)), Secret::new(1, 2));
        in_force.begin(secret);
        let table = Table::new(TableVersion(1), vec![(seat(1), None); 4096]).unwrap();
        in_force.places().store(Places::new(seat(1), Arc::new(table.clone())));
        let clock: SharedClock = Arc::new(ManualClock::at(Now { boot: SECOND, wall: SECOND }));
        let (shards, mailbox) = mailboxes(1);
        let most = 1_000;
        let args = ShardArgs {
            index: 0,
            caps: Caps {
                named_tenants: most,
                unknown_tenants: most,
                keys_per_tenant: most,
                keys: most,
                shared_keys: most,
                request_ids: most,
            },
            secret,
            places: in_force.places().clone(),
            far: Arc::new(NothingFar),
            policy: in_force.policy().clone(),
            clock: clock.clone(),
            generator: Seed::from_number(1).fork("permits", 0),
            saved: None,
        };
        let mailbox = mailbox.into_iter().next().unwrap();
        tokio::spawn(crate::actor::run(args, mailbox));
        let us = Identity {
            cluster: Name::new("demo").unwrap(),
            node: name(1),
            boot: BootId(1),
            versions: VERSIONS,
            lineage: Lineage::default(),
            level: Default::default(),
        };
        let links = Links::new(LinksArgs {
            us,
            guard: Default::default(),
            network: Plain::default(),
            clock: clock.clone(),
            seed: Seed::from_number(1),
            control: tokio::runtime::Handle::current(),
            workers: Vec::new(),
        });
        let owner = Owner::new(shards, in_force.clone(), Arc::new(links), clock, Arc::default());
        Self { owner, in_force, table }
    }

    /// What it says of a check of `acme` that n2 sends under this number, knowing this epoch.
    async fn says(&self, sequence: u64, epoch: u64) -> Result<Decision, Declined> {
        let check = Check::of(TenantId::new("acme").unwrap());
        let partition = self.in_force.secret().unwrap().account(&check.account()).partition();
        let source = Source { router: name(2), boot: BootId(2), sequence };
        let purpose = Purpose::Take;
        let ask = CheckAsk { source, partition, epoch, policy_version: 1, purpose, check };
        self.owner.check(ask, TTL).await.unwrap().read_answer::<CheckAsk>().unwrap().said
    }

    /// The log moves everything to n2.
    fn all_moves(&mut self) {
        let moves: Vec<_> =
            Partition::all().map(|p| (p, self.table.row(p).epoch, seat(2))).collect();
        let begun = self.table.begin_moves(&moves, TableVersion(2)).unwrap();
        let ends: Vec<_> = Partition::all().map(|p| (p, TableVersion(2))).collect();
        self.table = begun.commit_moves(&ends, TableVersion(3)).unwrap();
        self.in_force.places().store(Places::new(seat(1), Arc::new(self.table.clone())));
        self.in_force.announce();
    }
}

fn left(said: &Result<Decision, Declined>) -> u64 {
    said.as_ref().unwrap().verdicts[0].remaining
}

#[tokio::test]
async fn what_comes_again_is_answered_as_before_also_by_a_node_that_owns_it_no_more() {
    let mut world = World::new();
    assert_eq!(left(&world.says(1, 1).await), 9);
    assert_eq!(left(&world.says(2, 1).await), 8);
    assert_eq!(left(&world.says(1, 1).await), 9);
    world.all_moves();
    // The second was charged here, and its router, whose connection has broken, doesn't know.
    assert_eq!(left(&world.says(2, 1).await), 8);
    // What was never charged here goes to whoever owns it now.
    for epoch in [1, 2] {
        assert!(matches!(world.says(3, epoch).await, Err(Declined::NotOwner { epoch: 2, .. })));
    }
    assert_eq!(world.owner.counts.repeated.read(), 2);
}
