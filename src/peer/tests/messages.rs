//! The bytes of every message, and that all of them read back.

use std::net::IpAddr;

use proptest::prelude::*;

use crate::check::{
    ApiKeyDigest, Bypass, Check, Cost, Decision, DeniedBy, Dimension, Exactness, Label, Limit,
    Match, Method, Name, Path, Permit, PermitId, Reason, RequestId, TenantId, Verdict,
};
use crate::clock::SECOND;
use crate::limit::{
    Calendar, LeakyBucket, OnExceeded, Outcome, Period, Quota, Rate, Rule, TokenBucket, Window,
};
use crate::peer::check::{CheckAnswer, CheckAsk, Declined, Purpose, Source};
use crate::peer::{BootId, Opaque};
use crate::placement::Partition;
use crate::shard::Refusal;
use std::sync::Arc;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn limit(text: &str, per: Vec<Dimension>, rule: Rule) -> Arc<Limit> {
    let when = Match { action: Label::new("export"), client: None };
    Arc::new(Limit { name: name(text), per, when, rule, enforce: true })
}

/// A limit of each algorithm.
pub(super) fn limits() -> Vec<Arc<Limit>> {
    let rate = Rate::new(5, SECOND).unwrap();
    let window = Window { limit: 10, length: 60 * SECOND };
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let calendar = Calendar { period: Period::Month, anchor_day: 15, zone };
    let quota = Quota { limit: 1_000, calendar, on_exceeded: OnExceeded::Count };
    let rules = [
        Rule::TokenBucket(TokenBucket { rate, burst: 10, initial: 4 }),
        Rule::LeakyBucket(LeakyBucket { rate, burst: 1 }),
        Rule::FixedWindow(window),
        Rule::SlidingWindow(window),
        Rule::SlidingLog(window),
        Rule::Quota(quota),
        Rule::Concurrency { max: 50 },
    ];
    let dimensions = vec![Dimension::Tenant, Dimension::Attribute(name("region"))];
    rules
        .into_iter()
        .enumerate()
        .map(|(i, rule)| limit(&format!("l{i}"), dimensions.clone(), rule))
        .collect()
}

fn ask(check: Check) -> CheckAsk {
    let source = Source { router: name("n1"), boot: BootId(0x1122_3344_5566_7788), sequence: 300 };
    let partition = Partition::new(4095).unwrap();
    CheckAsk { source, partition, epoch: 5, policy_version: 12, purpose: Purpose::Take, check }
}

pub(super) fn full_check() -> Check {
    Check {
        tier: Some(name("pro")),
        client: Label::new("user-1"),
        action: Label::new("api_call"),
        method: Method::new("POST"),
        path: Path::new("/ocr"),
        ip: Some("203.0.113.9".parse().unwrap()),
        api_key: Some(ApiKeyDigest::from_bytes([0xab; 32])),
        attributes: [(name("region"), Label::new("eu").unwrap())].into(),
        cost: Cost::new(3),
        deadline_ms: 100,
        request_id: RequestId::new("r-1"),
        permit_ttl_ms: Some(30_000),
        limits: limits(),
        ..Check::of(TenantId::new("acme").unwrap())
    }
}

pub(super) fn decision() -> Decision {
    let outcomes = [Outcome::Pass, Outcome::Held, Outcome::Wait(1_500_000_000), Outcome::Never];
    let verdict = |(limit, outcome): (&Arc<Limit>, _)| {
        let limit = limit.clone();
        Verdict {
            limit,
            outcome,
            remaining: 7,
            reset_after: 2 * SECOND,
            exactness: Exactness::Exact,
        }
    };
    let id = PermitId { partition: 7, secret: 9 };
    Decision {
        allowed: false,
        tenant: TenantId::new("acme").unwrap(),
        tier: Some(name("pro")),
        cost: 3,
        verdicts: limits().iter().zip(outcomes.into_iter().cycle()).map(verdict).collect(),
        denied_by: Some(Box::new(DeniedBy {
            name: name("l2"),
            scope: vec![Dimension::Ip, Dimension::Endpoint],
            reason: Reason::Rate,
        })),
        retry_after: Some(1_500_000_000),
        permit: Some(Permit { id, expires_in: 30 * SECOND }),
        replayed: true,
        bypass: Some(Box::new(Bypass { list: name("vip"), reason: "asked for".into() })),
        policy_version: 12,
        epoch: 0,
        node: None,
    }
}

pub(super) fn declined() -> Vec<Declined> {
    vec![
        Declined::Refused(Refusal::UnknownTier(name("gold"))),
        Declined::Refused(Refusal::LimitsRefused(name("free"))),
        Declined::Refused(Refusal::RequestIdReused),
        Declined::Refused(Refusal::Busy),
        Declined::Refused(Refusal::InBatch(2, Box::new(Refusal::Busy))),
        Declined::NotOwner { epoch: 6, owner: Some(name("n3")) },
        Declined::TooOld,
    ]
}

/// Every message, named, with its bytes as version 1 has them.
fn golden() -> Vec<(&'static str, Vec<u8>)> {
    let of = |opaque: Opaque| opaque.bytes.to_vec();
    let answer = |said| Opaque::answer::<CheckAsk>(&CheckAnswer { epoch: 5, said }).unwrap();
    let mut all = vec![
        ("check", of(Opaque::question(&ask(Check::of(TenantId::new("acme").unwrap()))).unwrap())),
        ("check, every member", of(Opaque::question(&ask(full_check())).unwrap())),
        ("decision", of(answer(Ok(decision())))),
    ];
    all.extend(declined().into_iter().map(|declined| ("declined", of(answer(Err(declined))))));
    all
}

