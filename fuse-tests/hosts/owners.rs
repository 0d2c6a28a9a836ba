//! Two hosts on which users and groups of the same names have other numbers: with `--owner name` files belong to whom
//! they belonged, on the way there and back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Hosts;
use crate::host::{COMMAND_MAX, SYNC_MAX, describe, output_within, require_program, run};
use crate::tree::{self, Kind};

/// Of every Linux, with the numbers that they have on the source; on the target the first two have others, and the
/// third is not there.
const USERS: [(&str, Option<u32>); 3] = [("daemon", Some(4001)), ("www-data", Some(2)), ("games", None)];
const GROUPS: [(&str, Option<u32>); 3] = [("daemon", Some(5001)), ("mail", Some(33)), ("games", None)];
/// It has no name on either side.
const NAMELESS: u32 = 77_123;

fn number_here(file: &str, name: &str) -> u32 {
    let text = fs::read_to_string(file).expect("the accounts of this host");
    let line =
        text.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("an account of every host");
    line.split(':').nth(2).and_then(|number| number.parse().ok()).expect("a number")
}

/// What the target has; and what numbers of users and groups of the source are there.
struct Accounts {
    users: BTreeMap<u32, u32>,
    groups: BTreeMap<u32, u32>,
}

impl Accounts {
    fn other_on_target(hosts: &mut Hosts) -> Accounts {
        let dir = hosts.at("accounts");
        fs::create_dir(&dir).expect("a directory");
        let table = |file: &str, names: [(&str, Option<u32>); 3]| {
            let mut text = "root:x:0:0::/:\n".to_owned();
            let mut numbers = BTreeMap::new();
            for (name, there) in names {
                let here = number_here(&format!("/etc/{file}"), name);
                numbers.insert(here, there.unwrap_or(here));
                text.extend(there.map(|there| format!("{name}:x:{there}:0::/:\n")));
            }
            fs::write(dir.join(file), text).expect("accounts");
            numbers
        };
        let accounts = Accounts { users: table("passwd", USERS), groups: table("group", GROUPS) };
        hosts.accounts = Some(dir);
        accounts
    }

    fn user(&self, here: u32) -> u32 {
        self.users.get(&here).copied().unwrap_or(here)
    }

    fn group(&self, here: u32) -> u32 {
        self.groups.get(&here).copied().unwrap_or(here)
    }

    /// All pairs of those that there are, of root and of nobody.
    fn pairs(&self) -> Vec<(u32, u32)> {
        let all = |numbers: &BTreeMap<u32, u32>| -> Vec<u32> {
            numbers.keys().copied().chain([0, NAMELESS]).collect()
        };
        let groups = all(&self.groups);
        all(&self.users).into_iter().flat_map(|user| groups.iter().map(move |group| (user, *group))).collect()
    }
}

/// A directory with something of everybody, and ACLs.
fn fill(root: &Path, name: &str, accounts: &Accounts) {
    let dir = root.join(name);
    fs::create_dir(&dir).expect("a directory");
    for (user, group) in accounts.pairs() {
        let at = |kind: &str| dir.join(format!("{kind} {user} {group}"));
        fs::write(at("file"), format!("{user}:{group}")).expect("a file");
        chown(at("file"), Some(user), Some(group)).expect("an owner");
        fs::create_dir(at("dir")).expect("a directory");
        chown(at("dir"), Some(user), Some(group)).expect("an owner");
        symlink("nowhere", at("link")).expect("a symlink");
        lchown(at("link"), Some(user), Some(group)).expect("an owner");
    }
    let each = |sign: &str, numbers: &BTreeMap<u32, u32>| -> Vec<String> {
        numbers.keys().chain([&NAMELESS]).map(|number| format!("{sign}:{number}:r-x")).collect()
    };
    let rules = [each("u", &accounts.users), each("g", &accounts.groups)].concat().join(",");
    let acls = dir.join("acls");
    fs::create_dir(&acls).expect("a directory");
    run(Command::new(require_program("setfacl")).args(["-m", &rules]).arg(&acls));
    run(Command::new(require_program("setfacl")).args(["-d", "-m", &rules]).arg(&acls));
    // These inherit them.
    fs::write(acls.join("file"), "x").expect("a file");
    fs::create_dir(acls.join("dir")).expect("a directory");
}

/// Each path with its owner, and the users and groups of its ACLs, by number.
fn owned(root: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<String>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let status = fs::symlink_metadata(&path).expect("a file");
        let acl = output_within(Command::new("getfacl").args(["-Ecpn"]).arg(&path), COMMAND_MAX);
        let acl = String::from_utf8(acl.stdout).expect("text");
        let is_of_somebody = |line: &&str| line.contains("user:") || line.contains("group:");
        let named = acl.lines().filter(is_of_somebody).filter(|line| !line.contains("::")).map(str::to_owned);
        let below = path.strip_prefix(root).expect("below").to_owned();
        let mut named: Vec<String> = named.filter(|_| !status.is_symlink()).collect();
        named.sort();
        found.insert(below, (status.uid(), status.gid(), named));
        if status.is_dir() {
            let names: Vec<OsString> = fs::read_dir(&path)
                .expect("a directory")
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            waiting.extend(names.into_iter().map(|name| path.join(name)));
        }
    }
    found
}

