//! The bytes of the messages beside a single check: batches, what is asked of a tenant's owner,
//! shared buckets, hand-offs.

use super::messages::{bytes, decision, declined, full_check, hex, limits, name};
use crate::check::{Exactness, PermitId, RequestId, TenantId};
use crate::clock::{Now, SECOND};
use crate::limit::{Outcome, Permits, Rule, State};
use crate::peer::batch::{AllAnswer, AllAsk, EachAsk, One};
use crate::peer::check::{CheckAnswer, CheckAsk, Declined, Source};
use crate::peer::message::Ask;
use crate::peer::moving::InstallAsk;
use crate::peer::shared::{PlainReply, SettleAsk, SharedAnswer, SharedAsk};
use crate::peer::tenant::{DescribeAsk, ListAsk, Owned, PermitAsk, RenewAsk, Renewed, ResetAsk};
use crate::peer::{BootId, Kind, Opaque};
use crate::placement::{Partition, TableVersion};
use crate::policy::TierSource;
use crate::shard::{
    AccountRecord, Home, Listed, OpRef, Refusal, ReplayRecord, Reply, Said, TenantState,
};

/// A message with its name, its bytes, and how they are read and written again.
struct Exchange {
    what: &'static str,
    opaque: Opaque,
    again: fn(&Opaque) -> Opaque,
}

fn question<A: Ask>(what: &'static str, question: &A) -> Exchange {
    let again = |opaque: &Opaque| Opaque::question(&opaque.read_question::<A>().unwrap()).unwrap();
    Exchange { what, opaque: Opaque::question(question).unwrap(), again }
}

fn answer<A: Ask>(what: &'static str, answer: &A::Answer) -> Exchange {
    let again = |opaque: &Opaque| Opaque::answer::<A>(&opaque.read_answer::<A>().unwrap()).unwrap();
    Exchange { what, opaque: Opaque::answer::<A>(answer).unwrap(), again }
}