#[test]
fn messages_are_the_bytes_that_version_1_has() {
    let file = include_str!("golden.txt");
    let kept: Vec<_> = file.lines().filter(|line| !line.starts_with('#')).collect();
    let now: Vec<_> =
        golden().iter().map(|(what, bytes)| format!("{what}: {}", hex(bytes))).collect();
    // A difference here is another wire version: nodes of the version before must still be
    // understood.
    assert_eq!(now, kept);
}

#[test]
fn the_bytes_that_version_1_has_read_as_the_messages_they_were() {
    let file = include_str!("golden.txt");
    let mut kept = file.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (_, hex) = line.split_once(": ").unwrap();
        Opaque { kind: crate::peer::Kind::CHECK, bytes: bytes(hex).into() }
    });
    let mut next = || kept.next().unwrap();
    assert_eq!(
        next().read_question::<CheckAsk>().unwrap(),
        ask(Check::of(TenantId::new("acme").unwrap()))
    );
    assert_eq!(next().read_question::<CheckAsk>().unwrap(), ask(full_check()));
    let said = next().read_answer::<CheckAsk>().unwrap().said.unwrap();
    assert_eq!(format!("{said:?}"), format!("{:?}", decision()));
    for declined in declined() {
        assert_eq!(next().read_answer::<CheckAsk>().unwrap().said.unwrap_err(), declined);
    }
}

#[test]
fn numbers_that_a_shard_would_stumble_over_are_refused() {
    let with = |rule: Rule| {
        let limits = vec![limit("bad", vec![], rule)];
        let check = Check { limits, ..Check::of(TenantId::new("acme").unwrap()) };
        Opaque::question(&ask(check))
            .unwrap()
            .read_question::<CheckAsk>()
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let rate = Rate::new(5, SECOND).unwrap();
    for (rule, why) in [
        (Rule::FixedWindow(Window { limit: 10, length: 0 }), "length"),
        (Rule::SlidingWindow(Window { limit: 0, length: 1 }), "units"),
        (Rule::FixedWindow(Window { limit: u64::MAX, length: 1 }), "units"),
        (Rule::SlidingLog(Window { limit: 10_001, length: 1 }), "too long"),
        (Rule::TokenBucket(TokenBucket { rate, burst: 1, initial: 2 }), "begins with more"),
        (Rule::LeakyBucket(LeakyBucket { rate, burst: 0 }), "units"),
        (Rule::Concurrency { max: 0 }, "permits"),
    ] {
        let said = with(rule).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    let check =
        |check: Check| Opaque::question(&ask(check)).unwrap().read_question::<CheckAsk>().is_err();
    let of = || Check::of(TenantId::new("acme").unwrap());
    assert!(
        check(Check { deadline_ms: 0, ..of() }) && check(Check { permit_ttl_ms: Some(1), ..of() })
    );
    let attributes = (0..17).map(|i| (name(&format!("a{i}")), Label::new("x").unwrap())).collect();
    assert!(check(Check { attributes, ..of() }));
    assert!(check(Check { limits: (0..17).map(|_| limits()[0].clone()).collect(), ..of() }));
}

fn checks() -> impl Strategy<Value = Check> {
    let text = || proptest::option::of("[A-Za-z0-9._-]{1,64}");
    let numbers =
        (proptest::option::of(1u32..), 1u64..=60_000, proptest::option::of(1_000u64..=3_600_000));
    let ip = proptest::option::of(any::<IpAddr>());
    let some = (text(), text(), text(), text(), ip, proptest::option::of(any::<[u8; 32]>()));
    (some, numbers, proptest::collection::vec(0usize..7, 0..16)).prop_map(
        |(some, numbers, chosen)| {
            let (tier, client, action, id, ip, key) = some;
            let all = limits();
            Check {
                tier: tier.and_then(|text| Name::new(&text)),
                client: client.and_then(|text| Label::new(&text)),
                action: action.and_then(|text| Label::new(&text)),
                request_id: id.and_then(|text| RequestId::new(&text)),
                ip: ip.map(|ip| ip.to_canonical()),
                api_key: key.map(ApiKeyDigest::from_bytes),
                cost: numbers.0.and_then(Cost::new),
                deadline_ms: numbers.1,
                permit_ttl_ms: numbers.2,
                limits: chosen.into_iter().map(|i| all[i].clone()).collect(),
                ..Check::of(TenantId::new("acme").unwrap())
            }
        },
    )
}

proptest! {
    #[test]
    fn every_check_reads_back(check in checks()) {
        let asked = ask(check);
        prop_assert_eq!(Opaque::question(&asked).unwrap().read_question::<CheckAsk>().unwrap(), asked);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        crate::peer::fuzz_frames(&bytes);
    }

    #[test]
    fn a_message_with_a_byte_changed_is_a_message_or_an_error(which in 0usize..10, at: usize, byte: u8) {
        let mut bytes = golden()[which].1.clone();
        let at = at % bytes.len();
        bytes[at] = byte;
        crate::peer::fuzz_frames(&bytes);
    }
}
