//! The log of the golden files: every command and every edit of format level 1, with its answer.
//!
//! The tests of the log, of snapshots and of back-ups compare what they read with this.

use super::*;
use crate::check::{Label, Name, TenantId};
use crate::placement::{Epoch, Partition};

/// The policy of the golden log, as JSON.
const DOCUMENT: &str = include_str!("../../../../tests/golden/formats/level-1/policy.json");

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

/// A node that is admitted as it was in the golden log.
pub fn new_member(text: &str, weight: u8) -> NewMember {
    NewMember {
        name: name(text),
        http: format!("{text}.example:7070"),
        peer: format!("{text}.example:7171"),
        weight: Weight::new(weight).unwrap(),
    }
}

fn seat(node: u64, boot: u64) -> What {
    let text = format!("n{node}.example");
    let seating =
        Seating { boot: BootId(boot), http: format!("{text}:7070"), peer: format!("{text}:7171") };
    What::Seat(NodeId(node), seating)
}

fn edits() -> Vec<Edit> {
    let limit = r#"{"name":"x","algorithm":"fixed_window","limit":7,"window":"1m"}"#;
    let shared =
        r#"{"name":"x","per":["tenant"],"algorithm":"fixed_window","limit":7,"window":"1m"}"#;
    let when = r#"{"name":"x","algorithm":"fixed_window","limit":7,"window":"1m","match":{"action":"export"}}"#;
    let entry = r#"{"list":"deny","client":"c9","reason":"asked for"}"#;
    vec![
        Edit::PutTier(name("t2"), r#"{"max_concurrent":4,"limits":[]}"#.into()),
        Edit::PutTenant(TenantId::new("globex").unwrap(), r#"{"tier":"t2"}"#.into()),
        Edit::PutTenantLimit(tenant(), limit.into()),
        Edit::DeleteTenantLimit(tenant(), name("x")),
        Edit::PutTenantLimit(tenant(), when.into()),
        Edit::DeleteTenantOverride {
            tenant: tenant(),
            name: name("x"),
            action: Label::new("export"),
            client: None,
        },
        Edit::DeleteTenant(TenantId::new("globex").unwrap()),
        Edit::DeleteTier(name("t2")),
        Edit::AddAccess(name("new"), entry.into()),
        Edit::PutAccess(name("new"), entry.replace("c9", "c8")),
        Edit::DeleteAccess(name("new")),
        Edit::DropExpired(1_700_000_000_000_000_000),
        Edit::PutEntries(format!(r#"{{"one":{entry}}}"#)),
        Edit::Enforce(false),
        Edit::PutLimit(name("x"), shared.into()),
        Edit::PutLimits(format!("[{shared}]")),
        Edit::Replace(DOCUMENT.into()),
    ]
}

fn whats() -> Vec<What> {
    let at = |number: u16| Partition::new(number).unwrap();
    let members = vec![new_member("n1", 1), new_member("n2", 2), new_member("n3", 1)];
    let secret = Secret::new(0x1122_3344_5566_7788, 9).into();
    let mut whats = vec![
        What::Begin { secret, document: DOCUMENT.into(), members },
        seat(1, 11),
        seat(2, 12),
        seat(3, 13),
        What::Admit(new_member("n6", 3)),
    ];
    let edit = |edit| What::Edit { expected: None, edit };
    whats.extend(edits().into_iter().map(edit));
    whats.extend([
        What::Edit { expected: Some(18), edit: Edit::Enforce(false) },
        What::Edit { expected: Some(3), edit: Edit::Enforce(true) },
        What::Edit { expected: None, edit: Edit::DeleteTier(name("t9")) },
        What::Edit { expected: None, edit: Edit::DeleteTier(name("t0")) },
        What::Rollback { expected: Some(19), to: 17 },
        What::Rollback { expected: None, to: 99 },
        What::Admit(new_member("n6", 3)),
        seat(6, 16),
        What::BeginMoves((1..=8).map(|number| (at(number), Epoch::new(1), NodeId(6))).collect()),
        What::CommitMoves(vec![(at(1), LogIndex(32))]),
        What::AbortMoves(vec![(at(2), LogIndex(32))]),
        What::CommitMoves(vec![(at(1), LogIndex(32))]),
        What::BeginMoves(vec![]),
        What::Drain(NodeId(2), true),
        What::Drain(NodeId(2), false),
        What::Drain(NodeId(9), true),
        What::Weigh(NodeId(3), Weight::new(5).unwrap()),
        What::Stop(NodeId(1), BootId(11)),
        What::Remove(NodeId(3)),
        What::Leave(NodeId(3), Leaving::HandingOver),
        What::Remove(NodeId(3)),
        What::Leave(NodeId(2), Leaving::Abandoned),
        What::Remove(NodeId(2)),
    ]);
    whats
}

/// The commands of the golden log, the first at index [`FIRST`]; the last is proposed twice.
pub fn commands() -> Vec<Command> {
    let command = |(at, what): (u64, What)| Command {
        request: RequestId(u128::from(at) << 64 | 7),
        time: 1_800_000_000_000_000_000 + at,
        by: if at % 2 == 0 { "ops".into() } else { "n1".into() },
        what,
    };
    let mut commands: Vec<_> = (FIRST..).zip(whats()).map(command).collect();
    commands.extend(commands.last().cloned());
    commands
}

/// The index of the first command: a membership and a blank entry of Raft's own come before it.
pub const FIRST: u64 = 2;

/// What applying the golden log gives: the state, and the answer to each command.
pub fn applied() -> (State, Vec<Result<Done, Refusal>>) {
    let mut state = State::default();
    let answers = (FIRST..)
        .zip(commands())
        .map(|(at, command)| state.apply(LogIndex(at), &command))
        .collect();
    (state, answers)
}

/// The state after the golden log, as the first program encoded it.
pub const STATE: &[u8] = include_bytes!("../../../../tests/golden/formats/level-1/state.bin");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::codec::golden::{NEVER, rows, same};

    #[test]
    fn the_golden_log_gives_the_answers_that_it_always_gave() {
        let kept = rows(include_str!("../../../../tests/golden/formats/level-1/answers.txt"));
        let (_, answers) = applied();
        assert_eq!(kept.len(), answers.len(), "{NEVER}");
        for ((what, bytes), answer) in kept.iter().zip(answers) {
            let read = codec::decode::<Result<Done, Refusal>>(bytes)
                .unwrap_or_else(|e| panic!("{what}: {e}; {NEVER}"));
            same(what, &read, &answer);
        }
    }

    #[test]
    fn a_state_of_the_first_program_is_read_and_written_as_it_was() {
        let read = State::decode(STATE).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
        let (state, _) = applied();
        // Nodes of both programs apply one log: they must come to one state, and to the same bytes of
        // it.
        same("the state", &read.agreed(), &state.agreed());
        assert!(read.encode().unwrap() == STATE && state.encode().unwrap() == STATE, "{NEVER}");
    }

    #[test]
    fn a_state_of_the_first_program_means_what_it_meant() {
        let read = State::decode(STATE).unwrap();
        let agreed = read.agreed().unwrap();
        let members = agreed.members.iter().map(|(id, member)| {
            let flags = (member.draining, member.leaving, member.stopping);
            (
                id.0,
                member.name.to_string(),
                member.peer.clone(),
                member.weight.get(),
                member.boot.0,
                flags,
            )
        });
        let member = |id: u64, weight, boot, flags| {
            (id, format!("n{id}"), format!("n{id}.example:7171"), weight, boot, flags)
        };
        let leaving = (true, Some(Leaving::HandingOver), false);
        let expected = vec![
            member(1, 1, 11, (false, None, true)),
            member(3, 5, 13, leaving),
            member(6, 3, 16, (false, None, false)),
        ];
        same("the members", &members.collect::<Vec<_>>(), &expected);
        same("the secret", &agreed.secret().words(), &(0x1122_3344_5566_7788, 9));
        same("the version", &(agreed.version, agreed.history.iter().count()), &(20, 19));
        let moves: Vec<_> =
            agreed.table.moves().map(|(p, _, moving)| (p, moving.to.node.0, moving.id.0)).collect();
        let to_n6 = [4, 7].map(|number| (Partition::new(number).unwrap(), 6, 32));
        same("the moves", &moves, &to_n6.to_vec());
        let tier = &agreed.document.tiers[&name("t1")];
        same("a tier", &(tier.max_concurrent, tier.limits.len()), &(Some(5), 6));
        let older = agreed.document_at(1).unwrap();
        same("the first policy", &older, &Document::from_stored(DOCUMENT).unwrap());
        let line =
            agreed.audit.last().map(|line| (line.at.0, line.by.as_str(), line.what.as_str()));
        same(
            "the audit log",
            &line,
            &Some((46, "ops", "removed n2 (node 2); 2047 partitions begin as spent elsewhere")),
        );
    }
}
