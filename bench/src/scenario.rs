//! What is asked, of whom, and under which limits: one line of the benchmark's table each.
//!
//! Every scenario starts a node of its own, whose policy has the scenario's tier as its default
//! tier, so that no request names one and all scenarios resolve their limits the same way. The
//! limits are far above what any machine reaches: a check costs the whole arithmetic and is
//! admitted. The tier `denied` is the opposite, one unit a day.
//!
//! `uniform` is `hot`'s counterpart and has 100,000 tenants whatever was asked for; with the
//! default `--tenants` it is the load of `two-limits` over again, and what lies between the two is
//! the noise of the run.

use std::ops::Range;

use clap::ValueEnum;

/// Tenant ids have this many digits, so that a request is aimed at another tenant without changing
/// its length.
const TENANT_DIGITS: usize = 8;
/// The most tenants that a run may have: the target for many tenants, and what the digits allow ten
/// times over.
pub const TENANTS_MAX: u32 = 10_000_000;
const UNIFORM_TENANTS: u32 = 100_000;

/// The name of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One limit per tenant.
    OneLimit,
    /// Two limits per tenant: the headline.
    TwoLimits,
    /// Two limits, a single tenant.
    Hot,
    /// Two limits, 100,000 tenants.
    Uniform,
    /// One limit that was used up before.
    Denials,
    /// Two limits, ten checks to a call.
    #[value(name = "batch-10")]
    Batch10,
    /// Two limits, a hundred checks to a call.
    #[value(name = "batch-100")]
    Batch100,
}

/// The tiers of the policy that a node is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    One,
    Two,
    /// Two limits, of which one remembers for a day.
    Day,
    Denied,
}

/// What a call asks: one check, what it would be answered, or several in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Peek,
    Single,
    Batch(usize),
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::OneLimit => "one-limit",
            Self::TwoLimits => "two-limits",
            Self::Hot => "hot",
            Self::Uniform => "uniform",
            Self::Denials => "denials",
            Self::Batch10 => "batch-10",
            Self::Batch100 => "batch-100",
        }
    }

    pub fn tier(self) -> Tier {
        match self {
            Self::OneLimit => Tier::One,
            Self::Denials => Tier::Denied,
            Self::TwoLimits | Self::Hot | Self::Uniform | Self::Batch10 | Self::Batch100 => {
                Tier::Two
            }
        }
    }

    pub fn call(self) -> Call {
        match self {
            Self::Batch10 => Call::Batch(10),
            Self::Batch100 => Call::Batch(100),
            _ => Call::Single,
        }
    }

    /// How many tenants the checks spread over, where the command line asked for `asked`.
    pub fn tenants(self, asked: u32) -> u32 {
        match self {
            Self::Hot => 1,
            Self::Uniform => UNIFORM_TENANTS,
            _ => asked,
        }
    }
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Day => "day",
            Self::Denied => "denied",
        }
    }

    /// How many limits a decision lists.
    pub fn limits(self) -> usize {
        match self {
            Self::One | Self::Denied => 1,
            Self::Two | Self::Day => 2,
        }
    }
}

impl Call {
    pub fn checks(self) -> usize {
        match self {
            Self::Peek | Self::Single => 1,
            Self::Batch(checks) => checks,
        }
    }
}

/// The policy document of a node that is to apply `tier` to every tenant.
pub fn policy(tier: Tier) -> String {
    format!(
        r#"default_tier = "{}"

[tiers.one]
limits = [
    {{ name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1000000/s", burst = 1000000 }},
]

[tiers.two]
limits = [
    {{ name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1000000/s", burst = 1000000 }},
    {{ name = "minute", per = ["tenant"], algorithm = "sliding_window", limit = 100000000, window = "1m" }},
]

[tiers.day]
limits = [
    {{ name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1000000/s", burst = 1000000 }},
    {{ name = "day", per = ["tenant"], algorithm = "sliding_window", limit = 1000000000, window = "1d" }},
]

[tiers.denied]
limits = [
    {{ name = "second", per = ["tenant"], algorithm = "token_bucket", rate = "1/1d", burst = 1 }},
]
"#,
        tier.name()
    )
}

/// The bytes of one call, built once; only the tenants' digits change between two uses.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    tenants: Vec<Range<usize>>,
}

impl Request {
    pub fn new(call: Call) -> Self {
        let mut body = Vec::new();
        let mut tenants = Vec::new();
        let path = match call {
            Call::Peek => {
                write_check(&mut body, &mut tenants);
                "/v1/peek"
            }
            Call::Single => {
                write_check(&mut body, &mut tenants);
                "/v1/check"
            }
            Call::Batch(checks) => {
                body.extend_from_slice(br#"{"mode":"independent","checks":["#);
                for index in 0..checks {
                    if index > 0 {
                        body.push(b',');
                    }
                    write_check(&mut body, &mut tenants);
                }
                body.extend_from_slice(b"]}");
                "/v1/check/batch"
            }
        };
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        for digits in &mut tenants {
            *digits = digits.start + bytes.len()..digits.end + bytes.len();
        }
        bytes.append(&mut body);
        Self { bytes, tenants }
    }

    /// Puts the next tenant that `pick` names into each check. Below `TENANTS_MAX`.
    pub fn aim(&mut self, mut pick: impl FnMut() -> u32) {
        for digits in &self.tenants {
            let mut rest = pick();
            for byte in self.bytes[digits.clone()].iter_mut().rev() {
                *byte = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn write_check(body: &mut Vec<u8>, tenants: &mut Vec<Range<usize>>) {
    body.extend_from_slice(br#"{"tenant":"t-"#);
    let start = body.len();
    body.extend_from_slice(&[b'0'; TENANT_DIGITS]);
    tenants.push(start..body.len());
    body.extend_from_slice(br#"","client":"user-1","action":"api_call","cost":1}"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_aimed_without_changing_its_length() {
        let mut request = Request::new(Call::Single);
        let length = request.bytes().len();
        request.aim(|| 1234);
        let text = std::str::from_utf8(request.bytes()).unwrap();
        assert!(text.starts_with("POST /v1/check HTTP/1.1\r\n"), "{text}");
        assert!(text.ends_with(
            r#"{"tenant":"t-00001234","client":"user-1","action":"api_call","cost":1}"#
        ));
        assert_eq!(text.len(), length);
    }

    #[test]
    fn every_check_of_a_batch_gets_its_own_tenant() {
        let mut request = Request::new(Call::Batch(10));
        let mut next = TENANTS_MAX - 10;
        request.aim(|| {
            next += 1;
            next - 1
        });
        let text = std::str::from_utf8(request.bytes()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let tenants: Vec<_> = body["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| check["tenant"].as_str().unwrap())
            .collect();
        assert_eq!(tenants.len(), 10);
        assert_eq!(tenants[0], "t-09999990");
        assert_eq!(tenants[9], "t-09999999");
    }

    #[test]
    fn the_policy_names_the_tier_as_the_default() {
        for tier in Tier::value_variants() {
            let document = policy(*tier);
            assert!(document.starts_with(&format!("default_tier = \"{}\"", tier.name())));
            assert!(document.contains(&format!("[tiers.{}]", tier.name())));
        }
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::value_variants() {
            assert_eq!(scenario.to_possible_value().unwrap().get_name(), scenario.name());
        }
    }
}
