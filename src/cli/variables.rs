//! The environment variables that the program reads, and a word about those that it does not.
//!
//! Connection and node settings have variables. What is done once, or can't be undone, has none: a
//! variable that somebody exported yesterday must not decide it. `TIDEGATE_DATADIR` would be
//! ignored without a word, so it is warned of.

use std::collections::BTreeSet;

use tidegate::config::{ADMIN_VARIABLE, PEER_VARIABLE};
use tidegate::input::nearest;

/// What all of them begin with.
const PREFIX: &str = "TIDEGATE_";

/// Every variable that the program reads by itself. A configuration may name others with `env:`.
const KNOWN: [&str; 21] = [
    "TIDEGATE_CONFIG",
    "TIDEGATE_NODE",
    "TIDEGATE_HTTP",
    "TIDEGATE_PEER",
    "TIDEGATE_HTTP_ADVERTISE",
    "TIDEGATE_PEER_ADVERTISE",
    "TIDEGATE_DATA_DIR",
    "TIDEGATE_JOIN",
    "TIDEGATE_WEIGHT",
    ADMIN_VARIABLE,
    "TIDEGATE_INSECURE_NO_AUTH",
    PEER_VARIABLE,
    "TIDEGATE_HTTP_HOSTS",
    "TIDEGATE_LOG",
    "TIDEGATE_LOG_FORMAT",
    "TIDEGATE_STOP_AT_EOF",
    "TIDEGATE_URL",
    "TIDEGATE_TOKEN",
    "TIDEGATE_CACERT",
    "TIDEGATE_OUTPUT",
    "TIDEGATE_API_KEY",
];

/// Of the variables that nodes of `tidegate dev` share with it.
pub const FOR_DEV_NODES: [&str; 2] = ["TIDEGATE_LOG", "TIDEGATE_LOG_FORMAT"];

/// The names of the process's variables that begin as the program's do.
pub fn ours() -> impl Iterator<Item = String> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(PREFIX))
}

/// A warning for each of `names` that the program does not read and the configuration, which names
/// `referred_to`, neither.
pub fn warnings(
    names: impl Iterator<Item = String>,
    referred_to: &BTreeSet<String>,
) -> Vec<String> {
    let is_read = |name: &str| KNOWN.contains(&name) || referred_to.contains(name);
    let unread = names.filter(|name| !is_read(name) && !is_of_a_service(name));
    let mut warnings: Vec<_> = unread
        .map(|name| {
            let hint =
                nearest(&name, KNOWN.into_iter()).map(|known| format!("; did you mean {known}?"));
            format!("the environment variable {name} is not read{}", hint.unwrap_or_default())
        })
        .collect();
    warnings.sort();
    warnings
}

/// Whether Kubernetes sets a variable of that name in every container beside a service called
/// `tidegate` or `tidegate-…`: `TIDEGATE_SERVICE_HOST`, `TIDEGATE_PORT`,
/// `TIDEGATE_PEERS_PORT_7070_TCP_ADDR`.
fn is_of_a_service(name: &str) -> bool {
    let is_port = |rest: &str| {
        let number = rest.split('_').next().unwrap_or_default();
        rest.is_empty() || !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    };
    let port =
        name.rsplit_once("_PORT").is_some_and(|(_, rest)| is_port(rest.trim_start_matches('_')));
    name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(names: &[&str]) -> Vec<String> {
        let referred_to = BTreeSet::from(["TIDEGATE_SECRET_OF_CI".to_string()]);
        warnings(names.iter().map(|name| name.to_string()), &referred_to)
    }

    #[test]
    fn a_variable_that_is_not_read_is_warned_of_with_the_nearest() {
        let warnings = warned(&["TIDEGATE_DATADIR", "TIDEGATE_RECOVER_FORCE", "TIDEGATE_CONFIG"]);
        assert_eq!(
            warnings,
            [
                "the environment variable TIDEGATE_DATADIR is not read; did you mean \
                 TIDEGATE_DATA_DIR?",
                "the environment variable TIDEGATE_RECOVER_FORCE is not read",
            ]
        );
    }

    #[test]
    fn what_a_configuration_names_or_kubernetes_sets_is_not_warned_of() {
        let set = [
            "TIDEGATE_SECRET_OF_CI",
            "TIDEGATE_SERVICE_HOST",
            "TIDEGATE_SERVICE_PORT_HTTP",
            "TIDEGATE_PORT",
            "TIDEGATE_PORT_7070_TCP",
            "TIDEGATE_PEERS_PORT_7170_TCP_ADDR",
        ];
        assert_eq!(warned(&set), [""; 0]);
        assert_eq!(warned(&["TIDEGATE_PORT_HTTP"]).len(), 1);
    }
}
