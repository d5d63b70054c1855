//! The policy of one node, durable in its data directory.
//!
//! A redb file holds the document in rows: one for each tier, tenant and list entry, and one for the rest, so that an edit
//! writes its own size. The file is locked while it is open: two processes on one directory would be two limiters that
//! each believe themselves to be the only one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Map, Value, json};

use super::{AuditEntry, PastVersion, PolicyStore, Proposal, Wanted, WriteError, Writing, Written};
use crate::check::Name;
use crate::input::{Fault, Tree};
use crate::placement::Secret;
use crate::policy::{Change, Document, Policy};
use crate::random::Seed;
use crate::shard::PolicyCell;

/// Rows of the document: `head`, `tiers/NAME`, `tenants/ID`, `access/NAME`; JSON.
const DOCUMENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("document");
/// `version`, `secret0`, `secret1`, `format`.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The layout of the rows.
const FORMAT: u64 = 1;
/// The sections that are stored row by row.
const SECTIONS: [&str; 3] = ["tiers", "tenants", "access"];

/// Where the store keeps its file.
pub enum Where {
    /// In a data directory, made if it isn't there.
    Directory(PathBuf),
    /// In memory, gone with the process: for tests and simulations.
    Memory,
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory {0} is in use by another process")]
    InUse(PathBuf),
    /// The file can't be made, read or written.
    #[error("can't open the policy store: {0}")]
    Storage(String),
    /// The stored document is not valid for this version.
    #[error("the stored policy is not valid: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Fault>),
}

/// See the module.
pub struct LocalStore {
    database: Database,
    cell: Arc<PolicyCell>,
    secret: Secret,
    /// Writers come one after another; the version each checks is the one it replaces.
    writer: tokio::sync::Mutex<()>,
    writable: AtomicBool,
}

impl LocalStore {
    /// Opens the store. The very first time it takes `initial` for version 1, and a secret from `seed`.
    pub fn open(
        place: Where,
        environment: Option<Name>,
        seed: &Seed,
        initial: impl FnOnce() -> Result<Document, Vec<Fault>>,
    ) -> Result<Self, OpenError> {
        let database = open(place)?;
        let stored = read(&database)?;
        let (version, document, secret) = match stored {
            Some(stored) => stored,
            None => {
                let document = initial().map_err(OpenError::Invalid)?;
                let mut generator = seed.fork("cluster secret", 0);
                let secret = Secret::new(generator.next_u64(), generator.next_u64());
                begin(&database, &document, secret).map_err(|e| OpenError::Storage(e.to_string()))?;
                (1, document, secret)
            }
        };
        let cell = Arc::new(PolicyCell::new(Arc::new(Policy::new(version, document, environment))));
        Ok(Self {
            database,
            cell,
            secret,
            writer: tokio::sync::Mutex::new(()),
            writable: AtomicBool::new(true),
        })
    }

    /// The cell that shards read the policy from.
    pub fn cell(&self) -> Arc<PolicyCell> {
        self.cell.clone()
    }

    /// The key of every hash that outsiders can feed.
    pub fn secret(&self) -> Secret {
        self.secret
    }

    async fn make(&self, proposal: Proposal) -> Result<Written, WriteError> {
        let _one_at_a_time = self.writer.lock().await;
        let current = self.current();
        if let Some(expected) = proposal.expected.filter(|expected| *expected != current.version()) {
            return Err(WriteError::Stale { expected, actual: current.version() });
        }
        let Wanted::Change(change) = &proposal.wanted else {
            return Err(WriteError::Storage("this store keeps no earlier versions".into()));
        };
        let document = current.document().with(change)?;
        let version = current.version() + 1;
        // Durable first, in force second: what a check was decided by survives a crash.
        let stored = store(&self.database, version, &document, change);
        self.writable.store(stored.is_ok(), Ordering::Relaxed);
        stored.map_err(|e| WriteError::Storage(e.to_string()))?;
        self.cell.store(Arc::new(current.next(version, document)));
        tracing::info!(version, by = proposal.by, "policy changed");
        Ok(Written { version, pending: Vec::new() })
    }
}

impl PolicyStore for LocalStore {
    fn current(&self) -> Arc<Policy> {
        self.cell.load().clone()
    }

    fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    fn write(&self, proposal: Proposal) -> Writing<'_> {
        Box::pin(self.make(proposal))
    }

    fn history(&self) -> Vec<PastVersion> {
        Vec::new()
    }

    fn document_at(&self, version: u64) -> Result<Document, WriteError> {
        let current = self.current();
        if version == current.version() {
            return Ok(current.document().clone());
        }
        Err(WriteError::NoSuchVersion { version, oldest: current.version(), newest: current.version() })
    }

    fn audit(&self, _: Option<u64>, _: usize) -> Vec<AuditEntry> {
        Vec::new()
    }
}

fn open(place: Where) -> Result<Database, OpenError> {
    let storage = |e: &dyn std::fmt::Display| OpenError::Storage(e.to_string());
    match place {
        Where::Memory => Database::builder()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .map_err(|e| storage(&e)),
        Where::Directory(directory) => {
            std::fs::create_dir_all(&directory)
                .map_err(|e| OpenError::Storage(format!("{}: {e}", directory.display())))?;
            Database::create(directory.join("policy.redb")).map_err(|e| match e {
                redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(directory),
                e => storage(&e),
            })
        }
    }
}

type Stored = (u64, Document, Secret);

fn read(database: &Database) -> Result<Option<Stored>, OpenError> {
    let storage = |e: &dyn std::fmt::Display| OpenError::Storage(e.to_string());
    let txn = database.begin_read().map_err(|e| storage(&e))?;
    let numbers = match txn.open_table(NUMBERS) {
        Ok(numbers) => numbers,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(e) => return Err(storage(&e)),
    };
    let number = |name: &str| match numbers.get(name) {
        Ok(Some(value)) => Ok(value.value()),
        Ok(None) => Err(OpenError::Storage(format!("the store lacks its {name}"))),
        Err(e) => Err(storage(&e)),
    };
    let format = number("format")?;
    if format != FORMAT {
        return Err(OpenError::Storage(format!(
            "the store has format {format}, this program reads {FORMAT}"
        )));
    }
    let rows = txn.open_table(DOCUMENT).map_err(|e| storage(&e))?;
    let mut document = Map::new();
    let mut sections: [Map<String, Value>; SECTIONS.len()] = Default::default();
    for row in rows.iter().map_err(|e| storage(&e))? {
        let (key, value) = row.map_err(|e| storage(&e))?;
        let value: Value = serde_json::from_slice(value.value()).map_err(|e| storage(&e))?;
        match key.value().split_once('/') {
            Some((section, name)) => {
                if let Some(i) = SECTIONS.iter().position(|s| *s == section) {
                    sections[i].insert(name.into(), value);
                }
            }
            None => document.extend(value.as_object().cloned().unwrap_or_default()),
        }
    }
    document
        .extend(SECTIONS.iter().zip(sections).map(|(name, rows)| (name.to_string(), Value::Object(rows))));
    let text = Value::Object(document).to_string();
    let tree = Tree::from_json(text.as_bytes()).map_err(|fault| OpenError::Invalid(vec![fault]))?;
    let document = Document::read(&tree).map_err(OpenError::Invalid)?;
    Ok(Some((number("version")?, document, Secret::new(number("secret0")?, number("secret1")?))))
}

fn begin(database: &Database, document: &Document, secret: Secret) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        let (k0, k1) = secret.words();
        let mut numbers = txn.open_table(NUMBERS)?;
        for (name, value) in [("format", FORMAT), ("version", 1), ("secret0", k0), ("secret1", k1)] {
            numbers.insert(name, value)?;
        }
        write_all(&mut txn.open_table(DOCUMENT)?, document)?;
    }
    txn.commit()?;
    Ok(())
}

type Rows<'t> = redb::Table<'t, &'static str, &'static [u8]>;

