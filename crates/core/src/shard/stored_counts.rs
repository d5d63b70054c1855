//! A snapshot without request ids, in the form that the first program wrote: its bytes must not
//! change.
//!
//! Back-ups have it, the answers by which nodes tell each other what goes into one, and files of
//! saved counts that hold no request id. All programs read it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::snapshot::{AccountRecord, PartitionSnapshot};
use crate::limit::{Permits, State};
use crate::placement::{Epoch, Partition};
use crate::time::Now;

/// A snapshot whose stored form has no request ids. Writing it leaves out those that it holds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Form<'static>")]
pub struct StoredCounts(pub PartitionSnapshot);

#[derive(Serialize, Deserialize)]
struct Form<'a> {
    at: Now,
    epochs: Cow<'a, [(Partition, Epoch)]>,
    lost: Cow<'a, [(Partition, Now)]>,
    accounts: Vec<AccountForm<'a>>,
    shared: Cow<'a, [(u128, State)]>,
    overflow: Cow<'a, [(usize, u128, State)]>,
}

#[derive(Serialize, Deserialize)]
struct AccountForm<'a> {
    id: Cow<'a, str>,
    buckets: Cow<'a, [(u64, State)]>,
    permits: Cow<'a, Permits>,
}

impl<'a> AccountForm<'a> {
    fn of(account: &'a AccountRecord) -> Self {
        Self {
            id: Cow::Borrowed(&account.id),
            buckets: Cow::Borrowed(&account.buckets),
            permits: Cow::Borrowed(&account.permits),
        }
    }
}

impl Serialize for StoredCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(PartitionSnapshot { at, epochs, lost, accounts, shared, overflow }) = self;
        let form = Form {
            at: *at,
            epochs: epochs.into(),
            lost: lost.into(),
            accounts: accounts.iter().map(AccountForm::of).collect(),
            shared: shared.into(),
            overflow: overflow.into(),
        };
        form.serialize(serializer)
    }
}

impl From<Form<'_>> for StoredCounts {
    fn from(form: Form<'_>) -> Self {
        let account = |account: AccountForm<'_>| AccountRecord {
            buckets: account.buckets.into_owned(),
            permits: account.permits.into_owned(),
            ..AccountRecord::empty(account.id.into_owned())
        };
        Self(PartitionSnapshot {
            at: form.at,
            epochs: form.epochs.into_owned(),
            lost: form.lost.into_owned(),
            accounts: form.accounts.into_iter().map(account).collect(),
            shared: form.shared.into_owned(),
            overflow: form.overflow.into_owned(),
        })
    }
}
