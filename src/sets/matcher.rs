//! Whether a name belongs to a set. What is known of a directory is all that its names need, so that each
//! name costs one step, whatever its depth.
//!
//! A pattern is a row of components; of a directory it is known how far each pattern has come on the way to
//! it. Two directories of which the same is known have the same set below them, whatever their names are.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobMatcher};

use super::rules::{BadRule, Rule, Rules};

/// Components of a pattern at most: the places of one are the bits of a word.
const COMPONENTS_MAX: usize = 60;

/// See the module.
#[derive(Debug)]
pub struct Matcher {
    rules: Rules,
    patterns: Vec<Pattern>,
    /// What no rule applies to is in the set.
    is_in: bool,
}

#[derive(Debug)]
struct Pattern {
    components: Vec<Component>,
    directories_only: bool,
}

#[derive(Debug)]
enum Component {
    /// `**`: any number of directories.
    Any,
    Literal(Vec<u8>),
    Glob(GlobMatcher),
}

/// What is known of a directory of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirRules {
    /// For each pattern its places, as bits.
    places: Box<[u64]>,
    /// The last rule that applies to all below.
    last: Option<usize>,
    /// The last one that applies to its files.
    last_of_files: Option<usize>,
}

impl Matcher {
    /// Errors: a pattern that means nothing, or more of them than a set may have.
    pub fn new(rules: &Rules) -> Result<Matcher, BadRule> {
        rules.check_count()?;
        let patterns = rules.0.iter().map(Pattern::new).collect::<Result<Vec<_>, _>>()?;
        let is_in = rules.0.first().is_none_or(|first| !first.includes);
        Ok(Matcher { rules: rules.clone(), patterns, is_in })
    }

    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The protected directory itself.
    pub fn root(&self) -> DirRules {
        let places = self.patterns.iter().map(|pattern| pattern.reach(1)).collect();
        DirRules { places, last: None, last_of_files: None }
    }

    /// Whether something that is no directory belongs to the set, by its name in a directory of the set.
    pub fn has_file(&self, dir: &DirRules, name: &[u8]) -> bool {
        let mut last = dir.last.max(dir.last_of_files);
        for (at, (pattern, places)) in self.patterns.iter().zip(&dir.places).enumerate() {
            let matches = !pattern.directories_only && pattern.is_whole(pattern.step(*places, name));
            last = if matches { last.max(Some(at)) } else { last };
        }
        self.says(last)
    }

    /// A directory by its name in a directory of the set; `None`: neither it nor anything below belongs to it.
    pub fn enter(&self, dir: &DirRules, name: &[u8]) -> Option<DirRules> {
        let (mut last, mut last_of_files, mut of_itself) = (dir.last, None, dir.last);
        let mut places = Vec::with_capacity(self.patterns.len());
        for (at, (pattern, before)) in self.patterns.iter().zip(&dir.places).enumerate() {
            let now = pattern.step(*before, name);
            if pattern.is_whole(now) {
                of_itself = of_itself.max(Some(at));
                let which = if self.rules.0[at].is_recursive { &mut last } else { &mut last_of_files };
                *which = (*which).max(Some(at));
            }
            places.push(pattern.unfinished(now));
        }
        let may_include = |(at, places): (usize, &u64)| {
            *places != 0 && self.rules.0[at].includes && last.is_none_or(|last| at > last)
        };
        let is_in = self.says(of_itself)
            || self.says(last)
            || last_of_files.is_some_and(|_| self.says(last.max(last_of_files)))
            || places.iter().enumerate().any(may_include);
        is_in.then(|| DirRules { places: places.into(), last, last_of_files })
    }

    /// Of a name in a directory of the set.
    pub fn has(&self, dir: &DirRules, name: &[u8], is_directory: bool) -> bool {
        if is_directory { self.enter(dir, name).is_some() } else { self.has_file(dir, name) }
    }

