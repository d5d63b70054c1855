//! Policies of ten and of a hundred thousand tenants: loading, editing, resolving, deciding.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use tidegate::check::{Check, Name, TenantId};
use tidegate::clock::{Now, SECOND};
use tidegate::placement::Secret;
use tidegate::policy::{Document, Policy};
use tidegate::random::Seed;
use tidegate::shard::{Alone, Caps, Question};

use super::cases::in_batches;
use super::{Case, timed};

type Failure = Box<dyn Error + Send + Sync>;

const NAMED: [usize; 2] = [10, 100_000];
/// Tenants that are asked for, in both: a small set, so that the cache holds their state and only
/// the policy differs.
const ASKED: usize = 10;
const OPERATIONS: usize = 100_000;
const EDITS: usize = 100;

pub fn all() -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for named in NAMED {
        let text = text(named);
        let policy = Arc::new(Policy::new(1, read(&text)?, Name::new("production")));
        cases.push(load(named, text));
        cases.push(edit(named, policy.clone())?);
        cases.push(resolve(named, policy.clone())?);
        cases.push(select(named, &policy)?);
        cases.push(decide(named, policy)?);
    }
    Ok(cases)
}

fn read(text: &str) -> Result<Document, Failure> {
    Document::from_toml(text.as_bytes()).map_err(|faults| format!("{faults:?}").into())
}

/// Every tenant has a tier and a limit of its own.
fn text(named: usize) -> String {
    let mut text = String::from(
        r#"default_tier = "free"
        [tiers.free]
        limits = [
            { name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1000000/s", burst = 1000000 },
            { name = "minute", per = ["tenant"], algorithm = "sliding_window", limit = 100000000, window = "1m" },
        ]
        [tiers.pro]
        limits = [{ name = "minute", per = ["tenant"], algorithm = "sliding_window", limit = 900000000, window = "1m" }]
        "#,
    );
    for number in 0..named {
        // Writing to a string doesn't fail.
        let _ = write!(
            text,
            "[tenants.tenant-{number}]\ntier = \"pro\"\nlimits = [{{ name = \"second\", per = \
             [\"tenant\"], algorithm = \"token_bucket\", rate = \"2000000/s\", burst = 2000000 \
             }}]\n"
        );
    }
    text
}

fn name(what: &str, named: usize) -> String {
    format!("policy of {named} tenants, {what}")
}

/// From the text to what decides.
fn load(named: usize, text: String) -> Case {
    Case::new(name("load", named), 1, move || {
        timed(|| read(&text).map(|document| Policy::new(1, document, Name::new("production"))))
    })
}

/// One tenant's rules replaced, and the result compiled.
fn edit(named: usize, policy: Arc<Policy>) -> Result<Case, Failure> {
    let other = policy.document().tenants.values().next().cloned().ok_or("no tenants")?;
    let id = TenantId::new("tenant-7").ok_or("not a tenant's id")?;
    let mut current = policy;
    Ok(Case::new(name("edit one", named), EDITS, move || {
        timed(|| {
            for _ in 0..EDITS {
                let mut document = current.document().clone();
                document.tenants.insert(id.clone(), other.clone());
                current = Arc::new(current.next(current.version() + 1, document));
            }
        })
    }))
}

fn tenants() -> Result<Vec<TenantId>, Failure> {
    (0..ASKED)
        .map(|n| TenantId::new(&format!("tenant-{n}")).ok_or_else(|| "not a tenant's id".into()))
        .collect()
}

/// A tenant's plan from nothing: once per tenant and version.
fn resolve(named: usize, policy: Arc<Policy>) -> Result<Case, Failure> {
    let (tenants, secret) = (tenants()?, Secret::new(1, 2));
    let turns = OPERATIONS / 10;
    Ok(Case::new(name("make a plan", named), turns, move || {
        timed(|| {
            let plan = |i: usize| {
                let tenant = &tenants[i % ASKED];
                let (tier, source, until) = policy.tier_of(tenant, 0);
                policy.plan(tenant, &tier, source, until, &secret).version()
            };
            (0..turns).map(plan).sum::<u64>()
        })
    }))
}

/// The limits of a check from a plan that is there: once per check.
fn select(named: usize, policy: &Policy) -> Result<Case, Failure> {
    let (tenants, secret) = (tenants()?, Secret::new(1, 2));
    let plans: Vec<_> = tenants
        .iter()
        .map(|tenant| {
            let (tier, source, until) = policy.tier_of(tenant, 0);
            (policy.plan(tenant, &tier, source, until, &secret), Check::of(tenant.clone()))
        })
        .collect();
    let mut selected = Vec::new();
    Ok(Case::new(name("select from a plan", named), OPERATIONS, move || {
        timed(|| {
            for i in 0..OPERATIONS {
                let (plan, check) = &plans[i % ASKED];
                selected.clear();
                let _ = plan.select(check, &secret, &mut selected);
            }
        })
    }))
}

/// A decision of two limits inside a shard.
fn decide(named: usize, policy: Arc<Policy>) -> Result<Case, Failure> {
    let caps = Caps {
        named_tenants: 1_000,
        unknown_tenants: 1_000,
        keys_per_tenant: 1_000,
        keys: 100_000,
        shared_keys: 1_000,
        request_ids: 1_000,
    };
    let mut shard =
        Alone::new(caps, Secret::new(1, 2), policy, Seed::from_number(1).fork("bench", 0));
    let all: Vec<Question> = tenants()?
        .into_iter()
        .cycle()
        .take(OPERATIONS)
        .map(|tenant| shard.question(Check::of(tenant)))
        .collect();
    let mut at = Now { boot: SECOND, wall: 1_800_000_000 * SECOND };
    Ok(Case::new(name("decide", named), OPERATIONS, move || {
        at = Now { boot: at.boot + SECOND, wall: at.wall + SECOND };
        in_batches(&all, |batch| shard.decide(batch, at).len())
    }))
}
