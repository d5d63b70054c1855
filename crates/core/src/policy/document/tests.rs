//! Tests of `document`.

use super::*;

#[test]
fn a_tier_that_could_not_say_has_an_hour_until_it_is_written_again() {
    let stored = r#"{"default_tier":"t","tiers":{"t":{"limits":[]}}}"#;
    let most = |document: &Document| document.tiers[&Name::new("t").unwrap()].permit_ttl_most();
    let old = Document::from_stored(stored).unwrap();
    assert_eq!((most(&old), old.to_stored().as_str()), (PERMIT_TTL_MOST, stored));
    assert_eq!(old.to_json()["tiers"]["t"]["max_permit_ttl"], "1h");
    let written = Document::from_json(stored.as_bytes()).unwrap();
    assert_eq!(
        (most(&written), written.to_json().to_string().as_str()),
        (PERMIT_TTL_DEFAULT, stored)
    );
    assert!(written.to_stored().contains(r#""max_permit_ttl":"5m""#));
    assert_eq!(Document::from_stored(&written.to_stored()).unwrap(), written);
    // Programs that don't know the member can read what only has a default.
    assert_eq!(written.at_first_level(), old);
    let said = stored.replace(r#""limits":[]"#, r#""max_permit_ttl":"3s","limits":[]"#);
    let said = Document::from_json(said.as_bytes()).unwrap();
    assert_eq!((most(&said), said.clone().at_first_level()), (3 * SECOND, said));
}

#[test]
fn the_longest_time_of_a_permit_is_a_second_to_an_hour() {
    for (text, fits) in
        [("1s", true), ("1500ms", true), ("1h", true), ("999ms", false), ("61m", false)]
    {
        let toml = format!("default_tier = \"t\"\n[tiers.t]\nmax_permit_ttl = \"{text}\"\n");
        assert_eq!(Document::from_toml(toml.as_bytes()).is_ok(), fits, "{text}");
    }
}

#[test]
fn a_pattern_fits_where_its_stars_can_stand_for_text() {
    let fits = |pattern: &str, id| {
        TierPattern { pattern: pattern.into(), tier: Name::new("t").unwrap() }.fits(id)
    };
    for (pattern, id) in
        [("ent-*", "ent-1"), ("*", "x"), ("*-eu", "a-eu"), ("a*b*c", "a1b2c"), ("same", "same")]
    {
        assert!(fits(pattern, id), "{pattern} {id}");
    }
    for (pattern, id) in [
        ("ent-*", "xent-1"),
        ("*-eu", "eu"),
        ("a*b*c", "acb"),
        ("same", "samesame"),
        ("ab*ba", "aba"),
    ] {
        assert!(!fits(pattern, id), "{pattern} {id}");
    }
}