/// Makes a change durable: the rows it touches, and the version.
fn store(database: &Database, version: u64, document: &Document, change: &Change) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    {
        let mut rows = txn.open_table(DOCUMENT)?;
        match change {
            Change::Replace(_)
            | Change::Enforce(_)
            | Change::PutLimit(_)
            | Change::PutLimits(_)
            | Change::DropExpired(_)
            | Change::PutEntries(_) => {
                rows.retain(|_, _| false)?;
                write_all(&mut rows, document)?;
            }
            Change::PutTier(name, _) | Change::DeleteTier(name) => {
                let row = document.tiers.get(name).map(|tier| tier.to_json());
                write(&mut rows, &format!("tiers/{name}"), row)?;
            }
            Change::PutTenant(id, _)
            | Change::DeleteTenant(id)
            | Change::PutTenantLimit(id, _)
            | Change::DeleteTenantLimit(id, _)
            | Change::DeleteTenantOverride(id, ..) => {
                let row = document.tenants.get(id).map(|tenant| tenant.to_json());
                write(&mut rows, &format!("tenants/{id}"), row)?;
            }
            Change::AddAccess(name, _) | Change::PutAccess(name, _) | Change::DeleteAccess(name) => {
                let row = document.access.get(name).map(|entry| entry.to_json());
                write(&mut rows, &format!("access/{name}"), row)?;
            }
        }
        txn.open_table(NUMBERS)?.insert("version", version)?;
    }
    txn.commit()?;
    Ok(())
}

fn write_all(rows: &mut Rows<'_>, document: &Document) -> Result<(), redb::Error> {
    let Value::Object(mut parts) = document.to_json() else {
        return Ok(());
    };
    for section in SECTIONS {
        let Some(Value::Object(entries)) = parts.remove(section) else {
            continue;
        };
        for (name, value) in entries {
            write(rows, &format!("{section}/{name}"), Some(value))?;
        }
    }
    write(rows, "head", Some(json!(parts)))
}

fn write(rows: &mut Rows<'_>, key: &str, value: Option<Value>) -> Result<(), redb::Error> {
    match value {
        Some(value) => drop(rows.insert(key, value.to_string().as_bytes())?),
        None => drop(rows.remove(key)?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::TenantId;
    use crate::policy::Tenant;

    fn open_in(directory: &std::path::Path) -> Result<LocalStore, OpenError> {
        LocalStore::open(Where::Directory(directory.into()), None, &Seed::from_number(1), || {
            Ok(crate::policy::builtin())
        })
    }

    fn put(id: &str, expected: Option<u64>) -> Proposal {
        let tenant = Tenant { tier: Name::new("basic"), ..Tenant::default() };
        let change = Change::PutTenant(TenantId::new(id).unwrap(), Box::new(tenant));
        Proposal { wanted: Wanted::Change(change), expected, by: "test".into() }
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = open_in(directory.path()).unwrap();
        let secret = store.secret().words();
        assert_eq!(store.write(put("acme", None)).await.unwrap().version, 2);
        assert_eq!(store.write(put("other", Some(2))).await.unwrap().version, 3);
        let document = store.current().document().clone();
        drop(store);
        let store = open_in(directory.path()).unwrap();
        assert_eq!(store.current().version(), 3);
        assert_eq!(*store.current().document(), document);
        assert_eq!(store.secret().words(), secret);
    }

    #[tokio::test]
    async fn a_stale_change_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = open_in(directory.path()).unwrap();
        store.write(put("acme", Some(1))).await.unwrap();
        let stale = store.write(put("other", Some(1))).await;
        assert!(matches!(stale, Err(WriteError::Stale { expected: 1, actual: 2 })));
        assert_eq!(store.current().document().tenants.len(), 1);
    }

    #[tokio::test]
    async fn replacing_the_document_leaves_no_old_row_behind() {
        let directory = tempfile::tempdir().unwrap();
        let store = open_in(directory.path()).unwrap();
        store.write(put("acme", None)).await.unwrap();
        let change = Change::Replace(Box::new(crate::policy::builtin()));
        store
            .write(Proposal { wanted: Wanted::Change(change), expected: None, by: "test".into() })
            .await
            .unwrap();
        drop(store);
        assert_eq!(*open_in(directory.path()).unwrap().current().document(), crate::policy::builtin());
    }

    #[test]
    fn a_directory_in_use_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let _first = open_in(directory.path()).unwrap();
        assert!(matches!(open_in(directory.path()), Err(OpenError::InUse(_))));
    }
}
