"""What JSON Schema can't say of valid requests: texts whose value matters, and members that depend on each other."""

import datetime

import schemathesis
import tomli_w
from hypothesis import strategies as st

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
TEN_YEARS = 3_660 * UNITS["d"]


def text_of_bytes(most):
    plain = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
    return plain.filter(lambda text: len(text.encode()) <= most)


@st.composite
def durations(draw):
    unit = draw(st.sampled_from(sorted(UNITS)))
    return f"{draw(st.integers(1, TEN_YEARS // UNITS[unit]))}{unit}"


@st.composite
def rates(draw):
    per = draw(st.one_of(st.sampled_from(sorted(UNITS)), durations()))
    return f"{draw(st.integers(1, 10**15 - 1))}/{per}"


@st.composite
def ranges(draw):
    version = draw(st.sampled_from([4, 6]))
    address = str(draw(st.ip_addresses(v=version)))
    bits = draw(st.one_of(st.none(), st.integers(0, 32 if version == 4 else 128)))
    return address if bits is None else f"{address}/{bits}"


FORMATS = {
    "duration-text": durations(),
    "rate-text": rates(),
    "decimal-text": st.integers(1, 10**12).map(lambda n: f"{n // 10**6}.{n % 10**6:06}"),
    "date": st.dates(datetime.date(1970, 1, 1), datetime.date(2500, 1, 1)).map(str),
    "date-time": st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2500, 1, 1)).map(
        lambda when: when.strftime("%Y-%m-%dT%H:%M:%SZ")
    ),
    "time-zone": st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    "ip-range": ranges(),
    "address": st.ip_addresses().map(str),
    "addresses": st.lists(st.ip_addresses().map(str), min_size=1, max_size=3).map(", ".join),
    "cursor": st.sampled_from(["", "named:acme", "active:0:0:0"]),
    "host-and-port": st.tuples(
        st.sampled_from(["127.0.0.1", "[::1]", "localhost", "gateway.example"]), st.integers(1, 65535)
    ).map(lambda place: f"{place[0]}:{place[1]}"),
    "utf8-256-bytes": text_of_bytes(256),
    "utf8-1024-bytes": text_of_bytes(1024),
    "utf8-2048-bytes": text_of_bytes(2048).map(lambda text: "/" + text.lstrip("/").replace("?", "").replace("#", "")).filter(
        lambda text: len(text.encode()) <= 2048
    ),
}
for name, strategy in FORMATS.items():
    schemathesis.openapi.format(name, strategy)


def whole(value):
    """JSON Schema takes 3.0 for a whole number; the node takes it for what it looks like."""
    if isinstance(value, dict):
        return {name: whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def mend_limits(limits):
    """Names once, and no bucket begins with more than it holds."""
    named = {}
    for limit in limits or []:
        limit.pop("initial", None)
        named.setdefault(limit["name"], limit)
    return list(named.values())


def mend_rules(rules):
    """A tier, a tenant or a check: its limits, and a tier that exists."""
    if rules.get("limits"):
        rules["limits"] = mend_limits(rules["limits"])
    if rules.get("tier"):
        rules["tier"] = "pro"
    else:
        rules.pop("tier_expires", None)


def mend_policy(policy):
    policy["tiers"]["pro"] = policy["tiers"].get("pro") or {}
    policy["default_tier"] = "pro"
    mend_rules(policy)
    for part in [*policy["tiers"].values(), *(policy.get("tenants") or {}).values(), *(policy.get("tier_patterns") or [])]:
        mend_rules(part)
    # Patterns of paths may contradict each other.
    policy["costs"] = [cost for cost in policy.get("costs") or [] if not set(cost["path"]) & set("{}")][:1]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Members of a valid request that must fit each other are made to."""
    mode = case.meta.generation.mode if case.meta else None
    if mode is None or not mode.is_positive:
        return
    if case.path in ("/v1/stats", "/api/stats") and "period" in (case.query or {}):
        case.query.pop("date", None)
    # A version made up is a stale one, and is judged before the body: half of the time there is none.
    if len((case.headers or {}).get("If-Match", "")) % 2:
        case.headers["If-Match"] = "*"
    if not isinstance(case.body, dict):
        return
    body = case.body = whole(case.body)
    if case.path in ("/v1/check", "/v1/peek"):
        mend_rules(body)
        # Both name the request id, and may not differ.
        if body.get("request_id") is not None:
            case.headers.pop("Idempotency-Key", None)
    elif case.path == "/v1/check/batch":
        for place, check in enumerate(body["checks"]):
            mend_rules(check)
            if body.get("mode") == "all_or_nothing":
                check["tenant"] = body["checks"][0]["tenant"]
                check.pop("ip", None)
                check.pop("request_id", None)
    elif case.path == "/v1/policy":
        mend_policy(body)
    elif case.path == "/v1/tenants/{tenant}/limits/{name}":
        body.pop("name", None)
        body.pop("initial", None)
    elif case.method == "PUT":
        mend_rules(body)


def without_nulls(value):
    """TOML has no null, and here it is the same as leaving a member out."""
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value if item is not None]
    return value


@schemathesis.serializer("application/toml")
def as_toml(context, value):
    """A policy in TOML; what is no table is sent as it is, and is no TOML."""
    if isinstance(value, dict):
        return tomli_w.dumps(without_nulls(value)).encode()
    return repr(value).encode()
