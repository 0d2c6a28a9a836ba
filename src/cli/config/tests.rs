//! What files of options say, and what is said of those that are wrong.

mod drills;
mod random;
mod reading;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::super::args::{Cli, Common};
use super::definition::{Definition, Place, key_of, option_of};
use super::file::{self, Section};
use super::settle;
use crate::words::{Deletes, ProtectOptions, SettingFrom, Target};

/// A state directory, and what is typed beside it.
pub(super) struct Ground(pub tempfile::TempDir);

impl Ground {
    pub fn new() -> Ground {
        Ground(tempfile::tempdir().unwrap())
    }

    pub fn common(&self) -> Common {
        Common { state: Some(self.0.path().into()), run: Some(self.0.path().join("run")), json: false }
    }

    pub fn set(&self, name: &str, text: &str) -> PathBuf {
        fs::create_dir_all(self.0.path().join("sets")).unwrap();
        let path = self.0.path().join(format!("sets/{name}.toml"));
        fs::write(&path, text).unwrap();
        path
    }

    pub fn protect(&self, line: &str) -> Result<ProtectOptions, String> {
        let words = ["standin", "protect"].into_iter().chain(line.split_whitespace());
        let mut typed = Cli::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        let (_, typed) = typed.remove_subcommand().unwrap();
        settle::protect(&self.common(), &typed).map_err(|failure| failure.to_string())
    }

    fn serve(&self, line: &str) -> Result<crate::target_side::ServeOptions, String> {
        let words = ["standin", "serve"].into_iter().chain(line.split_whitespace());
        let mut typed = Cli::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        let (_, typed) = typed.remove_subcommand().unwrap();
        settle::serve(&self.common(), &typed).map_err(|failure| failure.to_string())
    }

    fn monitor(&self, set: &str) -> Result<crate::monitor::Options, String> {
        let typed = Cli::command().try_get_matches_from(["standin", "monitor", set]);
        let (_, typed) = typed.map_err(|error| error.to_string())?.remove_subcommand().unwrap();
        super::monitor(&self.common(), &typed, set).map_err(|failure| failure.to_string())
    }
}

/// Each key of the file of a set with a value that is not its default.
pub(super) const OF_PROTECT: [(&str, &str); 36] = [
    ("dir", "\"/srv/data\""),
    ("backing", "\"/data\""),
    ("to", "[\"local:/copy\", \"null:\"]"),
    ("queue_memory", "\"64M\""),
    ("queue_disk_limit", "\"1G\""),
    ("queue_dir", "\"/fast\""),
    ("map_size", "\"16M\""),
    ("activity_log", "\"strict\""),
    ("profile", "\"batch\""),
    ("mmap_lag", "\"500ms\""),
    ("holder", "true"),
    ("takeover_timeout", "\"1m\""),
    ("on_queue_full", "\"block\""),
    ("delete_guard", "20"),
    ("orphans", "\"keep\""),
    ("orphan_age", "\"12h\""),
    ("owner", "\"name\""),
    ("ignore_deletes", "true"),
    ("keep_deleted", "\"trash\""),
    ("keep_days", "3"),
    ("verify_every", "\"24h\""),
    ("verify_at", "\"03:00\""),
    ("verify_mode", "\"checksum\""),
    ("schedule", "\"at=22:00\""),
    ("limit", "\"8Mbit\""),
    ("compression", "1"),
    ("fsync", "\"target\""),
    ("fsync_timeout", "\"5s\""),
    ("fsync_degrade", "true"),
    ("keep_good", "true"),
    ("fsync_targets", "\"any\""),
    ("statistics", "\"/nowhere/web.jsonl\""),
    ("statistics_size", "\"1M\""),
    ("statistics_keep", "2"),
    ("rule", "[{ exclude = \"*.tmp\" }]"),
    ("directory", "\"/srv/data\""),
];

const OF_SERVE: [(&str, &str); 8] = [
    ("root", "\"/backup\""),
    ("listen", "\"127.0.0.1:7000\""),
    ("allow", "[\"device\", \"setuid\"]"),
    ("keep_good", "true"),
    ("name", "\"here\""),
    ("statistics", "\"/nowhere/serve.jsonl\""),
    ("statistics_size", "\"1M\""),
    ("statistics_keep", "2"),
];

/// Each key below `[monitor]`, in order.
const OF_MONITOR: [&str; 12] =
    ["at", "auto", "fence", "interval", "misses", "need", "post", "pre", "probe", "self", "timeout", "to"];

