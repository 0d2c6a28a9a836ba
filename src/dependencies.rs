//! What the product depends on is what `deny.toml` allows: its licences, bans and sources, read
//! from there and held without network or another program. Only advisories need more: a database,
//! which `cargo deny check advisories` fetches.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The strings of one key of one section, which is all that this test needs of TOML.
fn strings(section: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let code: String = text.lines().map(|line| line.split('#').next().unwrap().to_owned() + "\n").collect();
    let (_, rest) = code.split_once(&format!("\n[{section}]\n")).unwrap();
    let rest = rest.split("\n[").next().unwrap();
    let (_, rest) = rest.split_once(&format!("{key} = [")).unwrap();
    let list = rest.split("]\n").next().unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What is built for this machine, with everything that tests use.
fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--offline", "--locked", "--all-features", "--format-version", "1"])
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let used: Vec<&Value> =
        all["resolve"]["nodes"].as_array().unwrap().iter().map(|node| &node["id"]).collect();
    let packages = all["packages"].as_array().unwrap();
    packages.iter().filter(|package| used.contains(&&package["id"])).cloned().collect()
}

fn named(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

/// Whether one allowed licence stands in each part of the expression. Brackets count for nothing,
/// which never allows more than they do.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|one| allowed.iter().any(|ok| ok == one.trim())))
}

/// The three numbers of a version.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap();
    plain.split('.').map(|part| part.parse().unwrap()).collect()
}

/// A ban is `name`, or `name:<version` for everything before that one.
fn is_banned(package: &Value, ban: &str) -> bool {
    let (name, before) = ban.split_once(":<").unzip();
    let is_before = |before: &str| numbers(package["version"].as_str().unwrap()) < numbers(before);
    package["name"].as_str() == Some(name.unwrap_or(ban)) && before.is_none_or(is_before)
}

#[test]
fn licences_bans_and_sources_are_what_the_rules_allow() {
    let (allowed, bans) = (strings("licenses", "allow"), strings("bans", "deny"));
    assert!(allowed.contains(&"MIT".to_owned()) && bans.contains(&"rustls-pemfile".to_owned()));
    let mut wrong = Vec::new();
    let packages = packages();
    for package in &packages {
        let license = package["license"].as_str().unwrap_or_default();
        if !is_allowed(license, &allowed) {
            wrong.push(format!("{}: licence {license:?}", named(package)));
        }
        if bans.iter().any(|ban| is_banned(package, ban)) {
            wrong.push(format!("{}: banned", named(package)));
        }
        let source = package["source"].as_str();
        if source.is_some_and(|source| source != "registry+https://github.com/rust-lang/crates.io-index") {
            wrong.push(format!("{}: from {source:?}", named(package)));
        }
    }
    assert!(packages.len() > 100, "of {} packages", packages.len());
    assert!(wrong.is_empty(), "not what deny.toml allows:\n{}", wrong.join("\n"));
}

#[test]
fn the_rules_refuse_what_they_are_for() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for good in ["MIT", "MIT OR GPL-3.0", "Zlib/MIT", "(GPL-3.0 OR MIT) AND ISC"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
    let package = serde_json::json!({ "name": "one", "version": "0.11.18+build" });
    for ban in ["one", "one:<0.11.19", "one:<1.0.0"] {
        assert!(is_banned(&package, ban), "{ban}");
    }
    for ban in ["two", "one:<0.11.18", "one:<0.9.20"] {
        assert!(!is_banned(&package, ban), "{ban}");
    }
}
