"""What JSON Schema can't say of valid requests: texts whose value matters, and members that depend on each other."""

import schemathesis
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
    "date-time": st.datetimes(min_value=__import__("datetime").datetime(1971, 1, 1)).map(
        lambda when: when.replace(year=min(when.year, 2500)).strftime("%Y-%m-%dT%H:%M:%SZ")
        if (when.month, when.day) != (2, 29) else "2028-02-29T00:00:00Z"
    ),
    "time-zone": st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    "ip-range": ranges(),
    "ip": st.ip_addresses().map(str),
    "addresses": st.lists(st.ip_addresses().map(str), min_size=1, max_size=3).map(", ".join),
    "cursor": st.sampled_from(["", "named:acme", "active:0:0"]),
    "utf8-256-bytes": text_of_bytes(256),
    "utf8-1024-bytes": text_of_bytes(1024),
    "utf8-2048-bytes": text_of_bytes(2048).map(lambda text: "/" + text.lstrip("/").replace("?", "").replace("#", "")).filter(
        lambda text: len(text.encode()) <= 2048
    ),
}
for name, strategy in FORMATS.items():
    schemathesis.openapi.format(name, strategy)


def mend_limits(limits):
    """Names once, and no bucket begins with more than it holds."""
    named = {}
    for limit in limits or []:
        limit.pop("initial", None)
        named.setdefault(limit["name"], limit)
    return list(named.values())


def mend_check(check):
    if check.get("limits"):
        check["limits"] = mend_limits(check["limits"])


@schemathesis.hook
def before_call(context, case, kwargs):
    """Members of a valid request that must fit each other are made to."""
    mode = case.meta.generation.mode if case.meta else None
    if mode is None or not mode.is_positive or not isinstance(case.body, dict):
        return
    body = case.body
    if case.path in ("/v1/check", "/v1/peek"):
        mend_check(body)
        # Both name the request id, and may not differ.
        if body.get("request_id") is not None:
            case.headers.pop("Idempotency-Key", None)
    elif case.path == "/v1/check/batch":
        for place, check in enumerate(body["checks"]):
            mend_check(check)
            if body.get("mode") == "all_or_nothing":
                check["tenant"] = body["checks"][0]["tenant"]
                check.pop("ip", None)
                check.pop("request_id", None)