/// What stands beside a key so that a start makes sense.
fn beside(key: &str) -> &'static str {
    match key {
        "dir" | "directory" => "",
        "keep_days" => "dir = \"/srv/data\"\nkeep_deleted = \"trash\"\n",
        "verify_at" | "verify_mode" => "dir = \"/srv/data\"\nverify_every = \"24h\"\n",
        "statistics_size" | "statistics_keep" => "dir = \"/srv/data\"\nstatistics = \"/nowhere/web.jsonl\"\n",
        "fsync" => "dir = \"/srv/data\"\nto = \"local:/copy\"\n",
        _ => "dir = \"/srv/data\"\n",
    }
}

/// An option that is added to the command line has to be added here, and to the page of the documentation.
#[test]
fn every_option_stands_in_a_file_or_says_why_not() {
    let page = include_str!("../../../docs/configuration.md");
    let mut known: Vec<&str> = OF_PROTECT.iter().map(|(key, _)| *key).collect();
    known.retain(|key| !matches!(*key, "rule" | "directory"));
    let definition = Definition::protect();
    let mut keys: Vec<String> = definition.keys().map(key_of).collect();
    keys.sort();
    known.sort();
    assert_eq!(keys, known);
    let serve = Definition::serve();
    let mut keys: Vec<String> = serve.keys().map(key_of).collect();
    let mut known: Vec<&str> = OF_SERVE.iter().map(|(key, _)| *key).collect();
    keys.sort();
    known.sort();
    assert_eq!(keys, known);
    let monitor = Definition::monitor();
    let mut keys: Vec<String> = monitor.keys().map(key_of).collect();
    keys.sort();
    assert_eq!(keys, OF_MONITOR);
    for key in OF_MONITOR {
        assert!(page.contains(&format!("`{key}`")), "docs/configuration.md says nothing of `{key}`");
    }
    for (key, _) in OF_PROTECT.iter().chain(&OF_SERVE).filter(|(key, _)| *key != "directory") {
        assert!(page.contains(&format!("`{key}`")), "docs/configuration.md says nothing of `{key}`");
    }
    for definition in [&definition, &serve, &monitor, &Definition::drill()] {
        for arg in definition.command.get_arguments() {
            let option = option_of(arg);
            match definition.place(&option) {
                Place::Key(_) => {}
                Place::Refused(why) => assert!(!why.is_empty()),
                Place::Unknown(_) => panic!("nobody has said whether --{option} may stand in a file"),
            }
        }
    }
}

#[test]
fn each_key_counts_in_both_spellings() {
    let ground = Ground::new();
    for (key, value) in OF_PROTECT {
        for spelt in [key.to_owned(), key.replace('_', "-")] {
            let path = ground.set("web", &format!("{}{spelt} = {value}\n", beside(key)));
            let options = ground.protect("web").unwrap_or_else(|error| panic!("{spelt}: {error}"));
            let key = if key == "directory" { "dir" } else { key };
            let setting = options.configuration.settings.iter().find(|setting| setting.key == key).unwrap();
            let line = beside(key).lines().count() + 1;
            assert_eq!(setting.from, SettingFrom::File { path, line }, "{spelt}");
            assert!(!setting.values.is_empty(), "{spelt}");
        }
    }
    for (key, value) in OF_SERVE {
        let root = if key == "root" { "" } else { "root = \"/backup\"\n" };
        let beside =
            if key.starts_with("statistics_") { "statistics = \"/nowhere/serve.jsonl\"\n" } else { "" };
        let text = format!("[serve]\n{root}{beside}{key} = {value}\n");
        fs::write(ground.0.path().join("standin.toml"), text).unwrap();
        let options = ground.serve("").unwrap_or_else(|error| panic!("{key}: {error}"));
        let setting = options.configuration.settings.iter().find(|setting| setting.key == key).unwrap();
        assert!(matches!(setting.from, SettingFrom::File { .. }), "{key}");
    }
}

