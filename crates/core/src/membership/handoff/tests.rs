//! Everything that can happen to one move, searched: messages that are lost or come twice,
//! proposals that are late, views of the log that lag, either end crashing at any step.

use std::collections::{BTreeSet, VecDeque};

use super::*;

/// What the log says of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    Moving,
    AtSource,
    AtTarget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    /// To the target: the count as it is copied, while it goes on.
    Copy(u8),
    /// To the source.
    Copied,
    /// To the target: what has been debited since the copy, and that it is all.
    Install(u8),
    /// To the source.
    Installed,
    /// To the log.
    Commit,
    GiveUp,
}

/// The whole world of one partition. What was debited is a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    log: Row,
    /// Entries come to be known at their own pace.
    source_sees: Row,
    target_sees: Row,
    source: Option<Source>,
    frozen: bool,
    /// Debits at the source, and those that it has copied.
    debited: u8,
    copied: u8,
    /// What the target was given, and whether that is all.
    staged: Option<(u8, bool)>,
    at_target: u8,
    on_their_way: Vec<Message>,
    crashes: u8,
}

/// How the machine is run: as it is, or with one of the faults that the search has to find.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The source thaws by itself when the commit isn't answered.
    ThawsAlone,
    /// The rest is sent without freezing.
    NeverFreezes,
    /// The target takes a copy that comes behind the rest.
    CopiesLate,
}

const DEBITS_MAX: u8 = 3;
const MESSAGES_MAX: usize = 3;

impl World {
    fn begin() -> Self {
        let (source, first) = Source::begin();
        let mut world = Self {
            log: Row::Moving,
            source_sees: Row::Moving,
            target_sees: Row::Moving,
            source: Some(source),
            frozen: false,
            debited: 1,
            copied: 0,
            staged: None,
            at_target: 0,
            on_their_way: Vec::new(),
            crashes: 0,
        };
        world.perform(first, Fault::None);
        world
    }

    fn source_serves(&self) -> bool {
        self.source.is_some() && !self.frozen && self.source_sees != Row::AtTarget
    }

    fn target_serves(&self) -> bool {
        self.target_sees == Row::AtTarget
    }

    fn told(&self, event: Event, fault: Fault) -> Self {
        let mut next = self.clone();
        let Some(source) = self.source else { return next };
        let (source, effects) = source.on(event);
        next.source = Some(source);
        if fault == Fault::ThawsAlone && (source, event) == (Source::Committing, Event::Failed) {
            next.frozen = false;
        }
        effects.iter().for_each(|effect| next.perform(*effect, fault));
        next
    }

    fn perform(&mut self, effect: Effect, fault: Fault) {
        match effect {
            Effect::Copy => {
                self.copied = self.debited;
                self.send(Message::Copy(self.debited));
            }
            Effect::Freeze => self.frozen = fault != Fault::NeverFreezes,
            Effect::Thaw => self.frozen = false,
            Effect::Install => self.send(Message::Install(self.debited - self.copied)),
            Effect::Commit => self.send(Message::Commit),
            Effect::GiveUp => self.send(Message::GiveUp),
        }
    }

    fn send(&mut self, message: Message) {
        if self.on_their_way.len() < MESSAGES_MAX {
            self.on_their_way.push(message);
            self.on_their_way.sort();
        }
    }