    /// The directory at a path from the root on; the root's is empty.
    pub fn directory(&self, path: &[u8]) -> Option<DirRules> {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(self.root(), |dir, name| self.enter(&dir, name))
    }

    fn says(&self, last: Option<usize>) -> bool {
        last.map_or(self.is_in, |at| self.rules.0[at].includes)
    }
}

impl Pattern {
    fn new(rule: &Rule) -> Result<Pattern, BadRule> {
        let bad = |why: &str| BadRule { pattern: rule.pattern.clone(), why: why.to_owned() };
        let text = rule.pattern.as_str();
        let (text, directories_only) = match text.strip_suffix('/') {
            Some(text) => (text, true),
            None => (text, false),
        };
        let (text, is_anchored) = match text.strip_prefix('/') {
            Some(text) => (text, true),
            None => (text, text.contains('/')),
        };
        if text.is_empty() {
            return Err(bad("it names nothing"));
        }
        let mut components = if is_anchored { Vec::new() } else { vec![Component::Any] };
        for name in text.split('/') {
            components.push(Component::new(name).map_err(|why| bad(&why))?);
        }
        if let Some(Component::Any) = components.last() {
            components.push(Component::new("*").map_err(|why| bad(&why))?);
        }
        if components.len() > COMPONENTS_MAX {
            return Err(bad("it has too many components"));
        }
        Ok(Pattern { components, directories_only })
    }

    /// From these places on, `**` may stand for nothing.
    fn reach(&self, mut places: u64) -> u64 {
        for (at, component) in self.components.iter().enumerate() {
            if let Component::Any = component
                && places & 1 << at != 0
            {
                places |= 1 << (at + 1);
            }
        }
        places
    }

    fn step(&self, places: u64, name: &[u8]) -> u64 {
        let mut now = 0;
        for (at, component) in self.components.iter().enumerate().filter(|(at, _)| places & 1 << at != 0) {
            now |= match component {
                Component::Any => 1 << at,
                Component::Literal(literal) if literal == name => 1 << (at + 1),
                Component::Glob(glob) if glob.is_match(OsStr::from_bytes(name)) => 1 << (at + 1),
                Component::Literal(_) | Component::Glob(_) => 0,
            };
        }
        self.reach(now)
    }

    fn is_whole(&self, places: u64) -> bool {
        places & 1 << self.components.len() != 0
    }

    fn unfinished(&self, places: u64) -> u64 {
        places & !(1 << self.components.len())
    }
}

