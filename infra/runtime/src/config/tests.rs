//! Where values come from, and what is said of wrong ones.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{Config, Error, SecretUrl, Sources, load::env_name, rows::ROWS};

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn sources(flags: &[(&str, &str)], env: &[(&str, &str)], toml: &str) -> Sources {
    let file = Some((PathBuf::from("w.toml"), toml.to_owned()));
    Sources { flags: pairs(flags), env: pairs(env), file }
}

fn load(flags: &[(&str, &str)], env: &[(&str, &str)], toml: &str) -> Result<Config, Error> {
    Config::load(&sources(flags, env, toml))
}

/// The value in force of a key, and where it came from.
fn in_force(config: &Config, key: &str) -> (String, String) {
    let setting = config.in_force().into_iter().find(|s| s.key == key).expect(key);
    (setting.value, setting.source)
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    const KEY: &str = "ingest.accept_timeout_ms";
    let flag: &[(&str, &str)] = &[(KEY, "1")];
    let env: &[(&str, &str)] = &[("WAYPOST_INGEST_ACCEPT_TIMEOUT_MS", "2"), ("HOME", "/nowhere")];
    let toml = "[ingest]\naccept_timeout_ms = 3\n";
    let check = |config: Result<Config, Error>, millis: u64, source: &str| {
        let config = config.unwrap();
        assert_eq!(config.settings().ingest.accept_timeout, Duration::from_millis(millis));
        assert_eq!(in_force(&config, KEY), (millis.to_string(), source.to_owned()));
    };
    check(load(flag, env, toml), 1, "command line");
    check(load(&[], env, toml), 2, "variable WAYPOST_INGEST_ACCEPT_TIMEOUT_MS");
    check(load(&[], &[], toml), 3, "file w.toml");
    check(load(&[], &[], ""), 10_000, "default");
}

#[test]
fn an_error_names_the_source_the_key_and_what_is_expected() {
    let check = |flags: &[(&str, &str)], env: &[(&str, &str)], toml: &str, expected: &str| {
        assert_eq!(load(flags, env, toml).unwrap_err().to_string(), expected);
    };
    check(
        &[("topics.partitions", "0")],
        &[],
        "",
        "command line: topics.partitions is \"0\", but should be a whole number from 1 to 1000",
    );
    check(
        &[],
        &[("WAYPOST_LISTEN", "7400")],
        "",
        "variable WAYPOST_LISTEN: listen is \"7400\", but should be an address and a port such as 127.0.0.1:7400",
    );
    check(
        &[],
        &[],
        "log.format = \"xml\"",
        "file w.toml: log.format is \"xml\", but should be auto, pretty or json",
    );
    check(&[], &[], "lisen = 1", "file w.toml: lisen is no setting; near it: listen");
    check(
        &[],
        &[("WAYPOST_HTTP_HEADER_MAX", "1")],
        "",
        "variable WAYPOST_HTTP_HEADER_MAX: WAYPOST_HTTP_HEADER_MAX is no setting; near it: WAYPOST_HTTP_HEADERS_MAX",
    );
    check(&[("colour", "red")], &[], "", "command line: colour is no setting");
    // A section is no value, and a list none of ours.
    check(
        &[],
        &[],
        "listen = [1]",
        "file w.toml: listen is \"[1]\", but should be an address and a port such as 127.0.0.1:7400",
    );
    assert!(load(&[], &[], "a = ").unwrap_err().to_string().starts_with("file w.toml is no TOML"));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let error = load(&[("instance", "none")], &[("WAYPOST_X", "1")], "url = \"\"\nkept = 1").unwrap_err();
    assert_eq!(error.faults.len(), 4, "{error}");
}

