//! Members and bodies of a check that are wrong, with the path of each one's fault.

use super::CANARY;

/// Members of a check that are wrong, and the path of the fault.
pub(super) fn bad_members() -> Vec<(String, &'static str)> {
    let long = |count: usize| "x".repeat(count);
    let mut table: Vec<(String, &str)> = [
        // Numbers that are none, or not these.
        (r#""cost":0"#, "cost"),
        (r#""cost":-1"#, "cost"),
        (r#""cost":-0.5"#, "cost"),
        (r#""cost":1.5"#, "cost"),
        (r#""cost":1.0"#, "cost"),
        (r#""cost":1e3"#, "cost"),
        (r#""cost":1e30"#, "cost"),
        (r#""cost":1e309"#, "cost"),
        (r#""cost":-1e309"#, "cost"),
        (r#""cost":NaN"#, "cost"),
        (r#""cost":Infinity"#, "cost"),
        (r#""cost":4294967296"#, "cost"),
        (r#""cost":18446744073709551616"#, "cost"),
        (r#""cost":340282366920938463463374607431768211456"#, "cost"),
        (r#""cost":"3""#, "cost"),
        (r#""cost":true"#, "cost"),
        (r#""cost":[1]"#, "cost"),
        (r#""cost":{}"#, "cost"),
        (r#""cost":01"#, "cost"),
        (r#""cost":+1"#, "cost"),
        (r#""deadline_ms":0"#, "deadline_ms"),
        (r#""deadline_ms":-100"#, "deadline_ms"),
        (r#""deadline_ms":60001"#, "deadline_ms"),
        (r#""deadline_ms":"1s""#, "deadline_ms"),
        (r#""wait_ms":-1"#, "wait_ms"),
        (r#""wait_ms":60001"#, "wait_ms"),
        (r#""wait_ms":0.1"#, "wait_ms"),
        // Text that is none, or not this.
        (r#""tier":"""#, "tier"),
        (r#""tier":"a b""#, "tier"),
        (r#""tier":7"#, "tier"),
        (r#""client":"""#, "client"),
        (r#""client":"x\ny""#, "client"),
        (r#""client":"x\u0000""#, "client"),
        (r#""client":"x\u0085""#, "client"),
        (r#""client":7"#, "client"),
        (r#""client":["c"]"#, "client"),
        (r#""action":"""#, "action"),
        (r#""action":"\r\nFORGED: yes""#, "action"),
        (r#""action":false"#, "action"),
        (r#""method":"""#, "method"),
        (r#""method":"GE T""#, "method"),
        (r#""method":"GET\r\n""#, "method"),
        (r#""path":"x""#, "path"),
        (r#""path":"""#, "path"),
        (r#""path":"/\u0000""#, "path"),
        (r#""path":9"#, "path"),
        (r#""ip":"1.2.3""#, "ip"),
        (r#""ip":"1.2.3.256""#, "ip"),
        (r#""ip":"1.2.3.4:80""#, "ip"),
        (r#""ip":"::1%lo""#, "ip"),
        (r#""ip":"""#, "ip"),
        (r#""ip":16909060"#, "ip"),
        (r#""request_id":"""#, "request_id"),
        (r#""request_id":"a b""#, "request_id"),
        (r#""request_id":"a\u0000""#, "request_id"),
        (r#""request_id":5"#, "request_id"),
        (r#""api_key":"""#, "api_key"),
        (r#""api_key":"canary-key-c0ffee\n""#, "api_key"),
        (r#""api_key":["canary-key-c0ffee"]"#, "api_key"),
        (r#""api_key":{"canary-key-c0ffee":1}"#, "api_key"),
        // Objects and lists.
        (r#""attributes":[]"#, "attributes"),
        (r#""attributes":"region""#, "attributes"),
        (r#""attributes":{"a b":"x"}"#, r#"attributes."a b""#),
        (r#""attributes":{"":"x"}"#, r#"attributes."""#),
        (r#""attributes":{"region":5}"#, "attributes.region"),
        (r#""attributes":{"region":""}"#, "attributes.region"),
        (r#""attributes":{"region":"eu","region":"us"}"#, "attributes.region"),
        (r#""permit":5"#, "permit"),
        (r#""permit":true"#, "permit"),
        (r#""permit":{"ttl_ms":999}"#, "permit.ttl_ms"),
        (r#""permit":{"ttl_ms":3600001}"#, "permit.ttl_ms"),
        (r#""permit":{"ttl_ms":-1}"#, "permit.ttl_ms"),
        (r#""permit":{"ttl":1000}"#, "permit.ttl"),
        (r#""limits":{}"#, "limits"),
        (r#""limits":"none""#, "limits"),
        (r#""limits":[5]"#, "limits[0]"),
        (r#""limits":[{}]"#, "limits[0].name"),
        (r#""limits":[{}]"#, "limits[0].algorithm"),
        // Members that nobody knows, or that come twice.
        (r#""coost":1"#, "coost"),
        (r#""Cost":1"#, "Cost"),
        (r#""__proto__":{}"#, "__proto__"),
        (r#""a.b":1"#, r#""a.b""#),
        (r#""x\r\nFORGED":1"#, r#""x\r\nFORGED""#),
        (r#""cost":1,"cost":1"#, "cost"),
        (r#""tenant":"a""#, "tenant"),
    ]
    .iter()
    .map(|(text, path)| (text.to_string(), *path))
    .collect();
    table.extend([
        (format!(r#""tier":"{}""#, long(65)), "tier"),
        (format!(r#""client":"{}""#, long(257)), "client"),
        (format!(r#""action":"{}""#, long(257)), "action"),
        (format!(r#""method":"{}""#, long(33)), "method"),
        (format!(r#""path":"/{}""#, long(2048)), "path"),
        (format!(r#""request_id":"{}""#, long(257)), "request_id"),
        (format!(r#""api_key":"{}""#, CANARY.repeat(200)), "api_key"),
    ]);
    let many: Vec<_> = (0..17).map(|i| format!(r#""k{i}":"v""#)).collect();
    table.push((format!(r#""attributes":{{{}}}"#, many.join(",")), "attributes"));
    let limit =
        |i| format!(r#"{{"name":"l{i}","algorithm":"fixed_window","limit":1,"window":"1s"}}"#);
    let many: Vec<_> = (0..17).map(limit).collect();
    table.push((format!(r#""limits":[{}]"#, many.join(",")), "limits"));
    let twice = format!(r#""limits":[{},{}]"#, limit(1), limit(1));
    table.push((twice, "limits[1].name"));
    for (limit, path) in bad_limits() {
        table.push((format!(r#""limits":[{limit}]"#), in_list(path)));
    }
    table
}

/// `limits[0].` and the path; leaked, as a table's constants are.
pub(super) fn in_list(path: &str) -> &'static str {
    format!("limits[0].{path}").leak()
}

/// Limits that are wrong, and the path of the fault within each.
pub(super) fn bad_limits() -> Vec<(String, &'static str)> {
    let named = |rest: &str| format!(r#"{{"name":"n",{rest}}}"#);
    let of = |algorithm: &str, rest: &str| named(&format!(r#""algorithm":"{algorithm}",{rest}"#));
    vec![
        (named(r#""limit":1,"window":"1s""#), "algorithm"),
        (of("leaky_bukket", r#""rate":"1/s""#), "algorithm"),
        (of("", r#""rate":"1/s""#), "algorithm"),
        (named(r#""algorithm":7"#), "algorithm"),
        (of("fixed_window", r#""limit":1"#), "window"),
        (of("fixed_window", r#""window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":0,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":-1,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":1.5,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":1e30,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":"9","window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":9999999999999999,"window":"1s""#), "limit"),
        (of("fixed_window", r#""limit":1,"window":"0s""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"5 mins""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"-1s""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"1.5s""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"1S""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"""#), "window"),
        (of("fixed_window", r#""limit":1,"window":60"#), "window"),
        (of("fixed_window", r#""limit":1,"window":"99999999999999999999w""#), "window"),
        (of("fixed_window", r#""limit":1,"window":"11000d""#), "window"),
        (of("sliding_window", r#""limit":1,"window":"٣s""#), "window"),
        (of("sliding_log", r#""limit":10001,"window":"1m""#), "limit"),
        (of("fixed_window", r#""limit":1,"window":"1s","rate":"1/s""#), "rate"),
        (of("token_bucket", r#""burst":5"#), "rate"),
        (of("token_bucket", r#""rate":"5""#), "rate"),
        (of("token_bucket", r#""rate":"0/s""#), "rate"),
        (of("token_bucket", r#""rate":"-5/s""#), "rate"),
        (of("token_bucket", r#""rate":"5/0s""#), "rate"),
        (of("token_bucket", r#""rate":"5/s/s""#), "rate"),
        (of("token_bucket", r#""rate":"1.5/s""#), "rate"),
        (of("token_bucket", r#""rate":"five/s""#), "rate"),
        (of("token_bucket", r#""rate":"5/fortnight""#), "rate"),
        (of("token_bucket", r#""rate":5"#), "rate"),
        (of("token_bucket", r#""rate":"5/s","burst":0"#), "burst"),
        (of("token_bucket", r#""rate":"5/s","burst":-1"#), "burst"),
        (of("token_bucket", r#""rate":"5/s","burst":2,"initial":3"#), "initial"),
        (of("leaky_bucket", r#""rate":"5/s","burst":0.5"#), "burst"),
        (of("quota", r#""limit":1,"period":"century""#), "period"),
        (of("quota", r#""limit":1"#), "period"),
        (of("quota", r#""period":"day""#), "limit"),
        (of("token_bucket", r#""rate":"5/s","per":"tenant""#), "per"),
        (of("token_bucket", r#""rate":"5/s","per":["planet"]"#), "per[0]"),
        (of("token_bucket", r#""rate":"5/s","per":["tenant","tenant"]"#), "per"),
        (of("token_bucket", r#""rate":"5/s","per":["attribute:"]"#), "per[0]"),
        (of("token_bucket", r#""rate":"5/s","match":{"planet":"x"}"#), "match.planet"),
        (of("token_bucket", r#""rate":"5/s","match":{"action":""}"#), "match.action"),
        (of("token_bucket", r#""rate":"5/s","enforce":"yes""#), "enforce"),
        (of("token_bucket", r#""rate":"5/s","burts":5"#), "burts"),
        (of("token_bucket", r#""rate":"5/s","rate":"6/s""#), "rate"),
    ]
}

/// Bodies that are no JSON, or whose JSON is no check; all of them faults of the whole or of
/// `tenant`.
pub(super) fn bad_bodies() -> Vec<(Vec<u8>, &'static str)> {
    let deep = |open: &str, close: &str| [open.repeat(300), close.repeat(300)].concat();
    let mut table: Vec<(Vec<u8>, &str)> = [
        ("", ""),
        (" ", ""),
        ("null", ""),
        ("true", ""),
        ("5", ""),
        ("NaN", ""),
        (r#""tenant""#, ""),
        ("[]", ""),
        (r#"[{"tenant":"a"}]"#, ""),
        ("{", ""),
        (r#"{"tenant":"a""#, ""),
        (r#"{"tenant":"a",}"#, ""),
        (r#"{"tenant":"a"} {"tenant":"a"}"#, ""),
        (r#"{"tenant":"a"},"#, ""),
        (r#"{'tenant':'a'}"#, ""),
        (r#"{tenant:"a"}"#, ""),
        (r#"{"tenant":"a","cost":0x10}"#, ""),
        ("tenant=a&cost=1", ""),
        ("<check tenant=\"a\"/>", ""),
        ("\u{feff}{\"tenant\":\"a\"}", ""),
        ("{}", "tenant"),
        (r#"{"cost":1}"#, "tenant"),
        (r#"{"tenant":null}"#, "tenant"),
        (r#"{"tenant":""}"#, "tenant"),
        (r#"{"tenant":5}"#, "tenant"),
        (r#"{"tenant":["a"]}"#, "tenant"),
        (r#"{"tenant":{"id":"a"}}"#, "tenant"),
        (r#"{"tenant":"a b"}"#, "tenant"),
        (r#"{"tenant":"a/b"}"#, "tenant"),
        (r#"{"tenant":"a@b"}"#, "tenant"),
        (r#"{"tenant":"*"}"#, "tenant"),
        (r#"{"tenant":"ä"}"#, "tenant"),
        (r#"{"tenant":"a\u0000"}"#, "tenant"),
        (r#"{"tenant":"a\r\nFORGED"}"#, "tenant"),
        (r#"{"tenant":"a\ud800"}"#, "tenant"),
        (r#"{"tenant":"a","tenant":"b"}"#, "tenant"),
    ]
    .iter()
    .map(|(text, path)| (text.as_bytes().to_vec(), *path))
    .collect();
    table.extend([
        (format!(r#"{{"tenant":"{}"}}"#, "a".repeat(129)).into_bytes(), "tenant"),
        (b"{\"tenant\":\"a\nb\"}".to_vec(), "tenant"),
        (b"{\"tenant\":\"a\0\"}".to_vec(), "tenant"),
        (b"{\"tenant\":\"\xff\xfe\"}".to_vec(), "tenant"),
        // An overlong spelling of `a`, and half of a surrogate pair.
        (b"{\"tenant\":\"\xc1\xa1\"}".to_vec(), "tenant"),
        (b"{\"tenant\":\"\xed\xa0\x80\"}".to_vec(), "tenant"),
        (b"\0\0\0\0".to_vec(), ""),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), ""),
    ]);
    for body in [deep("[", "]"), deep(r#"{"tenant":"#, "}")] {
        table.push((body.into_bytes(), ANYWHERE));
    }
    table
}

/// Stands for a path of which no more is asked than that there is a fault.
pub(super) const ANYWHERE: &str = "anywhere";
