//! A run: checks, batches and repetitions of several tenants at random instants, under limits that
//! are soon used up.

use super::books::Books;
use super::*;
use crate::check::ApiKeyDigest;
use crate::time::MS;

/// How a run is to go.
pub struct Run {
    pub tenants: u64,
    /// In how many of ten steps an op starts, while some are left; in the others a message is
    /// delivered.
    pub eagerness: u64,
    /// Messages get lost, and time passes beyond deadlines and holds.
    pub lossy: bool,
    /// Every shard gets new policies now and then, each in its own time.
    pub changing: bool,
}

enum Pending {
    All(Waits<Answer>),
    Each(Waits<Each>),
}

struct Open {
    checks: Vec<Check>,
    pending: Pending,
    deadline: u64,
}

const SHARED: [&str; 4] = [
    r#"name = "everybody", per = [], algorithm = "fixed_window", window = "1d""#,
    r#"name = "address", per = ["ip"], algorithm = "sliding_log", window = "1d""#,
    r#"name = "region", per = ["attribute:region"], algorithm = "fixed_window", window = "1d""#,
    r#"name = "key", per = ["api_key"], algorithm = "sliding_window", window = "1d""#,
];

pub fn below(chance: &mut Generator, n: u64) -> u64 {
    chance.next_u64() % n
}

/// Some of the shared limits and three own ones, each with a number that is soon used up.
pub fn policy(chance: &mut Generator) -> String {
    let which = below(chance, 16);
    let shared: String = (0..4)
        .filter(|i| which >> i & 1 == 1)
        .map(|i| format!("{{ {}, limit = {} }},\n", SHARED[i], 1 + below(chance, 25)))
        .collect();
    let (slots, burst, client) =
        (1 + below(chance, 12), 3 + below(chance, 30), 1 + below(chance, 10));
    format!(
        r#"
        default_tier = "t"
        limits = [ {shared} ]
        [tiers.t]
        max_concurrent = {slots}
        limits = [
            {{ name = "rate", algorithm = "token_bucket", rate = "1/52w", burst = {burst} }},
            {{ name = "client", per = ["tenant", "client"], algorithm = "sliding_log", limit = {client}, window = "1d" }},
        ]"#
    )
}

impl Run {
    /// A calm run of some tenants with some congestion.
    pub fn of(chance: &mut Generator) -> Self {
        Self {
            tenants: 1 + below(chance, 6),
            eagerness: 1 + below(chance, 9),
            lossy: false,
            changing: false,
        }
    }

    fn check(&self, chance: &mut Generator, tenant: u64) -> Check {
        let mut check = of(&format!("tenant-{tenant}"));
        check.client = Label::new(["ann", "bob"][below(chance, 2) as usize]);
        check.ip = Some([192, 0, 2, below(chance, 3) as u8].into());
        if below(chance, 4) > 0 {
            check.api_key = Some(ApiKeyDigest::of(["k1", "k2"][below(chance, 2) as usize]));
        }
        let region = ["eu", "us"][below(chance, 2) as usize];
        check.attributes.extend(Some((name("region"), Label::new(region).unwrap())));
        if below(chance, 3) == 0 {
            check.cost = Cost::new(1 + below(chance, 3) as u32);
        }
        check.permit_ttl_ms = (below(chance, 3) == 0).then_some(3_600_000);
        if self.lossy {
            check.deadline_ms = 1 + below(chance, 3_000);
        }
        check
    }

    fn start(&self, world: &mut World) -> Open {
        let tenant = world.below(self.tenants);
        let kind = world.below(10);
        let count = if kind < 7 { 1 } else { 1 + world.below(4) };
        let mut checks: Vec<_> =
            (0..count).map(|_| self.check(&mut world.chance, tenant)).collect();
        if kind < 2 {
            // One of six checks that are repeated again and again.
            let id = world.below(6);
            let mut chance = Seed::from_number(id).fork("repeated", tenant);
            checks = vec![with_id(&id.to_string(), &self.check(&mut chance, tenant))];
        }
        let longest = checks.iter().map(|c| c.deadline_ms).max().unwrap();
        let pending = match kind {
            0..7 => Pending::All(world.start(&checks[0])),
            7 | 8 => Pending::All(world.start_all(&checks)),
            _ => Pending::Each(world.start_each(&checks)),
        };
        let deadline = world.now.boot + longest * MS;
        Open { checks, pending, deadline }
    }

    /// Asks `ops` times in all, at random instants, and says what all limits have given.
    pub fn play(&self, world: &mut World, ops: usize) -> (Books, Vec<Check>) {
        let (mut open, mut books, mut asked) = (Vec::new(), Books::default(), Vec::new());
        let (mut left, began) = (ops, world.now.boot);
        loop {
            if left > 0 && world.below(10) < self.eagerness {
                left -= 1;
                let op = self.start(world);
                asked.extend(op.checks.iter().cloned());
                open.push(op);
            } else if self.lossy && world.below(20) == 0 {
                world.next_message();
            } else if !world.deliver() && left == 0 {
                break;
            }
            if self.changing && world.below(20) == 0 {
                let shard = world.below(world.shards.len() as u64) as usize;
                let next = policy(&mut world.chance);
                world.change_policy(shard, &next);
            }
            if world.below(20) == 0 {
                // Nothing expires within a second, so that until then all is exact.
                let nanos = [1, 20, 300, 1_500][world.below(4) as usize] * MS;
                if self.lossy || world.now.boot + nanos < began + SECOND {
                    world.pass(nanos);
                }
                self.collect(world, &mut open, &mut books);
                let late = open.iter().find(|op| op.deadline <= world.now.boot);
                assert!(
                    late.is_none(),
                    "unanswered at its deadline: {:?}",
                    late.map(|op| &op.checks)
                );
            }
        }
        if self.lossy {
            for _ in 0..10 {
                world.pass(SECOND);
                world.deliver_all();
            }
        }
        self.collect(world, &mut open, &mut books);
        assert!(open.is_empty(), "{} questions are unanswered", open.len());
        assert!(world.callers.is_empty(), "a caller has no answer though all is quiet");
        assert!(!world.is_busy(), "something is held or parked though all is quiet");
        world.assert_counts_agree();
        (books, asked)
    }

    fn collect(&self, world: &World, open: &mut Vec<Open>, books: &mut Books) {
        for mut op in std::mem::take(open) {
            let answers = match &mut op.pending {
                Pending::All(answer) => answered(answer)
                    .map(|answer| vec![(op.checks.clone(), answer.map(Decisions::into_vec))]),
                Pending::Each(answer) => answered(answer).map(|each| {
                    assert_eq!(each.len(), op.checks.len());
                    let answers =
                        each.into_iter().map(|answer| answer.map(|decision| vec![decision]));
                    op.checks.iter().map(|check| vec![check.clone()]).zip(answers).collect()
                }),
            };
            let Some(answers) = answers else {
                open.push(op);
                continue;
            };
            for (checks, answer) in answers {
                match answer {
                    Ok(decisions) => books.enter(checks, decisions),
                    Err(Refusal::Busy) if self.lossy => {}
                    Err(refusal) => panic!("{refusal} at {:?}: {checks:?}", world.now),
                }
            }
        }
    }
}
