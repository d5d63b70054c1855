//! The allow and deny lists, entry by entry.

use utoipa::ToSchema;
use utoipa::openapi::path::HttpMethod::{Delete, Get, Post};
use utoipa::openapi::schema::ArrayBuilder;

use super::call::{Access, Answer, Call, ETag};
use super::check::ApiKey;
use super::document::{EntryName, IpRange, List, Reason, Sha256};
use super::policy::{DryRun, Pending, writes, written};
use super::words::{
    Client, Instant, NAME, PolicyVersion, Shown, TenantId, components, form, one_of, reference,
    whole,
};
use crate::check::NAME_BYTES_MAX;
use crate::http::access::{PAGE_DEFAULT, PAGE_MAX};

/// The tag of these calls.
pub const ACCESS: &str = "access";

components! {
    /// Entries on one page, at most.
    EntryPageLimit = whole(1..=PAGE_MAX).default(Some(serde_json::json!(PAGE_DEFAULT))), 100;
    /// Where the next page begins: what `next` said, unchanged. Empty is the beginning.
    EntryCursor = form(&format!("^([A-Za-z0-9._-]{{1,{NAME_BYTES_MAX}}})?$"), "cursor"), "office";
    /// Entries of one list only.
    ListFilter = one_of(["allow", "deny"]), "deny";
    /// The entries on a page.
    EntryList [ListedEntry] = ArrayBuilder::new().items(reference::<ListedEntry>()).max_items(Some(PAGE_MAX as usize)),
        [{"id": "office", "list": "allow", "ip": "192.0.2.0/24", "reason": "our own"}];
    /// Where something is to be found.
    Location = form(&format!("^/v1/access/{}", &NAME[1..]), "uri-reference"), "/v1/access/office";
}

/// Entries as they come in and as they are shown: whom they name, then what all have in common.
macro_rules! entries {
    ($($(#[doc = $doc:literal])+ $new:ident $listed:ident { $(#[doc = $of:literal])+ $field:ident: $type:ty })+) => {$(
        $(#[doc = $doc])+
        #[derive(ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $new {
            /// What it is to be called; if not said, an id is made. One that is taken is refused.
            id: Option<EntryName>,
            /// Which list. Who is on both is denied.
            list: List,
            $(#[doc = $of])+
            $field: $type,
            /// Shown in answers that the entry decides.
            reason: Option<Reason>,
            /// From then on the entry doesn't count, and is cleaned up. Has to be in the future.
            expires: Option<Instant>,
        }

        $(#[doc = $doc])+
        #[derive(ToSchema)]
        pub struct $listed {
            /// What it is called.
            id: EntryName,
            /// Which list.
            list: List,
            $(#[doc = $of])+
            $field: $type,
            /// Shown in answers that the entry decided; empty where none was given.
            reason: Reason,
            /// The name of the token that added it; absent where a policy document put it there
            /// without.
            #[schema(nullable = false)]
            added_by: Option<Reason>,
            /// When it was added; absent where a policy document put it there without.
            #[schema(nullable = false)]
            added_at: Option<Instant>,
            /// From then on it doesn't count.
            #[schema(nullable = false)]
            expires: Option<Instant>,
        }
    )+};
}

entries! {
    /// An entry for a tenant.
    NewTenantEntry ListedTenantEntry {
        /// The tenant it names.
        tenant: TenantId
    }
    /// An entry for a client.
    NewClientEntry ListedClientEntry {
        /// The client it names, whatever its tenant.
        client: Client
    }
    /// An entry for addresses.
    NewIpEntry ListedIpEntry {
        /// The address or range it names.
        ip: IpRange
    }
    /// An entry for an API key, by its digest.
    NewDigestEntry ListedDigestEntry {
        /// The API key it names.
        api_key_sha256: Sha256
    }
}

/// An entry for an API key, which is hashed as it arrives and kept nowhere.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKeyEntry {
    /// What it is to be called; if not said, an id is made. One that is taken is refused.
    id: Option<EntryName>,
    /// Which list. Who is on both is denied.
    list: List,
    /// The API key it names; shown from then on as `api_key_sha256`.
    api_key: ApiKey,
    /// Shown in answers that the entry decides.
    reason: Option<Reason>,
    /// From then on the entry doesn't count, and is cleaned up. Has to be in the future.
    expires: Option<Instant>,
}

/// A new entry of the allow or deny list. It names exactly one of a tenant, a client, addresses, an
/// API key. Who added it and when is set by the node: `added_by` and `added_at` are refused here.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({"list": "deny", "ip": "198.51.100.0/24", "reason": "abuse", "expires": "2100-01-01T00:00:00Z"})))]
pub enum NewEntry {
    Tenant(NewTenantEntry),
    Client(NewClientEntry),
    Ip(NewIpEntry),
    Digest(NewDigestEntry),
    ApiKey(NewApiKeyEntry),
}

/// An entry of the allow or deny list, with its id.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({
    "id": "abuse-1", "list": "deny", "ip": "198.51.100.0/24", "reason": "abuse", "added_by": "ops",
    "added_at": "2026-01-31T12:00:00Z", "expires": "2100-01-01T00:00:00Z"
})))]
pub enum ListedEntry {
    Tenant(ListedTenantEntry),
    Client(ListedClientEntry),
    Ip(ListedIpEntry),
    Digest(ListedDigestEntry),
}

