//! What a node uses up: its caps, its disk, its certificates; and its clock, which alerts compare.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::Telemetry;
use super::{Families, Scrape, seconds};
use crate::config::Limits;

/// Levels of what runs out, beside those that the shards report.
#[derive(Clone, Debug, Default)]
pub struct ResourceLevels {
    /// The caps, as configured.
    pub limits: Limits,
    /// Free bytes and size of the file system of the data directory; `None` where the node has no
    /// data directory, or the system does not say.
    pub disk: Option<DiskLevels>,
    /// Each use of a certificate with the Unix time in seconds at which the certificate expires.
    pub certificates: Vec<(&'static str, i64)>,
}

/// A file system, as `statvfs` reports it.
#[derive(Clone, Copy, Debug)]
pub struct DiskLevels {
    /// Bytes that a process without privileges may still write.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
}

/// Asks the file system of the data directory, on one thread at a time: a disk that hangs holds no
/// more than that one, however often metrics are scraped.
#[derive(Debug)]
pub struct DiskProbe {
    dir: PathBuf,
    is_asked: AtomicBool,
}

impl DiskProbe {
    /// Asks the file system that holds `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, is_asked: AtomicBool::new(false) }
    }

    /// Returns the levels of the file system; none where it does not say, or where an earlier
    /// question has not been answered yet. May wait for as long as the disk does.
    pub fn levels(&self) -> Option<DiskLevels> {
        if self.is_asked.swap(true, Ordering::Acquire) {
            return None;
        }
        let levels = rustix::fs::statvfs(&self.dir).ok();
        self.is_asked.store(false, Ordering::Release);
        let levels = levels?;
        let bytes = |blocks: u64| blocks.saturating_mul(levels.f_frsize);
        Some(DiskLevels { free: bytes(levels.f_bavail), size: bytes(levels.f_blocks) })
    }
}

impl Families {
    pub(super) fn resources(
        &mut self,
        telemetry: &Telemetry,
        scrape: &Scrape,
    ) -> Result<(), prometheus::Error> {
        let (levels, limits) = (&scrape.observed.reading.levels, &scrape.resources.limits);
        let connections = telemetry.connections().load(Ordering::Relaxed);
        let caps = [
            ("connections", connections as f64, limits.connections),
            (
                "named_tenants",
                (levels.tenants - levels.unknown_tenants) as f64,
                limits.named_tenants,
            ),
            ("unknown_tenants", levels.unknown_tenants as f64, limits.unknown_tenants),
            ("keys", levels.buckets as f64, limits.keys),
            ("shared_keys", levels.shared_buckets as f64, limits.shared_keys),
            ("request_ids", levels.request_ids as f64, limits.request_ids),
        ];
        let of = |cap: &str| [cap.to_string()];
        self.gauges(
            "tidegate_cap",
            "The most that the node holds, by the name of the cap in [limits].",
            ["cap"],
            caps.map(|(cap, _, most)| (of(cap), most as f64)),
        )?;
        self.gauges(
            "tidegate_cap_used",
            "How much of each cap is in use.",
            ["cap"],
            caps.map(|(cap, used, _)| (of(cap), used)),
        )?;
        let disk = scrape.resources.disk;
        for (name, help, bytes) in [
            (
                "tidegate_disk_free_bytes",
                "Bytes that the node may still write to the file system of its data directory.",
                disk.map(|disk| disk.free),
            ),
            (
                "tidegate_disk_size_bytes",
                "Bytes of the file system of the data directory.",
                disk.map(|disk| disk.size),
            ),
        ] {
            self.gauges(name, help, [], bytes.map(|bytes| ([], bytes as f64)))?;
        }
        self.gauges(
            "tidegate_certificate_expiry_seconds",
            "Unix time at which the certificate that the node shows expires, by use.",
            ["use"],
            scrape.resources.certificates.iter().map(|(shown, at)| (of(shown), *at as f64)),
        )?;
        self.gauge(
            "tidegate_time_seconds",
            "Unix time by the node's clock, to compare nodes.",
            seconds(telemetry.wall().into()),
        )
    }
}
