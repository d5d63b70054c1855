//! Caps: a flood of invented names shares what is left, refunds nobody and pushes nobody out.

use super::*;

/// Two a day for each tenant, each of its clients, and each address.
const POLICY: &str = r#"
    default_tier = "t"
    limits = [{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = 2, window = "1d" }]
    [tiers.t]
    max_concurrent = 1
    request_limits = "also"
    limits = [{ name = "rate", algorithm = "fixed_window", limit = 2, window = "1d" }]
    [tiers.clients]
    request_limits = "also"
    limits = [{ name = "client", per = ["tenant", "client"], algorithm = "fixed_window", limit = 2, window = "1d" }]
    [tenants.acme]
    [tenants.globex]
    [tenants.initech]
    tier = "clients"
    [tenants.anonymous]
    tier = "clients"
"#;

fn caps(unknown_tenants: usize) -> Caps {
    Caps { unknown_tenants, named_tenants: 10, ..ROOM }
}

fn keys(keys_per_tenant: usize) -> Caps {
    Caps { keys_per_tenant, ..ROOM }
}

fn shared(shared_keys: usize) -> Caps {
    Caps { shared_keys, ..ROOM }
}

fn ip(i: usize, check: &Check) -> Check {
    from_ip(&format!("10.0.{}.{}", i / 256, i % 256), check)
}

#[test]
fn a_flood_of_unknown_tenants_shares_one_bucket_and_changes_nothing_for_those_before_it_or_named() {
    let mut world = World::new(3, POLICY, caps(20), 0);
    assert_eq!(world.admits(&of("acme"), 1), 1);
    let (mut own, mut overflow) = (Vec::new(), 0);
    for i in 0..600 {
        let check = of(&format!("flood-{i}"));
        let first = world.decide(&check);
        if first.approximate() {
            overflow += usize::from(first.allowed) + world.admits(&check, 2);
        } else {
            assert!(first.allowed);
            assert_eq!(world.admits(&check, 3), 1);
            own.push(check);
        }
    }
    assert_eq!((own.len(), overflow), (3 * 20, 3 * 2));
    assert_eq!((world.tenants(), world.buckets()), (60 + 1, 60 + 1 + 3));
    for check in &own {
        let denied = world.decide(check);
        assert!(!denied.allowed && !denied.approximate());
    }
    for (named, left) in [("acme", 1), ("globex", 2)] {
        let decision = world.decide(&of(named));
        assert!(decision.allowed && !decision.approximate());
        assert_eq!(world.admits(&of(named), 5), left - 1);
    }
}

#[test]
fn when_the_accounts_of_a_flood_are_forgotten_others_get_their_own() {
    let mut world = World::new(1, POLICY, caps(20), 0);
    (0..200).for_each(|i| drop(world.decide(&of(&format!("flood-{i}")))));
    assert!(world.decide(&of("stranger")).approximate());
    world.pass(DAY);
    world.sweep();
    assert_eq!(world.tenants(), 0);
    let decision = world.decide(&of("stranger"));
    assert!(decision.allowed && !decision.approximate());
}

#[test]
fn a_tenant_that_the_policy_comes_to_name_leaves_the_crowd() {
    let mut world = World::new(1, POLICY, caps(0), 0);
    world.decide(&of("a"));
    assert!(world.decide(&of("b")).approximate());
    world.set_policy(&POLICY.replace("[tenants.acme]", "[tenants.acme]\n[tenants.b]"));
    assert_eq!(world.admits(&of("b"), 5), 2);
    assert!(!world.decide(&of("b")).approximate());
}

#[test]
fn clients_beyond_a_tenants_cap_share_one_bucket() {
    let mut world = World::new(1, POLICY, keys(10), 0);
    let client = |i: usize| by_client(&format!("c{i}"), &of("initech"));
    for i in 0..10 {
        assert_eq!(world.admits(&client(i), 3), 2);
    }
    let flood: usize = (10..100).map(|i| world.admits(&client(i), 1)).sum();
    assert_eq!((flood, world.buckets()), (2, 11));
    for i in 0..100 {
        let denied = world.decide(&client(i));
        assert_eq!((denied.allowed, denied.approximate()), (false, i >= 10));
    }
    // Other tenants have caps of their own.
    assert!(
        !world
            .decide(&by_client("c0", &Check { tier: Some(name("clients")), ..of("other") }))
            .approximate()
    );
}