/// The same of the file as of the command line.
#[test]
fn a_file_says_what_could_be_typed() {
    let ground = Ground::new();
    let several =
        "dir = \"/srv/data\"\nto = [\"local:/copy\", \"null:\"]\nqueue_memory = \"64M\"\nfsync = \"target\"
fsync_degrade = true\nmmap_lag = \"0\"\ndelete_guard = 20\nprofile = \"batch\"\nqueue-disk-limit = 0\n";
    ground.set("web", several);
    let of_file = ground.protect("web").unwrap();
    let typed = "/srv/data --name typed --to local:/copy --to null: --queue-memory 64M --fsync target \
                 --fsync-degrade --mmap-lag 0 --delete-guard 20 --profile batch --queue-disk-limit 0";
    let typed = ground.protect(typed).unwrap();
    let plain = |options: ProtectOptions| ProtectOptions {
        name: String::new(),
        configuration: Default::default(),
        ..options
    };
    assert_eq!(plain(of_file), plain(typed));
    fs::write(ground.0.path().join("standin.toml"), "[serve]\nroot = \"/backup\"\nallow = [\"device\"]\n")
        .unwrap();
    let served = ground.serve("--listen 127.0.0.1").unwrap();
    assert_eq!((served.root.as_path(), served.allow.device), (Path::new("/backup"), true));
    assert_eq!(ground.serve("--root /other --allow setuid").unwrap().root, Path::new("/other"));
    assert!(!ground.serve("--allow setuid").unwrap().allow.device, "what is typed goes before it");
}

