//! Algorithms, shards and governor.

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{Quota as GovernorQuota, RateLimiter};
use tidegate::actor::{self, NothingFar, PlacesCell, PolicyCell, ShardArgs};
use tidegate::check::{Check, TenantId};
use tidegate::clock::{ManualClock, Now, SECOND};
use tidegate::limit::{LeakyBucket, Outcome, Rate, Rule, State, TokenBucket, Window};
use tidegate::placement::{Epoch, Places, Secret};
use tidegate::policy::{Document, Policy};
use tidegate::random::Seed;
use tidegate::shard::{Alone, Caps, Question};

use super::{Case, timed};

/// More units than any run asks for, so that nothing is denied.
const PLENTY: u64 = 1_000_000_000_000;
/// Checks that a shard finds in its mailbox at once: a loaded one finds some tens.
const BATCH: usize = 64;
/// Questions on their way at once in the round trip, as many as connections in the HTTP benchmark.
const IN_FLIGHT: usize = 64;
/// Operations of a turn on a single key.
const HOT_OPERATIONS: usize = 100_000;
/// An order of keys that no prefetcher follows: a stride with no divisor in common with their
/// number.
const STRIDE: usize = 7_919;

const TWO_LIMITS: &str = r#"
    default_tier = "two"
    [tiers.two]
    limits = [
        { name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1000000/s", burst = 1000000 },
        { name = "minute", per = ["tenant"], algorithm = "sliding_window", limit = 100000000, window = "1m" },
    ]
"#;
const ONE_LIMIT: &str = r#"
    default_tier = "one"
    [tiers.one]
    limits = [{ name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1000000/s", burst = 1000000 }]
"#;

type Failure = Box<dyn Error + Send + Sync>;

pub fn all(tenants: usize) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for (name, rule) in rules().ok_or("a rate is out of bounds")? {
        cases.push(algorithm(&format!("algorithm/{name}/hot"), rule.clone(), 1));
        cases.push(algorithm(&format!("algorithm/{name}/uniform"), rule, tenants));
    }
    for keys in [1, tenants] {
        cases.push(governor(keys)?);
        cases.push(in_shard("one limit", ONE_LIMIT, keys)?);
        cases.push(in_shard("two limits", TWO_LIMITS, keys)?);
    }
    cases.push(round_trip(tenants)?);
    Ok(cases)
}

fn kind(keys: usize) -> &'static str {
    if keys == 1 { "hot" } else { "uniform" }
}

fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

/// The numbers from 0 to `count`, far from each other.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |i| i * STRIDE % count)
}

fn rules() -> Option<Vec<(&'static str, Rule)>> {
    let rate = Rate::new(1_000_000, SECOND)?;
    let window = Window { limit: PLENTY, length: 60 * SECOND };
    Some(vec![
        ("token_bucket", Rule::TokenBucket(TokenBucket { rate, burst: PLENTY, initial: PLENTY })),
        ("leaky_bucket", Rule::LeakyBucket(LeakyBucket { rate, burst: PLENTY })),
        ("fixed_window", Rule::FixedWindow(window)),
        ("sliding_window", Rule::SlidingWindow(window)),
        // A log is as long as what its window admits; here a hundred entries, then denials until
        // they leave.
        ("sliding_log", Rule::SlidingLog(Window { limit: 100, length: SECOND / 100 })),
    ])
}

/// Advance, judge, take, and read what is left: all that a decision asks of one bucket.
fn algorithm(name: &str, rule: Rule, keys: usize) -> Case {
    let mut now = Now { boot: SECOND, wall: 1_800_000_000 * SECOND };
    let mut states: Vec<State> = (0..keys).map(|_| State::fresh(&rule, now)).collect();
    let operations = keys.max(HOT_OPERATIONS);
    Case::new(name, operations, move || {
        timed(|| {
            let mut left = 0u64;
            for i in 0..operations {
                now = Now { boot: now.boot + 100, wall: now.wall + 100 };
                let at = i * STRIDE % keys;
                let state = &mut states[at];
                state.advance(&rule, 0, now);
                if state.judge(&rule, 1, 0, now) == Outcome::Pass {
                    state.take(&rule, 1, now);
                }
                left ^= state.remaining(&rule, now) ^ state.reset_after(&rule, 0, now);
            }
            left
        })
    })
}