#[test]
fn secrets_are_used_but_never_shown() {
    let config = load(
        &[("token", "hush-1")],
        &[("WAYPOST_KAFKA_PROPERTIES_SASL_PASSWORD", "hush-2"), ("WAYPOST_KAFKA_PROPERTIES_SASL_USERNAME", "w")],
        "[postgres]\nurl = \"postgresql://w:hush-3@h/d\"\n[kafka.properties]\nssl.key.password = \"hush-4\"\n\"client.rack\" = \"a\"",
    )
    .unwrap();
    let settings = config.settings();
    assert_eq!(settings.token.as_ref().unwrap().reveal(), "hush-1");
    assert_eq!(settings.postgres.url.as_ref().unwrap().reveal(), "postgresql://w:hush-3@h/d");
    let properties: Vec<_> = settings.kafka.properties.iter().collect();
    let expected = [
        ("client.rack", "a"),
        ("sasl.password", "hush-2"),
        ("sasl.username", "w"),
        ("ssl.key.password", "hush-4"),
    ];
    assert_eq!(properties, expected);

    let shown = format!("{}{:?}{settings:?}", config.print(), config.in_force());
    assert!(!shown.contains("hush"), "{shown}");
    assert_eq!(in_force(&config, "postgres.url").0, "postgresql://w:***@h/d");
    assert_eq!(in_force(&config, "kafka.properties.sasl.username").0, "w");

    let wrong = load(&[("postgres.url", "mysql://w:hush@h/d")], &[], "").unwrap_err().to_string();
    assert!(!wrong.contains("hush"), "{wrong}");
}

#[test]
fn a_password_is_masked_wherever_it_stands_in_a_url() {
    let check = |url: &str, shown: &str| assert_eq!(SecretUrl::new(url).to_string(), shown);
    check("postgresql:///w?host=/run/pg", "postgresql:///w?host=/run/pg");
    check("postgresql://u@h:5432/w", "postgresql://u@h:5432/w");
    check("postgresql://u:p@h/w", "postgresql://u:***@h/w");
    check("postgresql://u:p@ss@h/w", "postgresql://u:***@h/w");
    check("postgresql://u:p?q@h/w", "***");
    check(
        "postgresql://h/w?user=u&password=p&sslmode=require",
        "postgresql://h/w?user=u&password=***&sslmode=require",
    );
    check("host=h password=p", "***");
}

#[test]
fn what_is_printed_can_be_read_again() {
    let flags =
        [("kafka.properties.client.rack", "a \"b\""), ("snapshots.kept", "7"), ("kafka.bootstrap", "k:9092")];
    let config = load(&flags, &[], "").unwrap();
    let again = load(&[], &[], &config.print()).unwrap();
    for (was, is) in config.in_force().into_iter().zip(again.in_force()) {
        assert_eq!((was.key, was.value), (is.key, is.value));
    }
}

#[test]
fn every_setting_has_a_default_that_it_takes_and_a_name_of_its_own() {
    let config = load(&[], &[], "").unwrap();
    assert_eq!(config.in_force().len(), ROWS.len());
    let keys: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.key).collect();
    let variables: std::collections::BTreeSet<_> = ROWS.iter().map(|row| env_name(row.key)).collect();
    assert_eq!((keys.len(), variables.len()), (ROWS.len(), ROWS.len()));
    for row in ROWS {
        assert!(row.doc.ends_with('.') && !row.unit.is_empty(), "{}", row.key);
        assert!(row.unit != "ms" || row.key.contains("_ms"), "{} says its unit", row.key);
    }
}

#[test]
fn a_file_that_is_named_must_be_there_and_the_usual_one_need_not() {
    let nowhere = PathBuf::from("/nowhere/w.toml");
    let error = Sources::read(BTreeMap::new(), BTreeMap::new(), Some(&nowhere)).unwrap_err();
    assert!(error.to_string().starts_with("file /nowhere/w.toml cannot be read"), "{error}");
    let env = pairs(&[("WAYPOST_CONFIG", "/nowhere/env.toml")]);
    let error = Sources::read(BTreeMap::new(), env, None).unwrap_err();
    assert!(error.to_string().starts_with("file /nowhere/env.toml"), "{error}");
    assert!(Sources::read(BTreeMap::new(), BTreeMap::new(), None).unwrap().file.is_none());
}