impl Component {
    fn new(name: &str) -> Result<Component, String> {
        match name {
            "" => return Err("it has an empty component".to_owned()),
            "." | ".." => return Err(format!("{name:?} is no name in a directory")),
            "**" => return Ok(Component::Any),
            _ if name.contains("**") => return Err("`**` stands alone between slashes".to_owned()),
            _ if !name.contains(['*', '?', '[', '{', '\\']) => {
                return Ok(Component::Literal(name.as_bytes().to_vec()));
            }
            _ => {}
        }
        let glob = GlobBuilder::new(name).literal_separator(true).backslash_escape(true).build();
        Ok(Component::Glob(glob.map_err(|error| error.kind().to_string())?.compile_matcher()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(rules: &[&str]) -> Matcher {
        let rule = |text: &&str| match text.split_at(1) {
            ("+", pattern) => Rule::include(pattern),
            ("-", pattern) => Rule::exclude(pattern),
            ("=", pattern) => Rule { is_recursive: false, ..Rule::include(pattern) },
            ("~", pattern) => Rule { is_recursive: false, ..Rule::exclude(pattern) },
            _ => panic!("{text}"),
        };
        Matcher::new(&Rules(rules.iter().map(rule).collect())).unwrap()
    }

    fn has(matcher: &Matcher, path: &str) -> bool {
        let (path, is_directory) = match path.strip_suffix('/') {
            Some(path) => (path, true),
            None => (path, false),
        };
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        matcher.directory(dir.as_bytes()).is_some_and(|dir| matcher.has(&dir, name.as_bytes(), is_directory))
    }

    /// Rules, what is in the set, and what is not. A directory ends in `/`.
    #[test]
    fn what_belongs_to_a_set() {
        let table: [(&[&str], &[&str], &[&str]); 14] = [
            (&[], &["a", "a/b/c", "d/"], &[]),
            (&["-*.tmp"], &["a", "a.tmpx", "d/"], &["a.tmp", "d/e/a.tmp", "x.tmp/", "x.tmp/a"]),
            (&["-/*.tmp"], &["d/a.tmp"], &["a.tmp"]),
            (&["-a/b"], &["a/", "a/c", "b", "x/a/b"], &["a/b", "a/b/", "a/b/c"]),
            (&["-cache/"], &["cache", "d/cache"], &["cache/", "d/cache/", "d/cache/x"]),
            (&["-a", "+a/b/c"], &["a/", "a/b/", "a/b/c", "a/b/c/d", "x"], &["a/x", "a/b/x", "a/y/"]),
            (&["+a/b/c", "-a"], &[], &["a/", "a/b/", "a/b/c", "x"]),
            (&["+*.db"], &["a.db", "d/", "d/e/a.db"], &["a", "d/a.txt"]),
            (&["+/data", "-*.log"], &["data/", "data/a", "data/d/"], &["other", "other/", "data/a.log"]),
            (&["=/data"], &["data/", "data/a"], &["data/d/", "data/d/a", "b"]),
            (&["~/data"], &["data/", "data/d/", "data/d/a", "b"], &["data/a"]),
            (&["-a/**/z"], &["a/", "a/b/", "z", "a/zz"], &["a/z", "a/b/z", "a/b/c/z", "a/b/z/q"]),
            (&["-a/**"], &["a/", "a"], &["a/b", "a/b/c"]),
            (&["-*", "+keep", "-*.tmp"], &["keep/", "keep/a", "d/"], &["a", "keep/a.tmp", "d/a"]),
        ];
        for (rules, inside, outside) in table {
            let matcher = matcher(rules);
            inside.iter().for_each(|path| assert!(has(&matcher, path), "{rules:?}: {path}"));
            outside.iter().for_each(|path| assert!(!has(&matcher, path), "{rules:?}: {path}"));
        }
    }

    #[test]
    fn names_are_bytes() {
        let matcher = matcher(&["-*.t?p", "-[ab]c"]);
        let root = matcher.root();
        assert!(!matcher.has_file(&root, b"\xff.tmp"));
        assert!(!matcher.has_file(&root, b"x.t\xffp"));
        assert!(!matcher.has_file(&root, b"ac") && matcher.has_file(&root, b"cc"));
        assert!(!matcher.has_file(&root, b"new\nline.tmp") && !matcher.has_file(&root, b".tmp"));
    }

    /// A directory that moves takes its set with it where the same is known of both places.
    #[test]
    fn below_directories_alike_the_set_is_the_same() {
        let matcher = matcher(&["-*.tmp", "-projects/*/build"]);
        let dir = |path: &str| matcher.directory(path.as_bytes()).unwrap();
        assert_eq!(dir("projects/a"), dir("projects/b"));
        assert_ne!(dir("projects/a"), dir("a"));
        assert_eq!(dir("a/b/c"), dir("d"));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let long = "x".repeat(crate::limits::SET_PATTERN_LEN_MAX + 1);
        for pattern in ["", "/", "a//b", "../x", "a/./b", "[a", "{a", "a**", &long] {
            let error = Matcher::new(&Rules(vec![Rule::exclude(pattern)])).unwrap_err();
            assert!(!error.why.is_empty(), "{pattern}");
        }
        let many = vec![Rule::exclude("a"); crate::limits::SET_RULES_MAX + 1];
        Matcher::new(&Rules(many)).unwrap_err();
        let deep = vec!["*"; COMPONENTS_MAX + 1].join("/");
        Matcher::new(&Rules(vec![Rule::exclude(&deep)])).unwrap_err();
    }
}