fn governor(keys: usize) -> Result<Case, Failure> {
    let burst = NonZeroU32::new(1_000_000).ok_or("zero")?;
    let limiter = RateLimiter::keyed(GovernorQuota::per_second(burst));
    let names: Vec<String> = (0..keys).map(tenant).collect();
    let operations = keys.max(HOT_OPERATIONS);
    Ok(Case::new(format!("governor keyed, one limit/{}", kind(keys)), operations, move || {
        timed(|| {
            (0..operations).filter(|i| limiter.check_key(&names[i * STRIDE % keys]).is_ok()).count()
        })
    }))
}

fn policy(text: &str) -> Result<Arc<Policy>, Failure> {
    let document = Document::from_toml(text.as_bytes()).map_err(|faults| format!("{faults:?}"))?;
    Ok(Arc::new(Policy::new(1, document, None)))
}

fn caps(tenants: usize) -> Caps {
    Caps {
        named_tenants: tenants,
        unknown_tenants: tenants + 1,
        keys_per_tenant: 1_000,
        keys: 10 * tenants + 10,
        shared_keys: 1_000,
        request_ids: 1_000,
    }
}

fn questions(keys: usize, count: usize, secret: &Secret) -> Result<Vec<Question>, Failure> {
    let numbers: Box<dyn Iterator<Item = usize>> =
        if keys == 1 { Box::new(std::iter::repeat_n(0, count)) } else { Box::new(scattered(keys)) };
    let question = |number| {
        let check = Check::of(TenantId::new(&tenant(number)).ok_or("not a tenant's id")?);
        Ok(Question { hash: secret.account(&check.account()), epoch: Epoch::FIRST, check })
    };
    numbers.map(question).collect()
}

/// Decisions inside a shard: account, plan, limits, answer; no channel, no task.
fn in_shard(name: &str, text: &str, keys: usize) -> Result<Case, Failure> {
    let (secret, now) = (Secret::new(1, 2), Now { boot: SECOND, wall: 1_800_000_000 * SECOND });
    let mut shard =
        Alone::new(caps(keys), secret, policy(text)?, Seed::from_number(1).fork("bench", 0));
    let operations = keys.max(HOT_OPERATIONS);
    let all = questions(keys, operations, &secret)?;
    let mut at = now;
    Ok(Case::new(format!("in a shard, {name}/{}", kind(keys)), operations, move || {
        at = Now { boot: at.boot + SECOND, wall: at.wall + SECOND };
        in_batches(&all, |batch| {
            shard.decide(batch, at).iter().filter(|decided| allowed(decided)).count()
        })
    }))
}

/// Nanoseconds that `work` takes with all questions, in batches. A few are copied at a time, as
/// many as a cache holds, and no copying is counted: a shard is given its questions.
pub fn in_batches(all: &[Question], mut work: impl FnMut(Vec<Question>) -> usize) -> u64 {
    let some = |few: &[Question]| {
        let batches: Vec<Vec<Question>> = few.chunks(BATCH).map(<[Question]>::to_vec).collect();
        timed(|| batches.into_iter().map(&mut work).sum::<usize>())
    };
    all.chunks(BATCH * 8).map(some).sum()
}

fn allowed(decided: &Result<tidegate::check::Decision, tidegate::shard::Refusal>) -> bool {
    decided.as_ref().is_ok_and(|decision| decision.allowed)
}

/// From a task through the mailbox to the actor and back, on one thread, some in flight at once.
fn round_trip(keys: usize) -> Result<Case, Failure> {
    let secret = Secret::new(1, 2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut handles, mut mailboxes) = actor::mailboxes(1);
    let (handle, mailbox) = handles.pop().zip(mailboxes.pop()).ok_or("no shard")?;
    let args = ShardArgs {
        index: 0,
        caps: caps(keys),
        secret,
        places: Arc::new(PlacesCell::new(Places::all_here())),
        far: Arc::new(NothingFar),
        policy: Arc::new(PolicyCell::new(policy(TWO_LIMITS)?)),
        clock: Arc::new(ManualClock::at(Now { boot: SECOND, wall: 1_800_000_000 * SECOND })),
        generator: Seed::from_number(1).fork("bench", 0),
        saved: None,
    };
    runtime.spawn(actor::run(args, mailbox));
    let all = questions(keys, keys, &secret)?;
    Ok(Case::new("round trip to a shard, two limits/uniform", keys, move || {
        let mut asked = all.clone().into_iter();
        timed(|| {
            runtime.block_on(async {
                loop {
                    let flight: Vec<_> =
                        asked.by_ref().take(IN_FLIGHT).map(|q| handle.check(q)).collect();
                    if flight.is_empty() {
                        break;
                    }
                    for answer in flight {
                        assert!(allowed(&answer.await), "a check was not allowed");
                    }
                }
            });
        })
    }))
}