#[test]
fn at_a_cap_a_new_key_gets_the_place_of_one_that_is_like_fresh() {
    let caps = Caps { unknown_tenants: 2, keys_per_tenant: 2, shared_keys: 2, ..caps(2) };
    let mut world = World::new(1, POLICY, caps, 0);
    let checks = |i: usize| {
        let (client, tenant) = (by_client(&format!("c{i}"), &of("initech")), of(&format!("t{i}")));
        [client, tenant, ip(i, &of(["acme", "globex"][i % 2]))]
    };
    for (i, approximate) in [(0, false), (1, false), (2, true)] {
        assert_eq!(checks(i).map(|check| world.decide(&check).approximate()), [approximate; 3]);
    }
    world.pass(DAY);
    assert_eq!(checks(3).map(|check| world.decide(&check).approximate()), [false; 3]);
}

#[test]
fn a_bucket_that_an_open_check_holds_units_of_makes_no_room_for_another() {
    let policy = format!(
        r#"limits = [{{ name = "everybody", per = [], algorithm = "fixed_window", limit = 9, window = "1d" }}]
        default_tier = "clients"
        {}"#,
        &POLICY[POLICY.find("[tiers.t]").unwrap()..]
    );
    let mut world = World::new(2, &policy, keys(1), 0);
    let [_, far] = world.near_and_far();
    let (mut ann, mut bob) =
        (world.start(&by_client("ann", &far)), world.start(&by_client("bob", &far)));
    world.deliver_all();
    let approximate = [&mut ann, &mut bob].map(|answer| only(now(answer)).unwrap().approximate());
    assert_eq!(approximate, [false, true]);
}

/// A bucket that was just made for one check of the batch is like a fresh one, and yet no room for
/// the next.
#[test]
fn a_batch_of_many_clients_makes_no_more_buckets_than_the_cap_allows() {
    let mut world = World::new(2, POLICY, keys(10), 0);
    let clients: Vec<_> = (0..12).map(|i| by_client(&format!("c{i}"), &of("initech"))).collect();
    let decisions = world.ask_all(&clients).unwrap();
    assert!(decisions.iter().all(|d| d.allowed));
    assert_eq!(decisions.iter().filter(|d| d.approximate()).count(), 2);
    assert_eq!(world.buckets(), 11);
}

#[test]
fn limits_of_invented_names_share_one_bucket_for_each_algorithm() {
    let mut world = World::new(1, &POLICY.replace("limit = 2", "limit = 1000"), keys(10), 0);
    let invented =
        |i: usize| with_limits(&[sent(&format!("n{i}"), &[Dimension::Tenant], 2)], &of("initech"));
    // One of the ten buckets is that of initech's configured limit.
    let admitted: usize = (0..100).map(|i| world.admits(&invented(i), 3)).sum();
    assert_eq!((admitted, world.buckets()), (9 * 2 + 2, 11));
    let denied = world.decide(&invented(50));
    assert!(
        denier(&denied) == "n50"
            && !verdict(&denied, "n50").is_exact()
            && verdict(&denied, "client").is_exact()
    );
}

#[test]
fn addresses_beyond_the_cap_share_one_bucket() {
    let policy = POLICY.replace(
        "\"rate\", algorithm = \"fixed_window\", limit = 2",
        "\"rate\", algorithm = \"fixed_window\", limit = 9999",
    );
    for seed in seeds(3) {
        let mut world = World::new(2, &policy, shared(10), seed);
        let (mut own, mut overflow) = (Vec::new(), 0);
        for i in 0..200 {
            let check = ip(i, &of("acme"));
            let first = world.decide(&check);
            if first.approximate() {
                assert!(!verdict(&first, "address").is_exact());
                overflow += usize::from(first.allowed) + world.admits(&check, 2);
            } else {
                assert_eq!(world.admits(&check, 3), 1);
                own.push(check);
            }
        }
        assert_eq!((own.len(), overflow, world.shared_keys()), (2 * 10, 2 * 2, 2 * 11));
        for check in &own {
            assert!(!world.decide(check).allowed);
        }
        // Only the address is approximate.
        assert!(verdict(&world.decide(&ip(199, &of("acme"))), "rate").is_exact());
        assert!(world.decide(&of("acme")).allowed);
    }
}