/// The replica is the source but for numbers of owners, which are those that they are to be.
#[track_caller]
fn assert_owned_by_name(hosts: &Hosts, accounts: &Accounts) {
    let output = output_within(hosts.on_source().args(["wait-sync", "--timeout", "60s"]), SYNC_MAX);
    assert!(output.status.success(), "{}{}", describe(&output), hosts.said());
    let compared = tree::compare(&hosts.backing(), &hosts.replica(), &tree::Rules::default());
    let others = compared.expect("trees").0.into_iter();
    let others: Vec<_> = others.filter(|found| !matches!(found.kind, Kind::Owner | Kind::Xattr)).collect();
    assert!(others.is_empty(), "{others:?}");
    let expected = |(path, (user, group, acl)): (PathBuf, (u32, u32, Vec<String>))| {
        let renumbered = |line: String| {
            let parts: Vec<&str> = line.split(':').collect();
            let at = parts.len() - 2;
            let number: u32 = parts[at].parse().expect("a number");
            let is_user = parts[at - 1] == "user";
            let there = if is_user { accounts.user(number) } else { accounts.group(number) };
            [&parts[..at], &[&*there.to_string()], &parts[at + 1..]].concat().join(":")
        };
        let mut acl: Vec<String> = acl.into_iter().map(renumbered).collect();
        acl.sort();
        (path, (accounts.user(user), accounts.group(group), acl))
    };
    let expected: BTreeMap<_, _> = owned(&hosts.backing()).into_iter().map(expected).collect();
    let found = owned(&hosts.replica());
    for (path, expected) in &expected {
        assert_eq!(&found[path], expected, "{}\n{}", path.display(), hosts.said());
    }
}

#[track_caller]
fn verified(hosts: &Hosts, arguments: &[&str]) -> Value {
    let output = output_within(hosts.on_source().args(["verify", "--json"]).args(arguments), SYNC_MAX);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(said.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{}", describe(&output)))
}

fn started(arguments: &[&str]) -> (Hosts, Accounts) {
    let mut hosts = Hosts::prepare();
    let accounts = Accounts::other_on_target(&mut hosts);
    fill(&hosts.backing(), "before", &accounts);
    hosts.serve_arguments = vec!["--allow", "device,setuid,security"];
    hosts.serve();
    hosts.pair();
    hosts.protect_with(arguments);
    (hosts, accounts)
}

/// What was there and what comes, what is compared, what was mended, what is sent after a restart, and the way back.
#[test]
fn files_belong_to_the_users_of_the_same_names() {
    let (mut hosts, accounts) = started(&["--owner", "name"]);
    assert_owned_by_name(&hosts, &accounts);
    // Made while it is replicated, and given to others afterwards.
    fill(&hosts.mount, "later", &accounts);
    for (number, (user, group)) in accounts.pairs().into_iter().enumerate() {
        let path = hosts.mount.join("before").join(format!(
            "file {} {}",
            accounts.pairs()[0].0,
            accounts.pairs()[0].1
        ));
        chown(&path, Some(user), Some(group)).expect("an owner");
        fs::rename(&path, hosts.mount.join(format!("moved {number}"))).expect("renamed");
        fs::write(&path, "again").expect("a file");
    }
    assert_owned_by_name(&hosts, &accounts);
    for arguments in [&[][..], &["--checksum"][..]] {
        let verified = verified(&hosts, arguments);
        assert_eq!(verified["summary"]["different"], 0, "{verified}");
    }
    // As if by number: that is a difference, and is mended.
    let wrong = hosts.replica().join("before/acls/file");
    chown(&wrong, Some(number_here("/etc/passwd", "daemon")), None).expect("an owner");
    let verified = verified(&hosts, &["--repair"]);
    let summary = &verified["summary"];
    assert_eq!(
        (&summary["before_repair"]["different"], &summary["different"]),
        (&1.into(), &0.into()),
        "{summary}"
    );
    assert_owned_by_name(&hosts, &accounts);
    hosts.stop_source();
    hosts.stop_target();
    hosts.serve();
    hosts.protect_with(&["--owner", "name"]);
    let said = hosts.source.as_ref().expect("it runs").said();
    assert!(said.contains("content of 0 files was sent"), "{said}");
    assert_owned_by_name(&hosts, &accounts);
    hosts.stop_source();
    // Back to where it came from, by name; and by number, which is what the target has.
    for (by, left) in [("name", hosts.backing()), ("number", hosts.replica())] {
        let to = hosts.at(by);
        let mut command = hosts.on_source();
        command.args(["restore", &hosts.repset, "--owner", by, "--name", by, "--to"]).arg(&to);
        let output = output_within(&mut command, SYNC_MAX);
        assert!(output.status.success(), "{}", describe(&output));
        assert_eq!(owned(&to), owned(&left), "{by}");
    }
}

/// The other way round, too: what was told otherwise before is looked at, and no content is sent.
#[test]
fn a_set_goes_from_numbers_to_names_and_back() {
    let (mut hosts, accounts) = started(&[]);
    hosts.assert_in_sync();
    hosts.stop_source();
    for (arguments, is_by_name) in [(&["--owner", "name"][..], true), (&[], false)] {
        hosts.protect_with(arguments);
        match is_by_name {
            true => assert_owned_by_name(&hosts, &accounts),
            false => drop(hosts.assert_in_sync()),
        }
        let connection = hosts.connection();
        assert_eq!(connection["mirror"]["files_sent"].as_u64().unwrap_or_default(), 0, "{connection}");
        hosts.stop_source();
    }
}