/// One page of entries, in the order of their ids.
#[derive(ToSchema)]
pub struct EntryPage {
    /// The entries. One that has expired is listed until it is cleaned up.
    entries: EntryList,
    /// What `after` takes for the next page; null on the last.
    #[schema(required)]
    next: Option<EntryName>,
}

/// An entry that was added.
#[derive(ToSchema)]
#[schema(examples(json!({"id": "5f3c0a1be2d47796", "version": 13, "pending": []})))]
pub struct EntryAdded {
    /// What it is called.
    id: EntryName,
    /// The version that it made.
    version: PolicyVersion,
    /// Where it isn't in force yet.
    pending: Pending,
}

/// The calls.
pub fn calls() -> Vec<Call> {
    let entry = |call: Call| call.part::<EntryName>("id", "The entry.");
    vec![
        Call::new(Get, "/v1/access", "listAccess", ACCESS)
            .open_to(Access::See)
            .does(
                "List the entries",
                "In the order of their ids. Follow `next` until it is null; an entry that comes or \
                 goes meanwhile may be missed.",
            )
            .query::<EntryPageLimit>("limit", "How many.")
            .query::<EntryCursor>("after", "Where to go on.")
            .query::<ListFilter>("list", "Of which list; of both if not said.")
            .answers(200, Answer::json::<EntryPage>("A page.").versioned()),
        writes(Call::new(Post, "/v1/access", "addAccess", ACCESS))
            .does(
                "Add an entry",
                "Who asked and when stands with it from then on. Entries that have expired are \
                 cleaned up by the cluster itself.",
            )
            .takes::<NewEntry>("The entry; at most `batch_body_bytes` (1 MiB by default).")
            .answers(
                201,
                Answer::json::<EntryAdded>("The entry is in force.")
                    .header::<ETag>("ETag", "The version of the policy that was made.")
                    .header::<Location>("Location", "Where the entry is."),
            )
            .answers(200, Answer::json::<DryRun>("With `dry_run`: what would change.")),
        entry(Call::new(Get, "/v1/access/{id}", "getAccess", ACCESS))
            .open_to(Access::See)
            .does("See an entry", "As the policy has it, with its id.")
            .answers(200, Answer::json::<ListedEntry>("The entry.").versioned())
            .fails(&[404]),
        entry(writes(Call::new(Delete, "/v1/access/{id}", "deleteAccess", ACCESS)))
            .does("Delete an entry", "Whom it named is judged as everybody from the next check on.")
            .answers(200, written())
            .fails(&[404]),
    ]
}