    fn steps(&self, fault: Fault) -> Vec<Self> {
        let mut all = Vec::new();
        // A caller is served, by whoever serves.
        if self.source_serves() && self.debited < DEBITS_MAX {
            all.push(Self { debited: self.debited + 1, ..self.clone() });
        }
        // What the source waits for by itself: the drain succeeds, or anything fails.
        let alone = match self.source {
            Some(Source::Freezing) => &[Event::Drained, Event::Failed][..],
            Some(Source::Over) | None => &[],
            Some(_) => &[Event::Failed],
        };
        all.extend(alone.iter().map(|event| self.told(*event, fault)));
        for (at, message) in self.on_their_way.iter().enumerate() {
            let mut taken = self.clone();
            taken.on_their_way.remove(at);
            // Lost; delivered; delivered and yet to come again.
            all.push(taken.clone());
            all.push(taken.delivered(*message, fault));
            all.push(self.clone().delivered(*message, fault));
        }
        // Either end comes to know the log.
        if self.source_sees != self.log {
            let mut next = self.clone();
            next.source_sees = self.log;
            let event = if self.log == Row::AtTarget { Event::Moved } else { Event::Stayed };
            // What the log says thaws: here, or for whoever is there now.
            next.frozen = false;
            all.push(next.told(event, fault));
        }
        if self.target_sees != self.log {
            let mut next = self.clone();
            next.target_sees = self.log;
            match (self.log, self.staged) {
                // What is not all is nobody's count: it is lost, and begins as spent.
                (Row::AtTarget, Some((count, true))) => next.at_target = count,
                (Row::AtTarget, _) => next.at_target = u8::MAX,
                _ => next.staged = None,
            }
            all.push(next);
        }
        // The target crashes: what it kept is gone, and its next life gives up the move as it is
        // seated.
        if self.crashes == 0 && self.target_sees != Row::AtTarget {
            let mut next = Self { staged: None, crashes: 1, ..self.clone() };
            if self.log == Row::Moving {
                next.log = Row::AtSource;
            }
            // What it had kept is lost with it; should the log have moved the partition already, it
            // is a crash of its owner.
            if self.log != Row::AtTarget {
                all.push(next);
            }
        }
        all
    }

    fn delivered(mut self, message: Message, fault: Fault) -> Self {
        match message {
            Message::Copy(count) => {
                // The target keeps what it is given while it sees the move; afterwards it is
                // nobody's business.
                if self.target_sees == Row::Moving {
                    if self.staged.is_none_or(|(_, is_all)| !is_all || fault == Fault::CopiesLate) {
                        self.staged = Some((count, false));
                    }
                    self.send(Message::Copied);
                }
                self
            }
            Message::Install(more) => {
                if self.target_sees == Row::Moving {
                    let (count, is_all) = self.staged.unwrap_or_default();
                    self.staged = Some((if is_all { count } else { count + more }, true));
                    self.send(Message::Installed);
                }
                self
            }
            Message::Copied => self.told(Event::Copied, fault),
            Message::Installed => self.told(Event::Installed, fault),
            Message::Commit => {
                if self.log == Row::Moving {
                    self.log = Row::AtTarget;
                }
                self
            }
            Message::GiveUp => {
                if self.log == Row::Moving {
                    self.log = Row::AtSource;
                }
                self
            }
        }
    }
}

/// How many worlds there are, or the first that breaks a promise.
fn search(fault: Fault) -> Result<usize, String> {
    let mut seen = BTreeSet::from([World::begin()]);
    let mut next = VecDeque::from([World::begin()]);
    while let Some(world) = next.pop_front() {
        if world.source_serves() && world.target_serves() {
            return Err(format!("two owners: {world:?}"));
        }
        if world.target_serves() && world.at_target != world.debited {
            return Err(format!("a debit is lost: {world:?}"));
        }
        for step in world.steps(fault) {
            if seen.insert(step.clone()) {
                next.push_back(step);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn whatever_happens_there_is_one_owner_and_it_knows_every_debit() {
    let worlds = search(Fault::None).unwrap();
    assert!(worlds > 1_000, "only {worlds} worlds were searched");
}

#[test]
fn a_source_that_goes_on_by_its_own_clock_is_caught() {
    assert!(search(Fault::ThawsAlone).unwrap_err().contains("two owners"));
}

#[test]
fn a_source_that_hands_over_without_freezing_is_caught() {
    assert!(search(Fault::NeverFreezes).is_err());
}

#[test]
fn a_target_that_takes_a_copy_behind_the_rest_is_caught() {
    assert!(search(Fault::CopiesLate).unwrap_err().contains("a debit is lost"));
}

#[test]
fn a_move_that_nothing_happens_to_goes_through_in_five_steps() {
    let (mut at, first) = Source::begin();
    let mut did = vec![first];
    for event in [Event::Copied, Event::Drained, Event::Installed, Event::Moved] {
        let (next, effects) = at.on(event);
        did.extend(effects);
        at = next;
    }
    assert_eq!(did, [Effect::Copy, Effect::Freeze, Effect::Install, Effect::Commit]);
    assert_eq!(at, Source::Over);
}