#[test]
fn all_keys_together_have_a_cap_and_nobody_is_refunded_at_it() {
    let mut world = World::new(1, POLICY, Caps { keys: 30, ..ROOM }, 0);
    let check = |tenant: usize, client: usize| Check {
        tier: Some(name("clients")),
        ..by_client(&format!("c{client}"), &of(&format!("t{tenant}")))
    };
    let mut first = Vec::new();
    for (tenant, client) in (0..20).flat_map(|t| (0..5).map(move |c| (t, c))) {
        let decision = world.decide(&check(tenant, client));
        if !decision.approximate() {
            assert_eq!(world.admits(&check(tenant, client), 2), 1);
            first.push(check(tenant, client));
        }
    }
    // Each of twenty tenants may have one bucket beyond the thirty, in which its further clients
    // meet.
    assert_eq!(first.len(), 30);
    assert!(world.buckets() <= 30 + 20, "{}", world.buckets());
    assert!(first.iter().all(|check| !world.decide(check).allowed));
}

// --------------------------------------------------------------------------- what the crowd has in
// common, and what not

#[test]
fn a_permit_of_the_crowd_is_released_and_renewed_like_any_other() {
    for shard in 0..3 {
        let mut world = World::new(3, POLICY, caps(0), 0);
        let check = with_permit(10_000, &world.tenant_of(shard));
        let permit = world.decide(&check).permit.unwrap();
        assert_eq!(denier(&world.decide(&check)), "concurrency");
        assert!(world.renew(permit.id, 20_000), "in shard {shard}");
        world.release(permit.id);
        assert!(world.decide(&check).allowed);
    }
}

#[test]
fn tenants_of_the_crowd_have_request_ids_of_their_own() {
    let mut world = World::new(1, POLICY, caps(0), 0);
    for tenant in ["a", "b"] {
        let first = world.ask(&with_id("1", &of(tenant))).unwrap();
        assert!(first.allowed && !first.replayed);
        assert!(world.decide(&with_id("1", &of(tenant))).replayed);
    }
}

/// The policy may name `anonymous`; it doesn't name each of its addresses.
#[test]
fn addresses_of_anonymous_push_no_named_tenant_out() {
    let mut world = World::new(1, POLICY, caps(20), 0);
    (0..100).for_each(|i| drop(world.decide(&ip(i, &of("anonymous")))));
    let acme = world.decide(&of("acme"));
    assert!(acme.allowed && !acme.approximate());
}

// --------------------------------------------------------------------------- several demands that
// meet in one bucket

#[test]
fn a_batch_whose_clients_meet_in_one_bucket_passes_only_if_it_has_room_for_all() {
    let mut world = World::new(1, POLICY, keys(1), 0);
    let clients =
        |names: &[&str]| -> Vec<_> { names.iter().map(|n| by_client(n, &of("initech"))).collect() };
    world.decide(&clients(&["ann"])[0]);
    assert!(!world.ask_all(&clients(&["bob", "cid", "dee"])).unwrap()[0].allowed);
    assert!(world.ask_all(&clients(&["bob", "cid"])).unwrap()[0].allowed);
    assert!(!world.decide(&clients(&["dee"])[0]).allowed);
}

#[test]
fn limits_of_a_request_that_meet_in_one_bucket_pass_only_if_it_has_room_for_all() {
    let policy = POLICY.replace("limit = 2", "limit = 1000");
    let mut world = World::new(1, &policy, keys(1), 0);
    let both = ["x", "y"].map(|n| sent(n, &[Dimension::Tenant], 3));
    let check = with_limits(&both, &of("initech"));
    // Two of three, and then there is one for two.
    assert_eq!(world.admits(&check, 3), 1);
}

