//! Counts: whatever the interleaving, a limit admits its number.

use std::collections::BTreeMap;

use super::*;
use crate::check::ApiKeyDigest;
use crate::clock::MS;

/// What admitted checks have taken of each bucket, and what each can hold.
#[derive(Default)]
struct Books {
    taken: BTreeMap<String, u64>,
    denied: Vec<(Vec<Check>, Vec<Decision>)>,
}

/// A bucket's name, as the test keeps its books: by the limit, and by the values of what it is per.
fn bucket(check: &Check, limit: &Limit) -> String {
    let values = limit.per.iter().map(|dimension| match dimension {
        Dimension::Tenant => check.tenant.to_string(),
        Dimension::Client => format!("{:?}", check.client),
        Dimension::Ip => format!("{:?}", check.ip),
        Dimension::ApiKey => format!("{:?}", check.api_key),
        Dimension::Attribute(name) => format!("{:?}", check.attributes.get(name)),
        other => unreachable!("no limit here is per {other}"),
    });
    format!("{} of {:?}", limit.name, values.collect::<Vec<_>>())
}

/// Units that a check takes of a limit: a permit is one slot, whatever the check costs.
fn units(decision: &Decision, limit: &Limit) -> u64 {
    match limit.rule {
        Rule::Concurrency { .. } => 1,
        _ => decision.cost,
    }
}

impl Books {
    fn taken(&self, check: &Check, limit: &Limit) -> u64 {
        self.taken.get(&bucket(check, limit)).copied().unwrap_or(0)
    }

    /// Enters what one op was answered.
    fn enter(&mut self, checks: Vec<Check>, decisions: Vec<Decision>) {
        assert_eq!(checks.len(), decisions.len());
        let allowed = decisions[0].allowed;
        for (check, decision) in checks.iter().zip(&decisions) {
            assert_eq!(decision.allowed, allowed, "all or nothing");
            assert_eq!(decision.tenant, check.tenant, "decisions come in order");
            assert_eq!(decision.denied_by.is_some(), !allowed);
            if !allowed || decision.replayed {
                continue;
            }
            // What keys beyond a cap have in common is nobody's own count.
            for verdict in decision.verdicts.iter().filter(|v| !v.overflow) {
                let taken = self.taken.entry(bucket(check, &verdict.limit)).or_default();
                *taken += units(decision, &verdict.limit);
                assert!(*taken <= verdict.limit.rule.capacity(), "{}", bucket(check, &verdict.limit));
            }
        }
        if !allowed {
            self.denied.push((checks, decisions));
        }
    }

    /// Every limit that said no was so used up, by what was admitted, that there was no room for what was asked.
    fn assert_denials_were_needed(&self) {
        for (checks, decisions) in &self.denied {
            let asked = |name: &str| -> u64 {
                let of = |(c, d): (&Check, &Decision)| -> u64 {
                    let mine = d.verdicts.iter().filter(|v| bucket(c, &v.limit) == name);
                    mine.map(|v| units(d, &v.limit)).sum()
                };
                checks.iter().zip(decisions).map(of).sum()
            };
            let mut deniers = Vec::new();
            for (check, decision) in checks.iter().zip(decisions) {
                for verdict in decision.verdicts.iter().filter(|v| says_no(v)) {
                    let bucket = bucket(check, &verdict.limit);
                    let (taken, asked) = (self.taken(check, &verdict.limit), asked(&bucket));
                    assert!(
                        verdict.overflow || taken + asked > verdict.limit.rule.capacity(),
                        "{bucket} denied {asked} with {taken} taken"
                    );
                    deniers.push((verdict.limit.name.as_str(), verdict.outcome.retry_after()));
                }
            }
            for decision in decisions {
                assert!(
                    deniers.contains(&(denier(decision), decision.retry_after)),
                    "{decision:?} was denied by a limit that didn't say no"
                );
            }
        }
    }
}

/// How a run is to go.
struct Run {
    tenants: u64,
    /// In how many of ten steps an op starts, while some are left; in the others a message is delivered.
    eagerness: u64,
    /// Messages get lost, and time passes beyond deadlines and holds.
    lossy: bool,
}

