//! A back-up as the first program wrote it.

use super::*;
use crate::clock::{Now, SECOND};
use crate::cluster::state::golden::{STATE, applied};
use crate::codec::golden::{NEVER, same};
use crate::limit::{Rule, State as Bucket, Window};
use crate::shard::AccountRecord;

const KEPT: &[u8] = include_bytes!("../../../tests/golden/formats/level-1/backup.bin");

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn header() -> Header {
    Header {
        cluster: name("demo"),
        lineage: Lineage::of([0x9f86, 7]),
        by: name("n1"),
        time: 1_800_000_000 * SECOND,
        program: "0.1.0".into(),
        applied: LogIndex(47),
        term: 2,
        environment: Some(name("production")),
        missing: vec![name("n6")],
    }
}

fn counts() -> Vec<PartitionSnapshot> {
    let then = Now { boot: 5_000 * SECOND, wall: 1_800_000_000 * SECOND };
    let rule = Rule::FixedWindow(Window { limit: 10, length: 86_400 * SECOND });
    let mut bucket = Bucket::fresh(&rule, then);
    bucket.take(&rule, 3, then);
    let buckets = vec![(1, bucket.clone())];
    let account = AccountRecord { buckets, ..AccountRecord::empty("acme".into()) };
    let mut of_shard = PartitionSnapshot::at(then);
    of_shard.accounts = vec![account];
    of_shard.shared = vec![(1 << 100, bucket)];
    vec![of_shard, PartitionSnapshot::at(then)]
}

#[test]
fn a_back_up_of_the_first_program_is_read_as_it_was() {
    let read = read(KEPT).unwrap_or_else(|e| panic!("{e}; {NEVER}"));
    same("the header", &read.header, &header());
    same("the counts", &read.counts, &counts());
    same("the state", &read.state.agreed(), &applied().0.agreed());
    assert!(KEPT.windows(STATE.len()).any(|part| part == STATE), "{NEVER}");
}