#[test]
fn a_batch_whose_addresses_meet_in_one_bucket_is_answered_and_does_not_wait_for_itself() {
    let policy = POLICY.replace(
        "\"rate\", algorithm = \"fixed_window\", limit = 2",
        "\"rate\", algorithm = \"fixed_window\", limit = 9999",
    );
    let mut world = World::new(1, &policy, shared(1), 0);
    let batch = |ips: &[usize]| -> Vec<_> { ips.iter().map(|i| ip(*i, &of("acme"))).collect() };
    world.decide(&batch(&[0])[0]);
    for (ips, allowed) in [(&[1, 2, 3][..], false), (&[4, 5], true), (&[6], false)] {
        let mut answer = world.start_all(&batch(ips));
        let decisions = answered(&mut answer).expect("nobody else holds anything").unwrap();
        assert_eq!(decisions[0].allowed, allowed, "{ips:?}");
    }
    assert!(!world.is_busy());
}

#[test]
fn shared_limits_of_a_request_that_meet_in_one_bucket_are_answered_and_do_not_wait_for_each_other()
{
    let mut world = World::new(1, &POLICY.replace("limit = 2", "limit = 1000"), shared(1), 0);
    world.decide(&ip(0, &of("acme")));
    let both = ["x", "y"].map(|n| sent(n, &[Dimension::Ip], 3));
    for (i, allowed) in [(1, true), (2, false)] {
        let mut answer = world.start(&with_limits(&both, &ip(i, &of("initech"))));
        let decision = only(answered(&mut answer).expect("nobody else holds anything")).unwrap();
        assert_eq!(decision.allowed, allowed);
    }
}

/// Two shards with room for one address each, which is taken, and further addresses of each shard.
fn crowded(limit: u32) -> (World, [Vec<usize>; 2]) {
    let policy = format!(
        r#"
        default_tier = "t"
        limits = [{{ name = "address", per = ["ip"], algorithm = "fixed_window", limit = {limit}, window = "1d" }}]
        [tiers.t]"#
    );
    let mut world = World::new(2, &policy, shared(1), 0);
    let tenant = world.tenant_of(0);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for i in 0..20 {
        let at_once = answered(&mut world.start_peek(&ip(i, &tenant))).is_some();
        world.deliver_all();
        if at_once { &mut here } else { &mut there }.push(i);
    }
    for first in [here.remove(0), there.remove(0)] {
        assert!(!world.decide(&ip(first, &tenant)).approximate());
    }
    (world, [here, there])
}

#[test]
fn two_batches_that_each_want_more_of_one_bucket_than_is_left_do_not_wait_for_each_other() {
    let (mut world, [ips, _]) = crowded(3);
    let [near, far] = [0, 1].map(|shard| world.tenant_of(shard));
    // Two of the three are held; their holder's answer comes too late, and then there are three for
    // two times three.
    let mut holder = world.start(&within(100, &costing(2, &ip(ips[0], &far))));
    world.deliver_asks();
    let batch = |ips: &[usize]| -> Vec<_> { ips.iter().map(|i| ip(*i, &near)).collect() };
    let mut batches = [&ips[1..4], &ips[4..7]].map(|ips| world.start_all(&batch(ips)));
    assert!(batches.iter_mut().all(|answer| answered(answer).is_none()));
    world.pass(100 * crate::time::MS);
    world.deliver_all();
    assert_eq!(now(&mut holder).unwrap_err(), Refusal::Busy);
    let allowed = batches.map(|mut answer| now(&mut answer).unwrap()[0].allowed);
    assert_eq!((allowed, world.is_busy()), ([true, false], false));
}

/// The bucket that stands in has the same key in every shard, and the order of the keys says
/// nothing between two of them.
#[test]
fn two_batches_over_the_crowds_of_two_shards_do_not_wait_for_each_other() {
    let (mut world, [here, there]) = crowded(1);
    let mut batches = [(0, [here[0], there[0]]), (1, [there[1], here[1]])].map(|(shard, ips)| {
        let tenant = world.tenant_of(shard);
        world.start_all(&ips.map(|i| ip(i, &tenant)))
    });
    world.deliver_all();
    let mut allowed = batches.each_mut().map(|answer| now(answer).unwrap()[0].allowed);
    allowed.sort();
    assert_eq!((allowed, world.is_busy()), ([false, true], false));
}
