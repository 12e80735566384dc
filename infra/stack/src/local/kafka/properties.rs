//! The broker's settings, in Java's properties format.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, bail};

use waypost_runtime::datadir::random_uuid;

use super::ports::Ports;

const TEMPLATE: &str = include_str!("../../../../kafka/server.properties");
/// Kafka writes a UUID's 16 bytes in base64 for URLs, without padding.
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The settings of a broker with its storage in `storage`.
pub(super) fn render(ports: Ports, storage: &Path) -> anyhow::Result<String> {
    let Some(path) = storage.to_str().filter(|path| !path.contains(',')) else {
        bail!(
            "kafka cannot keep its log in {}: the path holds a comma or is no UTF-8; name another --data-dir",
            storage.display()
        );
    };
    Ok(TEMPLATE
        .replace("{broker_port}", &ports.broker.to_string())
        .replace("{controller_port}", &ports.controller.to_string())
        .replace("{log_dir}", &escape(path)))
}

/// A value as Java's `Properties.load` reads it back: backslashes doubled, all but printable ASCII as UTF-16 escapes.
fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        match c {
            '\\' => text.push_str("\\\\"),
            // Leading blanks would be taken for the blanks around the equals sign.
            ' ' if i == 0 => text.push_str("\\ "),
            ' '..='~' => text.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
}

/// The value of a key, in a file that Kafka wrote.
pub(super) fn value(text: &str, key: &str) -> Option<String> {
    text.lines()
        .find_map(|line| Some(line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim().to_owned()))
}

/// A new cluster's id, of the kernel's random bits.
pub(super) fn cluster_id() -> anyhow::Result<String> {
    loop {
        let id = base64(&random_uuid()?).context("the kernel gives no UUID")?;
        // Kafka's own tools never make one that looks like an option.
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

/// A UUID's hexadecimal form in Kafka's 22 characters.
fn base64(uuid: &str) -> Option<String> {
    let hex: String = uuid.trim().chars().filter(|c| *c != '-').collect();
    if hex.len() != 32 {
        return None;
    }
    let bits = u128::from_str_radix(&hex, 16).ok()?;
    // 21 characters of six bits, and one of the last two bits.
    let mut id: String =
        (0..21).map(|i| char::from(BASE64_URL[(bits >> (122 - 6 * i) & 63) as usize])).collect();
    id.push(char::from(BASE64_URL[(bits << 4 & 63) as usize]));
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { broker: 21_001, controller: 21_002 };

    #[test]
    fn every_place_of_the_template_is_filled() {
        let text = render(PORTS, Path::new("/data/kafka/log")).expect("rendered");
        let check = |line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        check("listeners=BROKER://127.0.0.1:21001,CONTROLLER://127.0.0.1:21002");
        check("advertised.listeners=BROKER://127.0.0.1:21001");
        check("controller.quorum.bootstrap.servers=127.0.0.1:21002");
        check("log.dirs=/data/kafka/log");
        assert!(!text.contains(['{', '}']), "a place is left");
    }

    #[test]
    fn a_path_is_written_so_that_java_reads_it_back() {
        let check = |path: &str, expected: &str| assert_eq!(escape(path), expected);
        check("/home/me/my data", "/home/me/my data");
        check(r"/a\b", r"/a\\b");
        check("/größe", r"/gr\u00f6\u00dfe");
        check("/🚐", r"/\ud83d\ude90");
        check(" a", r"\ a");
        assert!(render(PORTS, Path::new("/a,b")).is_err(), "kafka would take it for two directories");
    }

    #[test]
    fn a_cluster_id_is_a_uuid_in_22_characters() {
        let check = |uuid: &str, expected: Option<&str>| assert_eq!(base64(uuid).as_deref(), expected);
        check("00000000-0000-0000-0000-000000000000\n", Some("AAAAAAAAAAAAAAAAAAAAAA"));
        check("ffffffff-ffff-ffff-ffff-ffffffffffff", Some("_____________________w"));
        check("69b71d79-f8e7-1c71-a8f5-4f0f2a3b4c5d", Some("abcdefjnHHGo9U8PKjtMXQ"));
        check("not one", None);
        let id = cluster_id().expect("the kernel has random bits");
        assert_eq!(id.len(), 22);
    }

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let text = "#\nnode.id=1\ncluster.id.old=x\ncluster.id=abc\n";
        assert_eq!(value(text, "cluster.id").as_deref(), Some("abc"));
        assert_eq!(value(text, "version"), None);
    }
}