fn source() -> Source {
    Source { router: name("n1"), boot: BootId(0x1122_3344_5566_7788), sequence: 300 }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn batches(partition: Partition) -> Vec<Exchange> {
    let checks = vec![full_check(), full_check()];
    let all = AllAsk { source: source(), partition, epoch: 5, policy_version: 12, checks };
    let one = One { partition, epoch: 5, check: full_check() };
    let each = EachAsk { source: source(), policy_version: 12, checks: vec![one.clone(), one] };
    let mut exchanges = vec![question("all", &all), question("each", &each)];
    let said = AllAnswer { epoch: 5, said: Ok(vec![decision(), decision()]) };
    exchanges.push(answer::<AllAsk>("all decided", &said));
    exchanges.extend(declined().into_iter().map(|declined| {
        answer::<AllAsk>("all declined", &AllAnswer { epoch: 5, said: Err(declined) })
    }));
    let said = vec![
        CheckAnswer { epoch: 5, said: Ok(decision()) },
        CheckAnswer { epoch: 5, said: Err(Declined::TooOld) },
    ];
    exchanges.push(answer::<EachAsk>("each answered", &said));
    exchanges
}

fn tenants(partition: Partition) -> Vec<Exchange> {
    let id = PermitId { partition: 7, secret: 9 };
    let not_owner = || Declined::NotOwner { epoch: 6, owner: Some(name("n3")) };
    let mut exchanges = vec![
        question("permit given back", &PermitAsk { id, epoch: 5, renew_ms: None }),
        question("permit extended", &PermitAsk { id, epoch: 5, renew_ms: Some(30_000) }),
        answer::<PermitAsk>("permit was out", &Owned::Said(true)),
        answer::<PermitAsk>("permit refused", &Owned::new(Err(Declined::Refused(Refusal::Busy)))),
        answer::<PermitAsk>("permit elsewhere", &Owned::new(Err(not_owner()))),
        question(
            "describe",
            &DescribeAsk { partition, epoch: 5, policy_version: 12, tenant: tenant() },
        ),
        question("reset", &ResetAsk { partition, epoch: 5, tenant: tenant() }),
        answer::<ResetAsk>("forgotten", &Owned::Said(())),
        answer::<ResetAsk>("forgotten elsewhere", &Owned::new(Err(not_owner()))),
        question("list", &ListAsk { shard: 1, from: 1_000, most: 100 }),
        answer::<ListAsk>("no such shard", &None),
        answer::<ListAsk>("list refused", &Some(Err(Refusal::Busy.into()))),
    ];
    for next in [None, Some(1_100)] {
        let page = Listed { ids: vec!["acme".into(), "globex".into()], next };
        exchanges.push(answer::<ListAsk>("listed", &Some(Ok(page.into()))));
    }
    for source in
        [TierSource::Tenant, TierSource::Pattern, TierSource::Request, TierSource::Default]
    {
        let (tier, permits, keys, request_ids) = (name("pro"), 2, 300, 4);
        let state = TenantState { tier, source, active: true, permits, keys, request_ids };
        exchanges.push(answer::<DescribeAsk>("described", &Owned::Said(state.into())));
    }
    exchanges
}

fn shared(partition: Partition) -> Vec<Exchange> {
    let op = OpRef { boot: BootId(0x1122_3344_5566_7788), shard: 1, op: 77 };
    let ask = |until| crate::shard::Ask {
        op,
        demand: 2,
        key: 1 << 100,
        overflow_key: 1 << 101,
        limit: limits()[0].clone(),
        cost: 3,
        hold: true,
        until,
        deadline: 2 * SECOND,
    };
    let said = |outcome| Said {
        outcome,
        remaining: 7,
        reset: SECOND,
        reset_if_taken: 2 * SECOND,
        overflow: true,
        cold: false,
    };
    let reply = |outcome| {
        let reply =
            Reply { from: Home::Far(partition), op, demand: 2, key: 1 << 100, said: said(outcome) };
        answer::<SharedAsk>("shared said", &SharedAnswer::Said(PlainReply::new(&reply)))
    };
    let mut exchanges = vec![
        question("shared, no waiting", &SharedAsk::new(partition, &ask(None), SECOND)),
        question("shared, waiting", &SharedAsk::new(partition, &ask(Some(3 * SECOND / 2)), SECOND)),
        answer::<SharedAsk>("shared, nothing in time", &SharedAnswer::NothingInTime),
        answer::<SharedAsk>("shared elsewhere", &SharedAnswer::NotOwner),
    ];
    exchanges.extend([Outcome::Pass, Outcome::Held, Outcome::Wait(9), Outcome::Never].map(reply));
    for take in [true, false] {
        exchanges.push(question("settle", &SettleAsk { partition, op, key: 1 << 100, take }));
    }
    exchanges.push(answer::<SettleAsk>("settled", &true));
    exchanges
}

fn handed_over(partition: Partition) -> Vec<Exchange> {
    let now = Now { boot: 90 * SECOND, wall: 1_800_000_000 * SECOND };
    let spent = |limit: &std::sync::Arc<crate::check::Limit>| match &limit.rule {
        Rule::Concurrency { .. } => None,
        rule => Some(State::spent(rule, now, now)),
    };
    let states: Vec<_> = limits().iter().filter_map(spent).collect();
    let mut permits = Permits::default();
    permits.grant(PermitId { partition: 7, secret: 9 }, 120 * SECOND);
    let account = AccountRecord {
        id: "acme".into(),
        goes_on: true,
        buckets: (1..).zip(states.clone()).collect(),
        permits,
        replays: vec![ReplayRecord {
            key: (11, RequestId::new("r-1").unwrap()),
            fingerprint: 12,
            expires: 99 * SECOND,
            decision: decision(),
        }],
    };
    let copy = InstallAsk {
        of: TableVersion(33),
        partitions: vec![partition],
        boot: now.boot,
        accounts: vec![account],
        shared: (1..).zip(states).collect(),
        gone: vec![],
        lost: vec![],
        is_last: false,
    };
    let last = InstallAsk {
        accounts: vec![],
        shared: vec![],
        gone: vec!["globex".into()],
        lost: vec![(partition, Now { boot: 80 * SECOND, wall: 1_799_999_990 * SECOND })],
        is_last: true,
        ..copy.clone()
    };
    vec![
        question("install, a copy", &copy),
        question("install, the last part", &last),
        answer::<InstallAsk>("installed", &true),
    ]
}

fn exchanges() -> Vec<Exchange> {
    let partition = Partition::new(4095).unwrap();
    let kinds = [batches, tenants, shared, handed_over];
    kinds.into_iter().flat_map(|kind| kind(partition)).collect()
}

fn kept() -> Vec<&'static str> {
    include_str!("exchanges.txt").lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn exchanges_are_the_bytes_that_version_1_has() {
    let line = |exchange: Exchange| {
        let Kind(kind) = exchange.opaque.kind;
        format!("{kind:04x} {}: {}", exchange.what, hex(&exchange.opaque.bytes))
    };
    let now: Vec<_> = exchanges().into_iter().map(line).collect();
    // A difference here is another wire version: nodes of the version before must still be
    // understood.
    assert_eq!(now, kept());
}

#[test]
fn the_bytes_that_version_1_has_are_read_and_written_again_unchanged() {
    for (exchange, line) in exchanges().iter().zip(kept()) {
        let kept: Vec<u8> = bytes(line.split_once(": ").unwrap().1);
        let opaque = Opaque { kind: exchange.opaque.kind, bytes: kept.clone().into() };
        assert_eq!((exchange.again)(&opaque).bytes.to_vec(), kept, "{line}");
    }
}

#[test]
fn a_renewal_and_its_answers_are_these_bytes() {
    let id = PermitId { partition: 7, secret: 9 };
    let ask = RenewAsk { id, epoch: 5, policy_version: 12, ttl_ms: 30_000 };
    let opaque = Opaque::question(&ask).unwrap();
    assert_eq!((opaque.kind, hex(&opaque.bytes)), (Kind(8), "0709050cfb3075".to_string()));
    assert_eq!(opaque.read_question::<RenewAsk>().unwrap(), ask);
    let too_long = Renewed::TooLong { tier: name("free"), most_ms: 3_000 };
    for (said, kept) in [
        (Renewed::Runs(30_000), "0000fb3075"),
        (Renewed::NotInFlight, "0001"),
        (too_long, "00020466726565fbb80b"),
    ] {
        let opaque = Opaque::answer::<RenewAsk>(&Owned::Said(said.clone())).unwrap();
        assert_eq!(hex(&opaque.bytes), kept);
        let read = opaque.read_answer::<RenewAsk>().unwrap().said().unwrap();
        assert_eq!(read, said);
        assert_eq!(Renewed::new(read.said()).unwrap(), said);
    }
}

#[test]
fn a_cold_start_has_no_bytes_of_its_own_and_reads_back_as_one() {
    let of = |exactness| {
        let mut decision = decision();
        for verdict in &mut decision.verdicts {
            let is_slots = matches!(verdict.limit.rule, Rule::Concurrency { .. });
            if is_slots {
                (verdict.exactness, verdict.remaining) = (exactness, 0);
                verdict.outcome = Outcome::Wait(9 * SECOND);
            }
        }
        decision
    };
    for exactness in [Exactness::Exact, Exactness::KeyCap, Exactness::ColdStart] {
        let said = CheckAnswer { epoch: 5, said: Ok(of(exactness)) };
        let opaque = Opaque::answer::<CheckAsk>(&said).unwrap();
        let read = opaque.read_answer::<CheckAsk>().unwrap().said.unwrap();
        let slots = read.verdicts.iter().find(|v| matches!(v.limit.rule, Rule::Concurrency { .. }));
        let slots = slots.unwrap();
        assert_eq!((slots.exactness, slots.remaining), (exactness, 0));
        assert_eq!(read.exactness(), exactness);
    }
}
