//! A file of saved counts is loaded once, and only if it is whole; what is in it is what was saved.

mod golden;

use std::sync::Arc;

use super::*;
use crate::check::{
    Decision, Dimension, Exactness, Limit, Match, Name, Permit, PermitId, RequestId, TenantId,
    Verdict,
};
use crate::clock::SECOND;
use crate::limit::{Outcome, Permits, Rule, State, Window};
use crate::placement::{Epoch, Partition};
use crate::shard::{AccountRecord, ReplayRecord};

#[test]
fn a_file_is_loaded_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let saved = PartitionSnapshot::at(Now { boot: 5, wall: 9 });
    save(&path, saved.clone(), FormatLevel::OWN).unwrap();
    let now = Now { boot: 5, wall: 9 };
    assert_eq!(read(&path, now).unwrap().as_ref(), Some(&saved));
    assert_eq!(load(&path, now).unwrap(), Some(saved));
    assert_eq!(load(&path, now).unwrap(), None);
}

#[test]
fn a_damaged_file_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    save(&path, PartitionSnapshot::at(Now::default()), FormatLevel::OWN).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(load(&path, Now::default()).is_err());
    assert!(path.exists());
}

/// An account with one of everything, as a shard exports it.
fn account() -> AccountRecord {
    let then = Now { boot: 90 * SECOND, wall: 1_800_000_000 * SECOND };
    let rule = Rule::FixedWindow(Window { limit: 10, length: 60 * SECOND });
    let limit = Arc::new(Limit {
        name: Name::new("minute").unwrap(),
        per: vec![Dimension::Tenant],
        when: Match::default(),
        rule: rule.clone(),
        enforce: true,
    });
    let permit = PermitId { partition: 7, secret: 9 };
    let verdict = Verdict {
        limit,
        outcome: Outcome::Pass,
        remaining: 7,
        reset_after: 30 * SECOND,
        exactness: Exactness::Exact,
    };
    let decision = Decision {
        allowed: true,
        tenant: TenantId::new("acme").unwrap(),
        tier: Name::new("free"),
        cost: 3,
        verdicts: [verdict].into_iter().collect(),
        denied_by: None,
        retry_after: None,
        permit: Some(Permit { id: permit, expires_in: 30 * SECOND }),
        replayed: false,
        bypass: None,
        policy_version: 4,
        epoch: 5,
        node: None,
    };
    let mut permits = Permits::default();
    permits.grant(permit, 120 * SECOND);
    AccountRecord {
        buckets: vec![(1, State::spent(&rule, then, then))],
        permits,
        replays: vec![ReplayRecord {
            key: (11, RequestId::new("r-1").unwrap()),
            fingerprint: 12,
            expires: 99 * SECOND,
            decision,
        }],
        ..AccountRecord::empty("acme".into())
    }
}

#[test]
fn request_ids_are_kept_once_no_member_is_of_the_first_program() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let now = Now { boot: 90 * SECOND, wall: 1_800_000_000 * SECOND };
    let mut saved = PartitionSnapshot::at(now);
    saved.epochs = vec![(Partition::new(7).unwrap(), Epoch::new(3))];
    saved.accounts = vec![account()];
    for (level, magic) in [(FormatLevel::FIRST, b"TGSTATE2"), (FormatLevel::SECOND, b"TGSTATE3")] {
        save(&path, saved.clone(), level).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(magic));
        let mut expected = saved.clone();
        if level == FormatLevel::FIRST {
            expected.accounts[0].replays.clear();
        }
        assert_eq!(load(&path, now).unwrap(), Some(expected));
    }
}

#[test]
fn an_answer_that_no_door_would_give_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut saved = PartitionSnapshot::at(Now::default());
    saved.accounts = vec![account()];
    let permit = saved.accounts[0].replays[0].decision.permit.as_mut().unwrap();
    permit.id.partition = u16::MAX;
    save(&path, saved, FormatLevel::OWN).unwrap();
    assert!(load(&path, Now::default()).is_err());
    assert!(path.exists());
}