#[test]
fn the_command_line_goes_on_top() {
    let ground = Ground::new();
    let path = ground.set(
        "web",
        "dir = \"/srv/data\"\nto = \"local:/copy\"\nlimit = \"1M\"\nkeep_deleted = { dir = \"trash\", days = 3 }
verify = { every = \"24h\", at = \"03:00\" }\n[[rule]]\nexclude = \"a\"\n",
    );
    let options = ground.protect("web").unwrap();
    let terms = &options.configuration.terms;
    assert_eq!(options.targets, [Target::Local("/copy".into())]);
    // What can change while it runs is the file's, not the command line's.
    assert_eq!((&options.limit, &options.deletes, &options.verify), (&None, &None, &None));
    assert_eq!(terms.limit, Some("1M".parse().unwrap()));
    assert!(matches!(&terms.deletes, Some(Deletes::Keep(keep)) if keep.days() == 3));
    assert_eq!(terms.verify.unwrap().to_string(), "every 1d at 03:00 (attributes)");
    let typed = "web --to null: --limit 2M --ignore-deletes --verify-every 7d --exclude b --include b/c --queue-memory 64M";
    let options = ground.protect(typed).unwrap();
    assert_eq!(options.targets, [Target::Null]);
    assert_eq!(options.limit, Some("2M".parse().unwrap()));
    assert_eq!(options.deletes, Some(Deletes::Ignore));
    assert_eq!(options.verify.unwrap().to_string(), "every 7d (attributes)");
    let typed: Vec<&str> = options.rules.iter().map(|rule| rule.pattern.as_str()).collect();
    assert_eq!(typed, ["b", "b/c"]);
    let from = |key: &str| {
        let settings = &options.configuration.settings;
        settings.iter().find(|setting| setting.key == key).map(|setting| setting.from.clone()).unwrap()
    };
    assert_eq!(from("limit"), SettingFrom::CommandLine);
    assert_eq!(from("dir"), SettingFrom::File { path, line: 1 });
    assert_eq!(from("profile"), SettingFrom::Default);
}

#[test]
fn a_word_is_a_set_that_names_its_directory() {
    let ground = Ground::new();
    let real = ground.0.path().canonicalize().unwrap().join("data");
    fs::create_dir(&real).unwrap();
    ground.set("web", &format!("dir = {real:?}\nlimit = \"1M\"\n"));
    ground.set("rules", "limit = \"1M\"\n");
    let meant = |line: &str| {
        ground
            .protect(line)
            .map(|options| (options.name, options.directory))
            .map_err(|error| error.to_string())
    };
    assert_eq!(meant("web"), Ok(("web".into(), real.clone())));
    assert_eq!(meant("--name web"), Ok(("web".into(), real.clone())));
    let typed = format!("{} --name web", real.display());
    assert_eq!(meant(&typed), Ok(("web".into(), real.clone())));
    // Of a set whose file names none, a directory has to be typed.
    assert_eq!(meant("/srv/rules"), Ok(("rules".into(), "/srv/rules".into())));
    assert!(meant("rules").unwrap_err().contains("no set of that name whose file has `dir`"));
    assert!(meant("nothing").unwrap_err().contains("There is no directory 'nothing' here"));
    let other = meant("/srv/other --name web").unwrap_err();
    assert!(other.contains("web.toml:1") && other.contains("not of /srv/other"), "{other}");
    // The part behind the last / is only the name.
    assert!(meant("./web").unwrap_err().contains("not of"));
    assert!(meant("../x/web").unwrap_err().contains("not of"));
}

/// What is wrong, where it stands, and what it is.
const WRONG: [(&str, usize, usize, &str); 47] = [
    ("limt = \"1M\"\n", 1, 1, "unknown key `limt`; did you mean `limit`?"),
    ("queue_memori = \"1G\"\n", 1, 1, "did you mean `queue_memory`?"),
    ("xyzzy = 1\n", 1, 1, "unknown key `xyzzy`"),
    ("dir = \"/a\"\nlimit = \"fast\"\n", 2, 9, "no rate"),
    ("limit = 3.5\n", 1, 9, "expected a text, not float"),
    ("queue_memory = \"64Q\"\n", 1, 16, "'--queue-memory <SIZE>'"),
    ("queue_memory = \"1M\"\n", 1, 16, "too small"),
    ("map_size = \"1\"\n", 1, 12, "is no map"),
    ("compression = 9\n", 1, 15, "9"),
    ("schedule = \"at=22\"\n", 1, 12, "time of day"),
    ("schedule = true\n", 1, 12, "expected a text, not boolean"),
    ("fsync = \"remote\"\n", 1, 9, "possible values: local, target"),
    ("fsync = \"target\"\n", 1, 9, "needs a target"),
    ("fsync_degrade = \"yes\"\n", 1, 17, "expected true or false, not string"),
    ("to = [\"local:/a\", 3.0]\n", 1, 6, "expected a list of texts"),
    ("to = \"ssh:x\"\n", 1, 6, "is no target"),
    ("to = \"local:copy\"\n", 1, 6, "expected an absolute path, not 'local:copy'"),
    ("dir = \"data\"\n", 1, 7, "expected an absolute path, not 'data'"),
    ("dir = [\"/a\"]\n", 1, 7, "expected a text, not array"),
    ("dir = \"/a\\u0000b\"\n", 1, 7, "NUL"),
    ("dir = \"/a\"\ndirectory = \"/b\"\n", 2, 1, "said twice: line 1"),
    ("keep_days = 3\nkeep-days = 4\n", 2, 1, "said twice"),
    ("limit = \"1M\"\nlimit = \"2M\"\n", 2, 1, "duplicate"),
    ("adopt = true\n", 1, 1, "decision of a moment"),
    ("stand_in = true\n", 1, 1, "decision of a moment"),
    ("force = true\n", 1, 1, "decision of a moment"),
    ("accept-bad-data = true\n", 1, 1, "decision of a moment"),
    ("name = \"x\"\n", 1, 1, "the file's own name"),
    ("state = \"/x\"\n", 1, 1, "before it reads a file"),
    ("exclude = \"*.tmp\"\n", 1, 1, "[[rule]]"),
    ("token = \"abc\"\n", 1, 1, "a secret never stands in a file"),
    ("[[rule]]\nexclud = \"a\"\n", 2, 1, "unknown key `exclud`"),
    ("[[rule]]\nexclude = \"a//b\"\n", 2, 11, "a//b"),
    ("[[rule]]\nexclude = \"a\"\ninclude = \"b\"\n", 1, 1, "either"),
    ("[[rule]]\nexclude = 3\n", 2, 11, "expected a text"),
    ("[[rule]]\nexclude = \"a\"\nrecursive = 1\n", 3, 13, "true or false"),
    ("statistics = \"web.jsonl\"\n", 1, 14, "expected an absolute path, not 'web.jsonl'"),
    ("statistics = \"/web.jsonl\"\n", 1, 14, "directory of its own"),
    ("statistics = \"/nowhere/x\"\nstatistics_size = \"1K\"\n", 2, 19, "too short"),
    ("statistics_keep = 0\n", 1, 19, "0 is not in 1..=100"),
    ("statistics_size = \"1M\"\n", 1, 19, "--statistics <FILE>"),
    ("rule = 3\n", 1, 8, "expected [[rule]]"),
    ("verify = \"24h\"\n", 1, 10, "expected a table with every, at, mode"),
    ("[verify]\nevery = \"7h\"\nat = \"03:00\"\n", 3, 6, "goes into a day"),
    ("[verify]\nevery = \"1d\"\nfrom = \"03:00\"\n", 3, 1, "unknown key `from`"),
    ("keep_deleted = { dir = \"a/b\", days = 1 }\n", 1, 24, "a/b"),
    ("limit = \"1M\n", 1, 12, "string"),
];

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let ground = Ground::new();
    for (text, line, column, part) in WRONG {
        let path = ground.set("web", text);
        let error = ground.protect("/srv/web").unwrap_err();
        let place = format!("{}:{line}:{column}: ", path.display());
        assert!(error.contains(&place) && error.contains(part), "{text:?}: {error}");
        assert!(error.contains("untouched: Nothing was"), "{text:?}: {error}");
    }
    for (text, part) in [
        ("root = \"/backup\"\n", "standin.toml:1:1: `root` stands below [serve]"),
        ("[serve]\nrot = \"/backup\"\n", "standin.toml:2:1: unknown key `rot`; did you mean `root`?"),
        ("[serve]\nroot = \"/backup\"\nadopt = true\n", "decision of a moment"),
        ("[serve]\nroot = \"/backup\"\nallow = \"everything\"\n", "possible values"),
        ("[serve]\nroot = \"/backup\"\nlisten = \"host:1\"\n", "address of this host"),
        ("[sources]\n", "unknown key `sources`; expected [serve]"),
        ("serve = 3\n", "write [serve]"),
        ("", "Type --root PATH, or write `root` below [serve]"),
    ] {
        fs::write(ground.0.path().join("standin.toml"), text).unwrap();
        let error = ground.serve("").unwrap_err();
        assert!(error.contains(part), "{text:?}: {error}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text =
        "limt = \"1M\"\nqueue_memory = true\n\n[[rule]]\nexclude = \"a//b\"\n[verify]\nat = \"25:00\"\n";
    let parsed = file::parse(Path::new("web.toml"), text, &Definition::protect(), Section::Whole);
    let lines: Vec<usize> = parsed.faults.iter().map(|fault| fault.at.line).collect();
    assert_eq!(lines, [1, 2, 5, 7], "{:?}", parsed.faults);
    let broken = "limit = \nqueue_memory = = 3\nlimt = 3\n";
    let parsed = file::parse(Path::new("web.toml"), broken, &Definition::protect(), Section::Whole);
    let lines: std::collections::BTreeSet<usize> = parsed.faults.iter().map(|fault| fault.at.line).collect();
    assert!(lines.contains(&1) && lines.contains(&2) && lines.contains(&3), "{:?}", parsed.faults);
}

/// Whoever may write it decides what is replicated, and to where.
#[test]
fn a_file_that_others_may_write_is_refused() {
    let ground = Ground::new();
    let path = ground.set("web", "dir = \"/srv/data\"\n");
    ground.protect("web").unwrap();
    let with = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    with(&path, 0o602);
    assert!(ground.protect("web").unwrap_err().contains("others may write to it (mode 0602)"));
    with(&path, 0o600);
    with(path.parent().unwrap(), 0o777);
    assert!(ground.protect("web").unwrap_err().contains("others may write to its directory"));
    with(path.parent().unwrap(), 0o755);
    ground.protect("web").unwrap();
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(ground.protect("web").unwrap_err().contains("it is no file"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, [b'#'; (1 << 20) + 1]).unwrap();
    assert!(ground.protect("web").unwrap_err().contains("longer than 1 MiB"));
    fs::write(&path, b"dir = \"\xff\"").unwrap();
    assert!(ground.protect("web").unwrap_err().contains("UTF-8"));
}

/// The example of the documentation is a file that starts a set, and its other half one that starts a target.
#[test]
fn the_example_of_the_documentation_is_right() {
    let page = include_str!("../../../docs/configuration.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4, "the set's, the target's, the monitor's and the drill's");
    let ground = Ground::new();
    ground.set("web", blocks[0]);
    ground.protect("web").unwrap();
    // What is commented out may be taken in, too: each alone.
    let mut tried = 0;
    let optional = blocks[0].lines().filter(|line| line.starts_with("#") && !line.starts_with("# "));
    for line in optional {
        let key = line[1..].split(' ').next().unwrap();
        let without = blocks[0].lines().filter(|other| !other.starts_with(&format!("{key} =")));
        let mut text: Vec<&str> = without.collect();
        text.insert(0, &line[1..]);
        ground.set("web", &text.join("\n"));
        ground.protect("web").unwrap_or_else(|error| panic!("{line}: {error}"));
        tried += 1;
    }
    assert!(tried >= 15, "{tried} lines are offered");
    fs::write(ground.0.path().join("standin.toml"), blocks[1]).unwrap();
    ground.serve("").unwrap();
    ground.set("web", blocks[2]);
    let watched = ground.monitor("web").unwrap();
    assert_eq!((watched.probes.len(), watched.own.len(), watched.misses), (2, 1, 5));
    fs::create_dir(ground.0.path().join("drills")).unwrap();
    fs::write(ground.0.path().join("drills/web.toml"), blocks[3]).unwrap();
    assert!(super::of_drill::shown(&ground.common(), "web").unwrap().iter().any(|one| one.key == "check"));
}