enum Pending {
    All(oneshot::Receiver<Answer>),
    Each(oneshot::Receiver<Each>),
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

fn below(chance: &mut Generator, n: u64) -> u64 {
    chance.next_u64() % n
}

/// Some of the shared limits and three own ones, each with a number that is soon used up.
fn policy(chance: &mut Generator) -> String {
    let which = below(chance, 16);
    let shared: String = (0..4)
        .filter(|i| which >> i & 1 == 1)
        .map(|i| format!("{{ {}, limit = {} }},\n", SHARED[i], 1 + below(chance, 25)))
        .collect();
    let (slots, burst, client) = (1 + below(chance, 12), 3 + below(chance, 30), 1 + below(chance, 10));
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
        let mut checks: Vec<_> = (0..count).map(|_| self.check(&mut world.chance, tenant)).collect();
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
    fn play(&self, world: &mut World, ops: usize) -> (Books, Vec<Check>) {
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
            if world.below(20) == 0 {
                // Nothing expires within a second, so that until then all is exact.
                let nanos = [1, 20, 300, 1_500][world.below(4) as usize] * MS;
                if self.lossy || world.now.boot + nanos < began + SECOND {
                    world.pass(nanos);
                }
                self.collect(world, &mut open, &mut books);
                let late = open.iter().find(|op| op.deadline <= world.now.boot);
                assert!(late.is_none(), "unanswered at its deadline: {:?}", late.map(|op| &op.checks));
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
        assert!(!world.is_busy(), "something is held or parked though all is quiet");
        (books, asked)
    }

    fn collect(&self, world: &World, open: &mut Vec<Open>, books: &mut Books) {
        for mut op in std::mem::take(open) {
            let answers = match &mut op.pending {
                Pending::All(answer) => answered(answer).map(|answer| vec![(op.checks.clone(), answer)]),
                Pending::Each(answer) => answered(answer).map(|each| {
                    assert_eq!(each.len(), op.checks.len());
                    let answers = each.into_iter().map(|answer| answer.map(|decision| vec![decision]));
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

impl World {
    /// Of each bucket of `check`: its name, what is left of it here, and what is left by the books.
    fn left_of_all(&mut self, check: &Check, books: &Books) -> Vec<(String, u64, u64)> {
        let check = with_permit(1_000, check);
        let peeked = self.peek(&check);
        let left = peeked.verdicts.iter().map(|verdict| {
            let limit = &verdict.limit;
            let booked = limit.rule.capacity() - books.taken(&check, limit);
            (bucket(&check, limit), verdict.remaining, booked)
        });
        left.collect()
    }
}

#[test]
fn every_limit_admits_exactly_its_number_whatever_the_interleaving() {
    for seed in seeds(40) {
        let mut chance = Seed::from_number(seed).fork("run", 0);
        let shards = 1 + below(&mut chance, 3) as usize;
        let run =
            Run { tenants: 1 + below(&mut chance, 6), eagerness: 1 + below(&mut chance, 9), lossy: false };
        let mut world = World::new(shards, &policy(&mut chance), ROOM, seed);
        let (books, asked) = run.play(&mut world, 120);
        books.assert_denials_were_needed();
        for check in &asked {
            for (bucket, left, booked) in world.left_of_all(check, &books) {
                assert_eq!(left, booked, "left of {bucket}");
            }
        }
    }
}

#[test]
fn whatever_is_lost_or_late_no_limit_admits_more_than_its_number_and_everybody_is_answered_in_time() {
    for seed in seeds(40) {
        let mut chance = Seed::from_number(seed).fork("lossy", 0);
        let shards = 2 + below(&mut chance, 2) as usize;
        let run =
            Run { tenants: 1 + below(&mut chance, 6), eagerness: 1 + below(&mut chance, 9), lossy: true };
        let mut world = World::new(shards, &policy(&mut chance), ROOM, seed);
        let (books, asked) = run.play(&mut world, 120);
        for check in &asked {
            for (bucket, left, booked) in world.left_of_all(check, &books) {
                assert!(left <= booked, "{bucket} has {left} left, and by what was admitted {booked}");
            }
        }
    }
}

#[test]
fn beyond_the_caps_too_everybody_is_answered_at_once_and_counts_of_the_others_stay_exact() {
    // The last three once ended with checks that waited for each other in a circle.
    for seed in seeds(40).chain([3_397, 3_904, 18_869]) {
        let mut chance = Seed::from_number(seed).fork("caps", 0);
        let shards = 1 + below(&mut chance, 3) as usize;
        let run =
            Run { tenants: 1 + below(&mut chance, 6), eagerness: 1 + below(&mut chance, 9), lossy: false };
        let caps = Caps {
            unknown_tenants: 1 + below(&mut chance, 3) as usize,
            keys_per_tenant: 1 + below(&mut chance, 3) as usize,
            shared_keys: 1 + below(&mut chance, 3) as usize,
            request_ids: 5,
            ..ROOM
        };
        let mut world = World::new(shards, &policy(&mut chance), caps, seed);
        let (books, _) = run.play(&mut world, 120);
        books.assert_denials_were_needed();
        for shard in &world.shards {
            let (tenants, ids) = (shard.tenants(), shard.accounts.request_ids);
            assert!(tenants <= caps.unknown_tenants && ids <= caps.request_ids + tenants + 1);
            // Two own limits and four shared ones may each have a bucket that stands in.
            assert!(shard.accounts.buckets <= tenants * (caps.keys_per_tenant + 2) + 2);
            assert!(shard.shared_keys() <= caps.shared_keys + 4);
        }
    }
}

/// One tenant in each of three shards, a global limit of 100 and 50 for each tenant.
const GLOBAL: &str = r#"
    default_tier = "t"
    limits = [{ name = "everybody", per = [], algorithm = "fixed_window", limit = 100, window = "1d" }]
    [tiers.t]
    limits = [{ name = "rate", algorithm = "fixed_window", limit = 50, window = "1d" }]
"#;

#[test]
fn of_three_hundred_checks_in_flight_at_once_a_hundred_pass_a_global_limit_of_a_hundred() {
    for seed in seeds(20) {
        let mut world = World::new(3, GLOBAL, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        let mut answers: Vec<_> = (0..300).map(|i| world.start(&tenants[i % 3])).collect();
        world.deliver_all();
        let decisions: Vec<_> = answers.iter_mut().map(|a| only(now(a)).unwrap()).collect();
        assert_eq!(decisions.iter().filter(|d| d.allowed).count(), 100);
        assert!(!world.is_busy());
    }
}

#[test]
fn the_last_unit_of_a_global_limit_goes_to_one_of_three_that_ask_at_once_and_the_others_wait_for_it() {
    let policy = GLOBAL.replace("limit = 100", "limit = 1");
    for seed in seeds(20) {
        let mut world = World::new(3, &policy, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        let mut answers: Vec<_> = tenants.iter().map(|t| world.start(t)).collect();
        world.deliver_all();
        let decisions: Vec<_> = answers.iter_mut().map(|a| only(now(a)).unwrap()).collect();
        assert_eq!(decisions.iter().filter(|d| d.allowed).count(), 1);
    }
}

#[test]
fn a_check_that_a_tenants_own_limit_denies_takes_nothing_of_the_global_one() {
    let policy = GLOBAL.replace("limit = 50", "limit = 2");
    for seed in seeds(10) {
        let mut world = World::new(3, &policy, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        for tenant in &tenants {
            assert_eq!(world.admits(tenant, 10), 2);
        }
        let denied = world.decide(&tenants[0]);
        assert_eq!((denier(&denied), verdict(&denied, "everybody").remaining), ("rate", 94));
    }
}

#[test]
fn a_check_that_the_global_limit_denies_takes_nothing_of_the_tenants_own() {
    let policy = GLOBAL.replace("limit = 100", "limit = 2");
    for seed in seeds(10) {
        let mut world = World::new(3, &policy, ROOM, seed);
        let tenants: Vec<_> = (0..3).map(|shard| world.tenant_of(shard)).collect();
        assert_eq!(world.admits(&tenants[0], 10), 2);
        for (tenant, left) in tenants.iter().zip([48, 50, 50]) {
            assert_eq!(world.admits(tenant, 10), 0);
            let denied = world.decide(tenant);
            assert_eq!((denier(&denied), verdict(&denied, "rate").remaining), ("everybody", left));
        }
    }
}

#[test]
fn a_check_that_one_shared_limit_denies_takes_nothing_of_another() {
    const POLICY: &str = r#"
        default_tier = "t"
        limits = [
            { name = "address", per = ["ip"], algorithm = "fixed_window", limit = 3, window = "1d" },
            { name = "everybody", per = [], algorithm = "fixed_window", limit = 100, window = "1d" },
        ]
        [tiers.t]
    "#;
    for seed in seeds(10) {
        let mut world = World::new(2, POLICY, ROOM, seed);
        let check = from_ip("192.0.2.1", &of("acme"));
        assert_eq!(world.admits(&check, 10), 3);
        let elsewhere = world.decide(&from_ip("192.0.2.2", &of("acme")));
        assert_eq!(verdict(&elsewhere, "everybody").remaining, 96);
    }
}

/// A check whose own limit denies it asks the shared ones too, and finds one whose rest is held.
#[test]
fn a_denial_names_the_limit_that_is_used_up_and_not_one_that_somebody_holds() {
    let mut world = World::new(2, GLOBAL, ROOM, 0);
    let [near, far] = world.near_and_far();
    assert!(world.decide(&costing(50, &near)).allowed);
    // Fifty of the hundred are left, and the far tenant holds them for as long as the messages are under way.
    let mut holder = world.start(&costing(50, &far));
    world.deliver();
    let denied = only(now(&mut world.start(&near))).unwrap();
    assert_eq!(verdict(&denied, "everybody").outcome, Outcome::Held);
    assert_eq!((denier(&denied), denied.retry_after), ("rate", Some(23 * HOUR)));
    world.deliver_all();
    assert!(only(now(&mut holder)).unwrap().allowed);
}
